"""The interface of a world: clips with captions and truth, and the vocabulary of the captions."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kinema.shapes import UInt8

FORMS = ("short", "medium", "detailed")
LANGUAGES = ("en", "zh")
CAPTION_KEYS = tuple(form + suffix for suffix in ("", "_zh") for form in FORMS)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with their captions (keys `CAPTION_KEYS`) and their truth, which is plain JSON."""

    frames: UInt8[np.ndarray, "f h w 3"]
    fps: float
    captions: dict[str, str]
    truth: dict[str, Any]


@dataclass(frozen=True)
class Vocabulary:
    """The values of each slot of a world, and in `words` every English and Chinese word of its captions."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    grounds: tuple[str, ...]
    skies: tuple[str, ...]
    cameras: tuple[str, ...]
    directions: tuple[str, ...]
    sizes: tuple[str, ...]
    words: tuple[str, ...]


class World(Protocol):
    """An unlimited source of clips. A clip depends only on seed, sizes and configuration."""

    name: str

    def clip(self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0) -> Clip:
        """The clip of `seed`."""
        ...

    def foil(self, clip: Clip, seed: int) -> tuple[str, str]:
        """A medium caption that differs from the clip's in exactly one slot, and the name of that slot."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The slot values and words of this world."""
        ...
