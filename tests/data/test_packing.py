"""Batches of equal token count: nothing is lost, nothing comes twice, and the order is a pure function of
seed and step.
"""

import numpy as np
import pytest

from kinema.data.packing import PackConfig, Packing
from kinema.errors import DataError

rng = np.random.default_rng(0)
SHAPES = [
    tuple(map(int, shape))
    for shape in zip(
        rng.choice([1, 3, 4, 5], 3000), rng.choice([4, 6, 8, 12], 3000), rng.choice([4, 6, 8, 12], 3000)
    )
]
TOKENS = [f * h * w // 4 for f, h, w in SHAPES]


def packing(mode="pack", tokens=1024, seed=0) -> Packing:
    return Packing(TOKENS, SHAPES, PackConfig(tokens, mode), seed)


@pytest.mark.parametrize("mode", ["pack", "bucket"])
def test_an_epoch_has_every_clip_once_and_no_batch_is_too_full(mode):
    batches = packing(mode).epoch(0)
    assert sorted(index for batch in batches for index in batch) == list(range(len(TOKENS)))
    assert max(sum(TOKENS[i] for i in batch) for batch in batches) <= 1024
    if mode == "bucket":
        assert all(len({SHAPES[i] for i in batch}) == 1 for batch in batches)


def test_packs_are_nearly_full_and_fuller_than_padding_and_buckets():
    packs, buckets = packing().epoch(0), packing("bucket").epoch(0)
    assert sum(TOKENS) / (len(packs) * 1024) > 0.97
    assert len(packs) < len(buckets)
    per_padded = 1024 // max(TOKENS)
    assert len(TOKENS) / per_padded > 2.5 * len(packs)


def test_a_step_is_the_same_batch_wherever_one_begins():
    straight = packing()
    steps = [straight.batch(step) for step in range(len(straight.epoch(0)) + 20)]
    later = packing()
    assert [later.batch(step) for step in reversed(range(len(steps)))] == steps[::-1]
    assert packing(seed=1).batch(0) != steps[0]
    assert straight.epoch(0) != straight.epoch(1)


def test_the_table_says_what_is_left_out_and_why():
    small = packing(tokens=100)
    left = sum(tokens > 100 for tokens in TOKENS)
    assert small.table()[0] == f"3000 clips in, {left} left out: more than 100 tokens"
    with pytest.raises(DataError, match=r"raise pack\.tokens"):
        packing(tokens=3)
