"""Hidden states of captions, encoded once into a folder of shards, so that training needs no text encoder in
memory.

The key of a caption is its hash. A killed run keeps finished shards, and captions in them are not encoded
again. States are stored in bfloat16, in which Wan's own code computes them.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.device import CPU
from kinema.errors import TrainingError
from kinema.files import atomic_file, output_errors
from kinema.models.conditioning import TextEncoder, TextStates
from kinema.prompts.reading import PromptReport, read_as_written

log = logging.getLogger(__name__)

SHARD_CAPTIONS = 256


class TextCache:
    """The shards of one text encoder in `folder`, itself a `TextEncoder` for the captions that it holds."""

    def __init__(
        self, folder: Path, text_width: int, device: torch.device = CPU, max_length: int = 512
    ) -> None:
        """States are returned on `device`. The encoder cut captions at `max_length` states."""
        self.folder, self.text_width, self.device, self.max_length = folder, text_width, device, max_length
        self._where: dict[str, Path] = {}

    def fill(self, captions: Iterable[str], encoder: TextEncoder) -> None:
        """Encode the captions that have no states yet. Raises `OutputError` if a shard cannot be written."""
        for shard in sorted(self.folder.glob("*.safetensors")):
            self._where |= dict.fromkeys(_keys(shard), shard)
        missing = [caption for caption in dict.fromkeys(captions) if _key(caption) not in self._where]
        if missing:
            log.info("encoding %d captions into %s", len(missing), self.folder)
        for start in range(0, len(missing), SHARD_CAPTIONS):
            chunk = missing[start : start + SHARD_CAPTIONS]
            states = encoder.encode_prompts(chunk).split()
            content = {
                _key(caption): state.states.bfloat16().cpu().contiguous()
                for caption, state in zip(chunk, states)
            }
            shard = self.folder / f"{_key(''.join(sorted(content)))}.safetensors"
            with atomic_file(shard) as partial, output_errors(shard):
                save_file(content, partial)
            self._where |= dict.fromkeys(content, shard)

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The states of captions in float32. Raises `TrainingError` for one without states or with a damaged
        shard.
        """
        return TextStates.cat([TextStates(state, (len(state),)) for state in map(self._read, prompts)])

    def read_prompt(self, prompt: str) -> PromptReport:
        """Each word is read as it is: the check before training has reported unknown ones."""
        return read_as_written(prompt)

    def _read(self, caption: str) -> Tensor:
        shard = self._where.get(_key(caption))
        if shard is None:
            raise TrainingError(
                f"the caption '{caption[:40]}' has not been encoded: start the run again, which encodes "
                "missing captions"
            )
        try:
            with safe_open(shard, "pt") as file:
                return file.get_tensor(_key(caption)).to(self.device, torch.float32)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{shard} is damaged ({error}); delete it and start again: only this shard is written again"
            ) from error


def _key(caption: str) -> str:
    return hashlib.sha256(caption.encode()).hexdigest()[:32]


def _keys(shard: Path) -> list[str]:
    try:
        with safe_open(shard, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{shard} is damaged ({error}); delete it and start again: only this shard is written again"
        ) from error
