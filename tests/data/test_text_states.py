"""States of captions on disk: each caption is encoded once, and a damaged shard is named."""

import hashlib

import pytest
import torch

from kinema.data.shard_cache import ShardCache
from kinema.data.text_states import TextCache
from kinema.errors import TrainingError
from kinema.models.conditioning import TextStates
from kinema.prompts.reading import read_as_written


class Counts:
    """A text encoder whose states follow from the caption, and that counts what it encodes."""

    text_width, max_length = 4, 100
    read_prompt = staticmethod(read_as_written)

    def __init__(self):
        self.encoded = []

    def encode_prompts(self, prompts):
        self.encoded += prompts
        states = [
            torch.tensor([list(hashlib.sha256(prompt.encode()).digest()[:4])] * (1 + len(prompt))).float()
            for prompt in prompts
        ]
        return TextStates(torch.cat(states), tuple(map(len, states)))


def test_captions_are_encoded_once_and_a_damaged_shard_is_named(tmp_path):
    def cache():
        return TextCache(ShardCache(tmp_path, "encoder"), 4, 100)

    encoder, first, again = Counts(), cache(), cache()
    first.fill(["one", "two", "one", ""], encoder)
    again.fill(["two", "three", ""], encoder)
    assert encoder.encoded == ["one", "two", "", "three"]
    read = again.encode_prompts(["three", "", "one"])
    assert read.lengths == (6, 1, 4)
    assert torch.equal(read.states, encoder.encode_prompts(["three", "", "one"]).states)
    with pytest.raises(TrainingError, match="'four' has not been encoded"):
        again.encode_prompts(["four"])
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"torn")
    with pytest.raises(TrainingError, match="is damaged"):
        cache().fill(["one"], encoder)
