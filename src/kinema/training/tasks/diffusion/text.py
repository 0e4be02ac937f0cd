"""The text encoder of a diffusion run: a CLIP, which encodes the captions of every batch, or the encoder of
another model, whose states of all captions are stored before training.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.text_encoders import TextSource, find_text_encoder
from kinema.data.shard_cache import ShardCache
from kinema.data.text_states import TextCache
from kinema.models.clip import CLIP
from kinema.models.conditioning import TextEncoder


def frozen_text(folder: Path, words: Sequence[str] | None) -> CLIP | TextSource:
    """The text encoder of a model or component folder, which is not trained.

    A CLIP knows only `words`, if given.
    """
    source = find_text_encoder(folder)
    if source is not None:
        return source
    clip = load_clip(folder).eval().requires_grad_(False)
    if words is not None:
        clip.tokenizer = clip.tokenizer.limited(words)
    return clip


def prepared_text(
    text: CLIP | TextSource, cache: Path, device: torch.device, captions: Iterable[str]
) -> TextEncoder:
    """The encoder of `captions` and of the empty prompt on `device`. Stored states are in a folder in
    `cache`.
    """
    if isinstance(text, CLIP):
        return text.to(device)
    states = TextCache(ShardCache(cache, text.identity, "text"), text.text_width, text.max_length, device)
    states.fill([*captions, ""], text.open(device, keep=True))
    return states
