"""UMT5, the text encoder of the Wan family, from transformers."""

import html
import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import nn

from kinema.models.text_encoders import HiddenStates


@runtime_checkable
class SubwordTokenizer(Protocol):
    """The part of a `tokenizers.Tokenizer` that is used: the tokens of a text, with the end token."""

    def encode(self, text: str) -> Any:
        """Token ids and attention mask of `text`, as transformers' tokenizers return them."""
        ...


def umt5_encoder(
    load: Callable[[], nn.Module],
    tokenizer: SubwordTokenizer,
    text_width: int,
    *,
    max_length: int = 512,
    keep: bool = False,
) -> HiddenStates:
    """The text encoder around transformers' UMT5EncoderModel, which `load` returns on its device.

    A prompt of more than `max_length` tokens is truncated as by its tokenizer: the end token is kept.
    """

    def tokens(text: str) -> tuple[list[int], int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]], 0

    return HiddenStates(load, tokens, text_width, max_length=max_length, keep=keep, clean=clean)


def clean(prompt: str) -> str:
    """`prompt` normalised as by Wan: broken encodings repaired if ftfy is installed, entities resolved,
    whitespace merged.
    """
    try:
        import ftfy
    except ImportError:
        pass
    else:
        prompt = ftfy.fix_text(prompt)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()
