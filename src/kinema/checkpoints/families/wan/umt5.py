"""UMT5, the text encoder of the Wan family, as transformers has it, behind the seam that every text encoder has here.

Its weights are the largest part of most Wan models and are needed for a moment only, so they are read when the first prompt comes, and
by default let go of afterwards; what has been encoded is remembered.
"""

import html
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.conditioning import TextStates

REMEMBERED = 16  # prompts whose states are kept: 512 tokens of 4096 numbers are 8 MiB


@runtime_checkable
class SubwordTokenizer(Protocol):
    """What is needed of a tokenizer: the tokens of a text, the end token among them."""

    def encode(self, text: str) -> Any: ...


class UMT5:
    """Prompts to states (s, d), one prompt at a time and without padding.

    `load` gives transformers' UMT5EncoderModel on the device it is to run on; with `keep` it is called once. A prompt of more than
    `max_length` tokens is cut as the tokenizer cuts it, its end token kept.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        tokenizer: SubwordTokenizer,
        text_width: int,
        *,
        max_length: int = 512,
        keep: bool = False,
    ) -> None:
        self.text_width = text_width
        self.max_length = max_length
        self.tokenizer = tokenizer
        self.keep = keep
        self._load = lru_cache(maxsize=1)(load)
        self._states: dict[str, Tensor] = {}

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The states of all prompts, in float32 on the encoder's device."""
        cleaned = [clean(prompt) for prompt in prompts]
        wanted = [text for text in dict.fromkeys(cleaned) if text not in self._states]
        if wanted:
            if len(self._states) + len(wanted) > REMEMBERED:
                self._states.clear()
                wanted = list(dict.fromkeys(cleaned))
            encoder = self._load()
            device = next(encoder.parameters()).device
            for text in wanted:
                tokens = torch.tensor([self.tokens(text)], device=device)
                with torch.no_grad():
                    states = encoder(tokens, torch.ones_like(tokens)).last_hidden_state
                self._states[text] = states[0].float()
            if not self.keep:
                self._load.cache_clear()
        states = [self._states[text] for text in cleaned]
        return TextStates(torch.cat(states), tuple(len(each) for each in states))

    def tokens(self, text: str) -> list[int]:
        """The tokens of cleaned text, at most `max_length`."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]]


def clean(prompt: str) -> str:
    """`prompt` as Wan's encoder wants it: broken encodings mended where ftfy is installed, entities resolved, blanks made single."""
    try:
        import ftfy
    except ImportError:
        pass
    else:
        prompt = ftfy.fix_text(prompt)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


def transformers_module() -> Any:
    """The transformers package. Raises `ConfigError` with what to install when it is not there."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "models of the Wan family need transformers for their text encoder: pip install 'kinema[wan]'"
        ) from None
    return transformers
