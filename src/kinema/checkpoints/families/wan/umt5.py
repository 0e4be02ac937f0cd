"""UMT5, the text encoder of the Wan family, from transformers, behind the `TextEncoder` protocol.

Its weights are the largest part of most Wan models and are needed only briefly. They are loaded at the first
prompt and by default released afterwards; the hidden states of recent prompts are cached.
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
from kinema.prompts.reading import PromptReport, read_as_written

REMEMBERED = 16  # prompts whose states are kept: 512 tokens of 4096 numbers are 8 MiB


@runtime_checkable
class SubwordTokenizer(Protocol):
    """The part of a `tokenizers.Tokenizer` that is used: the tokens of a text, with the end token."""

    def encode(self, text: str) -> Any:
        """Token ids and attention mask of `text`, as transformers' tokenizers return them."""
        ...


class UMT5:
    """Prompts to hidden states (s, d), one prompt at a time, without padding.

    `load` returns transformers' UMT5EncoderModel on its device; with `keep` it is called once. A prompt of
    more than `max_length` tokens is truncated as by its tokenizer: the end token is kept.
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
        """The hidden states of all prompts, in float32 on the encoder's device."""
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

    def read_prompt(self, prompt: str) -> PromptReport:
        """Each word is read as it is: the encoder was trained on texts of every kind."""
        return read_as_written(prompt)

    def tokens(self, text: str) -> list[int]:
        """The tokens of cleaned text, at most `max_length`."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]]


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


def transformers_module() -> Any:
    """The transformers package. Raises `ConfigError` with the install command if it is missing."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "models of the Wan family need transformers for their text encoder: pip install 'kinema[wan]'"
        ) from None
    return transformers
