"""What a world gives: a clip with captions and truth, and the words it can use."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

FORMS = ("short", "medium", "detailed")
LANGUAGES = ("en", "zh")
CAPTION_KEYS = tuple(form + suffix for suffix in ("", "_zh") for form in FORMS)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames `(f, h, w, 3)` in uint8 with their captions (keys `CAPTION_KEYS`) and their truth, which is plain JSON."""

    frames: np.ndarray
    fps: float
    captions: dict[str, str]
    truth: dict[str, Any]


@dataclass(frozen=True)
class Vocabulary:
    """The slot values of a world by slot, and in `words` every English and Chinese word that its captions can contain."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    grounds: tuple[str, ...]
    skies: tuple[str, ...]
    cameras: tuple[str, ...]
    directions: tuple[str, ...]
    sizes: tuple[str, ...]
    words: tuple[str, ...]


class World(Protocol):
    """An endless source of clips; a clip is a pure function of the seed, the sizes and the world's configuration."""

    name: str

    def clip(self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0) -> Clip:
        """The clip of `seed`."""
        ...

    def foil(self, clip: Clip, seed: int) -> tuple[str, str]:
        """A medium caption that differs from the clip's own in exactly one slot, and the name of that slot."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The names and words that this world uses."""
        ...
