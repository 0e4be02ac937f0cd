"""What a request knows of its result before it is made: clips and pictures, where they stand in time, and how much of them may change.

A place names its clip by the hash of its content, so that a request holds no pixels and no file names. The clips themselves travel beside
it, as `Inputs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kinema.errors import RequestError
from kinema.video import Video
from kinema.video.resize import Fit

Inputs = Mapping[str, Video]
"""The clips and pictures of a request by `content_hash`."""

MAX_SECONDS = 10_000.0


@dataclass(frozen=True)
class Place:
    """A clip or a picture at one place of the result. Raises `RequestError` for what makes no sense for any clip.

    With `strength` 0 it is kept; above 0 it is a draft, which is generated anew from that noise level on: 1 leaves nothing of it. A later
    place covers an earlier one, inside its region or mask when it has one.
    """

    media: str
    """`content_hash` of the clip or picture."""
    at_s: float | None = None
    """The second of the result at which it begins; None: it ends where the result ends."""
    seconds: float | None = None
    """How much of the clip is used; None for a picture, which stands for one frame."""
    first_s: float = 0.0
    """The second of the clip from which on it is used."""
    strength: float = 0.0
    region: tuple[int, int, int, int] | None = None
    """x, y, width and height, in pixels of the result, of what the place is limited to."""
    mask: str | None = None
    """`content_hash` of a picture or clip that is white where the place holds; of the size of `media` or of the result."""
    fit: Fit = "crop"
    """How a clip of another shape becomes the result's: its middle, the whole between black bars, or stretched."""

    def __post_init__(self) -> None:
        for name in ("at_s", "seconds", "first_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_SECONDS:
                raise RequestError(
                    f"{name}={value} of a place is out of range: use 0 to {MAX_SECONDS:g} seconds"
                )
        if self.seconds == 0:
            raise RequestError(
                "a place of 0 seconds holds nothing: use more, or leave seconds out for a picture"
            )
        if not 0 <= self.strength <= 1:
            raise RequestError(f"strength={self.strength} is out of range: use 0 (keep) to 1 (make anew)")
        if self.region is not None and self.mask is not None:
            raise RequestError("a place has a region or a mask, not both")
        if self.region is not None and (min(self.region[:2]) < 0 or min(self.region[2:]) < 1):
            raise RequestError(
                f"region {','.join(map(str, self.region))} holds nothing: write x,y,width,height in pixels of the result"
            )

    @property
    def is_limited(self) -> bool:
        """Whether it holds in a part of the picture only."""
        return self.region is not None or self.mask is not None


@dataclass(frozen=True)
class TimedPrompt:
    """What the result shows from a second on, until the next prompt."""

    at_s: float
    prompt: str

    def __post_init__(self) -> None:
        if not 0 < self.at_s <= MAX_SECONDS:
            raise RequestError(
                f"a prompt at {self.at_s} s is out of range: the first prompt stands at 0, the others after it"
            )
        if not self.prompt.strip():
            raise RequestError(
                f"the prompt at {self.at_s:g} s is empty: say what the video should show from there on"
            )


def content_hash(video: Video) -> str:
    """32 hexadecimal digits that belong to these frames at this rate."""
    digest = blake2b(f"{video.frames.shape}/{video.fps!r}/".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(video.frames).data)
    return digest.hexdigest()


def find_input(inputs: Inputs, media: str) -> Video:
    """The clip of that hash. Raises `RequestError` when it was not given, or is another."""
    if media not in inputs:
        raise RequestError(
            f"the request names an input {media} that was not given with it: {len(inputs)} inputs were given"
        )
    return inputs[media]


Source = str | Path | Video


def read(source: Source, fps: float) -> Video:
    """The clip at the model's rate (frames are repeated or left out, never blended), or the picture; a `Video` as it is."""
    if isinstance(source, Video):
        return source
    path = Path(source)
    video = Video.read(path, max_frames=2)
    if video.num_frames == 1:
        return video
    return Video.read(path, fps=fps)
