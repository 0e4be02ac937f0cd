"""Clips of a world by index: index i of a split is always the same clip."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kinema.config import check_range
from kinema.data.seeds import derive_seed
from kinema.errors import ConfigError
from kinema.models.pixels import from_uint8
from kinema.shapes import Float
from kinema.worlds import Clip, World


@dataclass(frozen=True)
class CaptionMix:
    """Probabilities of the forms of a caption, of Chinese, and of the empty caption that guidance needs."""

    short: float = 0.3
    medium: float = 0.45
    detailed: float = 0.25
    chinese: float = 0.1
    dropped: float = 0.1

    def __post_init__(self) -> None:
        if abs(self.short + self.medium + self.detailed - 1) > 1e-6:
            raise ConfigError(
                f"short + medium + detailed = {self.short + self.medium + self.detailed:g}; they must "
                "add up to 1"
            )
        check_range(self, ("chinese", "dropped"), 0, 1)

    def draw_any(self, captions: dict[str, str], rng: np.random.Generator) -> str:
        """One caption of a clip; forms that differ from a world's are equally likely. Empty if the clip has
        none.
        """
        if {"short", "medium", "detailed"} <= set(captions) and (
            not self.chinese or {"short_zh", "medium_zh", "detailed_zh"} <= set(captions)
        ):
            return self.draw(captions, rng)
        text = str(rng.choice(sorted(captions.values()))) if captions else ""
        return "" if rng.random() < self.dropped else text

    def draw(self, captions: dict[str, str], rng: np.random.Generator) -> str:
        """One caption of a world's clip; empty with probability `dropped`."""
        form = str(rng.choice(["short", "medium", "detailed"], p=[self.short, self.medium, self.detailed]))
        language = "_zh" if rng.random() < self.chinese else ""
        return "" if rng.random() < self.dropped else captions[form + language]


def draw_clips(
    world: World,
    split: str,
    indices: Sequence[int],
    *,
    height: int,
    width: int,
    num_frames: int,
    fps: float = 8.0,
) -> list[Clip]:
    """The clips of a split at `indices`; height and width in pixels."""
    return [
        world.clip(derive_seed(split, i), height=height, width=width, num_frames=num_frames, fps=fps)
        for i in indices
    ]


def to_tensor(clips: Sequence[Clip]) -> Float[Tensor, "b c f h w"]:
    """Pixels in [-1, 1]."""
    return from_uint8([clip.frames for clip in clips])
