"""What a request states about its result in advance: clips and pictures, their times, and how much of them
may change.

A condition names its clip by a hash of the content, so that a request contains neither pixels nor file names.
The clips themselves are passed beside the request, as `Inputs`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kinema.errors import RequestError
from kinema.video import Video
from kinema.video.reading import read_file
from kinema.video.resize import Fit

log = logging.getLogger(__name__)

Inputs = Mapping[str, Video]
"""The clips and pictures of a request by `content_hash`."""
ClipSource = str | Path | Video
"""A clip or picture, or its file."""
Report = Callable[[str], object]
"""Receives lines for the user."""

MAX_SECONDS = 10_000.0


@dataclass(frozen=True)
class ClipCondition:
    """A clip or picture at one time of the result.

    With `strength` 0 it is kept. With more it is edited: generated from that noise level on, and 1 ignores
    it. A later condition overrides an earlier one, inside its region or mask if it has one. Raises
    `RequestError` for values that no clip could satisfy.
    """

    media: str
    """`content_hash` of the clip or picture."""
    at_s: float | None = None
    """Time in the result at which it starts. None: it ends where the result ends."""
    seconds: float | None = None
    """Duration that is used. None for a picture, which covers one frame."""
    first_s: float = 0.0
    """Time in the clip from which it is used."""
    strength: float = 0.0
    region: tuple[int, int, int, int] | None = None
    """x, y, width and height, in pixels of the result, that the condition is limited to."""
    mask: str | None = None
    """`content_hash` of what is white where the condition applies, of the size of `media` or the result."""
    fit: Fit = "crop"
    """How a clip of another shape is fitted: its centre, the whole between black bars, or stretched."""

    def __post_init__(self) -> None:
        for name in ("at_s", "seconds", "first_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_SECONDS:
                raise RequestError(
                    f"{name}={value} of a clip is out of range: use 0 to {MAX_SECONDS:g} seconds"
                )
        if self.seconds == 0:
            raise RequestError(
                "a clip of 0 seconds has no frames: use more, or leave seconds out for a picture"
            )
        if not 0 <= self.strength <= 1:
            raise RequestError(
                f"strength={self.strength} is out of range: use 0 (keep) to 1 (generate from noise)"
            )

        if self.region is not None and self.mask is not None:
            raise RequestError("give a clip a region or a mask, not both")
        if self.region is not None and (min(self.region[:2]) < 0 or min(self.region[2:]) < 1):
            raise RequestError(
                f"region {','.join(map(str, self.region))} is empty or negative: use x,y,width,height in "
                "pixels of the result"
            )

    @property
    def is_limited(self) -> bool:
        """Whether the condition applies to a region of the frame only."""
        return self.region is not None or self.mask is not None


@dataclass(frozen=True)
class TimedPrompt:
    """A prompt from a time of the result to the next. Raises `RequestError` for time 0 or an empty prompt."""

    at_s: float
    prompt: str

    def __post_init__(self) -> None:
        if not 0 < self.at_s <= MAX_SECONDS:
            raise RequestError(
                f"a prompt at {self.at_s} s is out of range: the first prompt starts at 0, later ones above "
                f"0 up to {MAX_SECONDS:g} seconds"
            )
        if not self.prompt.strip():
            raise RequestError(
                f"the prompt at {self.at_s:g} s is empty: describe the video from there on, or remove it"
            )


def content_hash(video: Video) -> str:
    """32 hexadecimal digits that identify the frames and the rate."""
    digest = blake2b(f"{video.frames.shape}/{video.fps!r}/".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(video.frames).data)
    return digest.hexdigest()


def find_input(inputs: Inputs, media: str) -> Video:
    """The clip with that hash. Raises `RequestError` if it is not among `inputs`."""
    if media not in inputs:
        raise RequestError(
            f"the request names an input {media} that is not among the {len(inputs)} inputs given with it: "
            "add it"
        )
    return inputs[media]


@dataclass(frozen=True, eq=False)
class InputClip:
    """A clip or picture of a task at the model's rate, the name of its file, and the file's metadata."""

    video: Video
    name: str = "the clip"
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_input(source: ClipSource, fps: float, report: Report = log.info) -> InputClip:
    """The clip at `fps` (frames are repeated or dropped, never blended), or the picture. A `Video` is
    left unchanged.

    `report` receives a line if the rate changes. Raises `VideoError` for a file that is not a video or
    picture.
    """
    if isinstance(source, Video):
        return InputClip(source)

    content = read_file(Path(source), fps=fps)
    if content.is_still:
        return InputClip(Video(content.frames[:1], content.source_fps), str(source), content.metadata)
    if content.source_fps != fps:
        report(f"{source}: {content.source_fps:.4g} fps, resampled to {fps:g} fps")
    return InputClip(Video(content.frames, fps), str(source), content.metadata)
