"""Storyboards as files.

    seconds: 6
    shots:
      - {at: 0, prompt: "a penguin walks across the snow", image: first.png}
      - {at: 3, prompt: "a penguin walks across the snow at night"}
      - {at: 5, clip: end.mp4}

Files are found beside the storyboard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kinema.config import from_dict
from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning.clips import read
from kinema.generation.conditioning.tasks import Shot


@dataclass(frozen=True)
class Entry:
    """A line of a storyboard, as it is written."""

    at: float
    prompt: str | None = None
    image: Path | None = None
    clip: Path | None = None

    def __post_init__(self) -> None:
        if not self.at >= 0:
            raise ConfigError(f"at = {self.at} must be 0 or more seconds")
        if self.prompt is None and self.image is None and self.clip is None:
            raise ConfigError(
                f"the shot at {self.at:g} s holds nothing: give it a prompt, an image or a clip"
            )
        if self.image is not None and self.clip is not None:
            raise ConfigError(f"the shot at {self.at:g} s has an image and a clip: make two shots of it")


@dataclass(frozen=True)
class Board:
    """A storyboard, as it is written."""

    shots: tuple[Entry, ...]
    seconds: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_board(path: Path, fps: float) -> tuple[dict[str, Any], list[Shot]]:
    """The fields of a request that the storyboard at `path` sets, and its shots with their pictures and clips read.

    Raises `RequestError` for a file that is no storyboard, naming what is wrong, and the errors of `Video.read`.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ConfigError("a storyboard is a mapping with 'shots'")
        board = from_dict(Board, values)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ConfigError) as error:
        raise RequestError(f"{path} is no storyboard: {' '.join(str(error).split())}") from None
    if not board.shots:
        raise RequestError(f"{path} has no shots: list at least one")
    shots = []
    for entry in board.shots:
        media = read(path.parent / (entry.image or entry.clip), fps) if entry.image or entry.clip else None  # type: ignore[operator]
        if entry.image is not None and media is not None and media.num_frames != 1:
            raise RequestError(
                f"{entry.image} is a clip of {media.num_frames} frames, not a picture: name it under 'clip'"
            )
        shots.append(Shot(entry.at, entry.prompt, media))
    own = dict(board.fields) | ({} if board.seconds is None else {"seconds": board.seconds})
    return own, shots
