"""Text as the backbone takes it: the hidden states of several prompts, packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kinema.shapes import Float


@runtime_checkable
class TextEncoder(Protocol):
    """The text encoder that conditions a backbone: the CLIP, or the encoder of another model family."""

    @property
    def text_width(self) -> int:
        """Width of the states."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> "TextStates":
        """The states of all prompts, in order."""
        ...


@dataclass(frozen=True, eq=False)
class TextStates:
    """Hidden states of the tokens of several prompts, one prompt after the other, without padding.

    `lengths` holds the number of tokens of each prompt. Raises `ValueError` when they do not add up to the
    number of states.
    """

    states: Float[Tensor, "s d"]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.lengths) != self.states.shape[0] or min(self.lengths, default=0) < 0:
            raise ValueError(f"{len(self.states)} text states cannot be split into lengths {self.lengths}")

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.lengths)

    def split(self) -> list["TextStates"]:
        """The states of each prompt by itself. The inverse of `cat`."""
        return [TextStates(states, (len(states),)) for states in self.states.split(self.lengths)]

    @classmethod
    def cat(cls, texts: Sequence["TextStates"]) -> "TextStates":
        """All prompts of `texts` in order. `texts` holds at least one item."""
        return cls(
            torch.cat([text.states for text in texts]),
            tuple(length for text in texts for length in text.lengths),
        )

    def to(self, device: torch.device) -> "TextStates":
        """The same states on `device`."""
        return TextStates(self.states.to(device), self.lengths)
