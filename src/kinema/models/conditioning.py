"""Text as the backbone takes it: the states of several prompts, packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kinema.shapes import Float


@runtime_checkable
class TextEncoder(Protocol):
    """What conditions a backbone: our CLIP, or the text encoder of another family."""

    @property
    def text_width(self) -> int:
        """Width of the states."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> "TextStates":
        """The states of every prompt, in order."""
        ...


@dataclass(frozen=True, eq=False)
class TextStates:
    """States of the tokens of several prompts, one prompt after the other and without padding; `lengths` says how many each has."""

    states: Float[Tensor, "s d"]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.lengths) != self.states.shape[0] or min(self.lengths, default=0) < 0:
            raise ValueError(f"{self.states.shape[0]} text states cannot be cut into lengths {self.lengths}")

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.lengths)

    def split(self) -> list["TextStates"]:
        """Each prompt by itself; the inverse of `cat`."""
        return [TextStates(states, (len(states),)) for states in self.states.split(self.lengths)]

    @classmethod
    def cat(cls, texts: Sequence["TextStates"]) -> "TextStates":
        """All prompts of `texts` (at least one), in order."""
        return cls(
            torch.cat([text.states for text in texts]),
            tuple(length for text in texts for length in text.lengths),
        )

    def select(self, indices: Sequence[int]) -> "TextStates":
        """The prompts at `indices` (at least one), in that order, repeated where an index repeats."""
        prompts = self.states.split(self.lengths)
        return TextStates(torch.cat([prompts[i] for i in indices]), tuple(self.lengths[i] for i in indices))

    def to(self, device: torch.device) -> "TextStates":
        """The same states on `device`."""
        return TextStates(self.states.to(device), self.lengths)
