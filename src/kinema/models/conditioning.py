"""What conditions a backbone: the states of prompts, images, vectors and channels, as one value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kinema.prompts.reading import PromptReport
from kinema.shapes import Float


@runtime_checkable
class TextEncoder(Protocol):
    """The text encoder that conditions a backbone: the CLIP, or the encoder of another model family."""

    @property
    def text_width(self) -> int:
        """Width of the states."""
        ...

    @property
    def max_length(self) -> int:
        """The largest number of states of a prompt."""
        ...

    def read_prompt(self, prompt: str) -> PromptReport:
        """How each word of `prompt` is read."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> "TextStates":
        """The states of all prompts, in order."""
        ...


@dataclass(frozen=True, eq=False)
class TextStates:
    """Hidden states of the tokens of several prompts, one prompt after the other, without padding.

    `lengths` holds the number of tokens of each prompt. `pooled` is one vector per prompt, for encoders that
    have one. Raises `ValueError` when they do not fit the states.
    """

    states: Float[Tensor, "s d"]
    lengths: tuple[int, ...]
    pooled: Float[Tensor, "p v"] | None = None

    def __post_init__(self) -> None:
        if sum(self.lengths) != self.states.shape[0] or min(self.lengths, default=0) < 0:
            raise ValueError(f"{len(self.states)} text states cannot be split into lengths {self.lengths}")
        if self.pooled is not None and len(self.pooled) != len(self.lengths):
            raise ValueError(
                f"{len(self.pooled)} pooled vectors do not belong to {len(self.lengths)} prompts"
            )

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.lengths)

    def split(self) -> list["TextStates"]:
        """The states of each prompt by itself. The inverse of `cat`."""
        pooled = [None] * len(self) if self.pooled is None else self.pooled.split(1)
        return [
            TextStates(states, (len(states),), vector)
            for states, vector in zip(self.states.split(self.lengths), pooled)
        ]

    @classmethod
    def cat(cls, texts: Sequence["TextStates"]) -> "TextStates":
        """All prompts of `texts` in order. `texts` holds at least one item."""
        return cls(
            torch.cat([text.states for text in texts]),
            tuple(length for text in texts for length in text.lengths),
            _cat([text.pooled for text in texts]),
        )

    def to(self, device: torch.device) -> "TextStates":
        """The same states on `device`."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return TextStates(self.states.to(device), self.lengths, pooled)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Everything that conditions the prediction for the clips of a batch.

    Raises `ValueError` when the parts do not belong to the same number of clips.
    """

    text: TextStates
    """The prompt of each clip, whose tokens are attended to."""
    images: TextStates | None = None
    """Image states of each clip, attended to with keys and values of their own (Wan 2.1 image to video)."""
    vectors: Float[Tensor, "b v"] | None = None
    """One per clip, added to the time embedding: size and crop, the embedding of an image."""
    frame_vectors: Float[Tensor, "b lf r"] | None = None
    """One per latent frame, added to the time embedding: actions, camera."""
    channels: Float[Tensor, "b c2 lf lh lw"] | None = None
    """Concatenated to the channels of the latents."""

    def __post_init__(self) -> None:
        for name in ("images", "vectors", "frame_vectors", "channels"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self.text):
                raise ValueError(f"{name} of {len(part)} clips do not belong to {len(self.text)} prompts")

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.text)

    @property
    def clip_vectors(self) -> Float[Tensor, "b v"] | None:
        """One vector per clip: the text encoder's pooled vector, then `vectors`. None if there is neither."""
        parts = [part for part in (self.text.pooled, self.vectors) if part is not None]
        return torch.cat(parts, dim=1) if parts else None

    def split(self) -> list["Conditioning"]:
        """The conditioning of each clip by itself. The inverse of `cat`."""
        rows = [part.split(1) if isinstance(part, Tensor) else None for part in self._tensors()]
        images = None if self.images is None else self.images.split()
        return [
            Conditioning(
                text,
                None if images is None else images[i],
                *(None if row is None else row[i] for row in rows),
            )
            for i, text in enumerate(self.text.split())
        ]

    @classmethod
    def cat(cls, parts: Sequence["Conditioning"]) -> "Conditioning":
        """All clips of `parts` in order. `parts` holds at least one item, and all have the same fields."""
        images = [part.images for part in parts if part.images is not None]
        return cls(
            TextStates.cat([part.text for part in parts]),
            TextStates.cat(images) if images else None,
            *(_cat(tensors) for tensors in zip(*(part._tensors() for part in parts))),
        )

    def to(self, device: torch.device) -> "Conditioning":
        """The same conditioning on `device`."""
        return Conditioning(
            self.text.to(device),
            None if self.images is None else self.images.to(device),
            *(None if part is None else part.to(device) for part in self._tensors()),
        )

    def _tensors(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.vectors, self.frame_vectors, self.channels


def predict_each(
    predict: Callable[[Tensor, Tensor, Conditioning, int], Tensor],
    clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
    t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
    conditioning: Sequence[Conditioning],
    first_frames: Sequence[int],
) -> list[Tensor]:
    """The predictions (out, lf, lh, lw) for clips of any sizes, by one call of `predict` per clip.

    It is `Backbone.predict_packed` of a backbone that does not pack clips.
    """
    parts = zip(clips, t, conditioning, first_frames, strict=True)
    return [predict(clip[None], times[None], one, first)[0] for clip, times, one, first in parts]


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The given tensors, one after the other. None if there is none."""
    given = [part for part in parts if part is not None]
    return torch.cat(given) if given else None
