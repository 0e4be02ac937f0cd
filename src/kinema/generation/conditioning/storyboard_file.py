"""Storyboards in YAML files.

    seconds: 6
    shots:
      - {at: 0, prompt: "a penguin walks across the snow", image: first.png}
      - {at: 3, prompt: "a penguin walks across the snow at night"}
      - {at: 5, clip: end.mp4}

Paths are relative to the storyboard's folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kinema.config import from_dict
from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning.clips import Report, read_input
from kinema.generation.conditioning.tasks import Shot


@dataclass(frozen=True)
class ShotEntry:
    """A shot in the file. Raises `ConfigError` for an empty shot, a negative time, or image with clip."""

    at: float
    prompt: str | None = None
    image: Path | None = None
    clip: Path | None = None

    def __post_init__(self) -> None:
        if not self.at >= 0:
            raise ConfigError(f"at = {self.at} must be 0 or more seconds")
        if self.prompt is None and self.image is None and self.clip is None:
            raise ConfigError(f"the shot at {self.at:g} s is empty: give it a prompt, an image or a clip")
        if self.image is not None and self.clip is not None:
            raise ConfigError(f"the shot at {self.at:g} s has both an image and a clip: make two shots of it")


@dataclass(frozen=True)
class StoryboardFile:
    """The contents of the file."""

    shots: tuple[ShotEntry, ...]
    seconds: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request."""


def read_storyboard(path: Path, fps: float, report: Report) -> tuple[dict[str, Any], list[Shot]]:
    """The request fields that the storyboard at `path` sets, and its shots with their pictures and clips at
    `fps`.

    Raises `RequestError` for a file that is not a storyboard, with the reason, and `VideoError` for a clip
    that cannot be read. `report` receives a line for a clip at another rate.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ConfigError("a storyboard is a mapping with 'shots'")
        storyboard = from_dict(StoryboardFile, values)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ConfigError) as error:
        raise RequestError(f"{path} is not a storyboard: {' '.join(str(error).split())}") from None
    if not storyboard.shots:
        raise RequestError(f"{path} has no shots: list at least one")

    shots = [_read_shot(entry, path.parent, fps, report) for entry in storyboard.shots]
    fields = dict(storyboard.fields)
    if storyboard.seconds is not None:
        fields["seconds"] = storyboard.seconds
    return fields, shots


def _read_shot(entry: ShotEntry, folder: Path, fps: float, report: Report) -> Shot:
    file = entry.image or entry.clip
    clip = None if file is None else read_input(folder / file, fps, report).video
    if entry.image is not None and clip is not None and clip.num_frames != 1:
        raise RequestError(
            f"{entry.image} is a clip of {clip.num_frames} frames, not a picture: name it under 'clip'"
        )
    return Shot(entry.at, entry.prompt, clip)
