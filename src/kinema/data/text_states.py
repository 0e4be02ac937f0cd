"""Hidden states of captions, encoded once into a folder of shards, so that training needs no text encoder in
memory.

The key of a caption is its hash. A killed run keeps finished shards, and captions in them are not encoded
again. States are stored in bfloat16, in which Wan's own code computes them.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence

import torch

from kinema.data.shard_cache import Shard, ShardCache
from kinema.device import CPU
from kinema.errors import TrainingError
from kinema.models.conditioning import TextEncoder, TextStates
from kinema.prompts.reading import PromptReport, read_as_written

log = logging.getLogger(__name__)

SHARD_CAPTIONS = 256
POOLED = ".pooled"
"""Added to the key of a caption: the key of its pooled vector."""


class TextCache:
    """The states of captions by one text encoder, itself a `TextEncoder` for the captions that it holds."""

    def __init__(
        self, shards: ShardCache, text_width: int, max_length: int, device: torch.device = CPU
    ) -> None:
        """States of at most `max_length` tokens of width `text_width` are returned on `device`."""
        self.shards, self.text_width, self.max_length, self.device = shards, text_width, max_length, device
        self._where: dict[str, str] = {}

    def fill(self, captions: Iterable[str], encoder: TextEncoder) -> None:
        """Encode the captions that have no states yet. Raises `OutputError` if a shard cannot be written."""
        for name in self.shards.names():
            self._where |= dict.fromkeys(self.shards.keys(name), name)
        missing = [caption for caption in dict.fromkeys(captions) if _key(caption) not in self._where]
        if missing:
            log.info("encoding %d captions into %s", len(missing), self.shards.folder)

        for start in range(0, len(missing), SHARD_CAPTIONS):
            chunk = missing[start : start + SHARD_CAPTIONS]
            states = encoder.encode_prompts(chunk).split()
            tensors = {_key(caption): each.states.bfloat16().cpu() for caption, each in zip(chunk, states)}
            name = _key("".join(sorted(tensors)))
            tensors |= {
                _key(caption) + POOLED: each.pooled.bfloat16().cpu()
                for caption, each in zip(chunk, states)
                if each.pooled is not None
            }
            self.shards.put(name, Shard(tensors))
            self._where |= dict.fromkeys(tensors, name)

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The states of captions in float32. Raises `TrainingError` for one without states or with a damaged
        shard.
        """
        return TextStates.cat([self._read(prompt) for prompt in prompts])

    def read_prompt(self, prompt: str) -> PromptReport:
        """Each word is read as it is: the encoders whose states are stored know texts of every kind."""
        return read_as_written(prompt)

    def _read(self, caption: str) -> TextStates:
        key = _key(caption)
        if key not in self._where:
            raise TrainingError(
                f"the caption '{caption[:40]}' has not been encoded: start the run again, which encodes "
                "missing captions"
            )
        keys = [name for name in (key, key + POOLED) if name in self._where]
        tensors = self.shards.read(self._where[key], keys).tensors
        states, *pooled = (tensors[name].to(self.device, torch.float32) for name in keys)
        return TextStates(states, (len(states),), *pooled)


def _key(caption: str) -> str:
    return hashlib.sha256(caption.encode()).hexdigest()[:32]
