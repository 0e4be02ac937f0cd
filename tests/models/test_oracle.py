"""The oracle's geometry, and that what it reads does not depend on how clips are handed to it."""

import numpy as np
import pytest
import torch

from kinema.checkpoints.components import load_component, save_component
from kinema.errors import ConfigError, RequestError
from kinema.models.oracle import HEAT_STRIDE, Oracle, OracleConfig, expectation, heat_target


def oracle(**sizes) -> Oracle:
    torch.manual_seed(0)
    slots = {name: ("one", "two", "three") for name in ("noun", "size", "ground", "colour")}
    return Oracle(OracleConfig(slots, width=8, short_side_px=32, **sizes)).eval()


def test_the_expectation_of_a_target_is_the_place_it_was_made_from():
    places = torch.rand(20, 2) * 0.8 + 0.1
    height, width = 64, 96
    heat = heat_target(places, height // HEAT_STRIDE, width // HEAT_STRIDE, height, width)
    assert heat.sum(dim=(1, 2)) == pytest.approx(torch.ones(20))
    found = torch.stack(
        [expectation(heat[:, None], 3, width), expectation(heat[:, None], 2, height)], dim=-1
    )[:, 0]
    assert torch.allclose(found, places, atol=1e-5)


@pytest.mark.parametrize("shape", [(128, 128), (96, 160), (160, 96), (32, 32)])
def test_the_short_side_has_the_trained_number_of_pixels(shape):
    prepared = oracle().prepare(torch.zeros(1, 3, 5, *shape))
    assert min(prepared.shape[-2:]) == 32
    assert prepared.shape[-1] / prepared.shape[-2] == pytest.approx(shape[1] / shape[0], rel=0.03)


def test_clips_of_several_sizes_are_read_as_each_by_itself():
    rng = np.random.default_rng(0)
    clips = [
        rng.integers(0, 256, (17, *size, 3), dtype=np.uint8)
        for size in ((32, 32), (32, 32), (32, 48), (48, 32))
    ]
    network = oracle(num_tracks=2)
    for together, clip in zip(network.read(clips, 8.0), clips, strict=True):
        (alone,) = network.read([clip], 8.0)
        assert together.answers == alone.answers
        assert together.x.shape == (17, 2)
        assert together.x == pytest.approx(alone.x, abs=1e-4)


def test_slots_are_read_at_one_rate_and_tracks_at_every_frame():
    network = oracle()
    assert network.chosen_frames(17, 8.0) == list(range(0, 17, 2))
    assert network.chosen_frames(9, 4.0) == list(range(9))
    frames = np.random.default_rng(0).integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    (fast,), (slow,) = network.read([frames], 8.0), network.read([frames[::2]], 4.0)
    assert fast.answers == slow.answers
    assert len(fast.x) == 17


def test_a_clip_too_short_for_motion_is_refused():
    with pytest.raises(RequestError, match="use at least 9 frames"):
        oracle().read([np.zeros((5, 32, 32, 3), np.uint8)], 8.0)


def test_an_oracle_comes_back_from_its_folder(tmp_path):
    network = oracle()
    save_component(tmp_path / "oracle", network)
    back = load_component(tmp_path / "oracle", Oracle)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert back.config == network.config
    assert torch.equal(back(video).logits["noun"], network(video).logits["noun"])


def test_an_oracle_needs_slots():
    with pytest.raises(ConfigError, match="take them from the slots of a world"):
        Oracle(OracleConfig())
