"""Video: frames and their rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from kinema.errors import VideoError
from kinema.registry import lookup
from kinema.video.gif import save_gif
from kinema.video.metadata import checked_metadata
from kinema.video.pictures import save_image
from kinema.video.reading import at_constant_rate, read_file
from kinema.video.writing import LOSSY, VideoWriter

ENDINGS = {**{ending: "video" for ending in LOSSY}, ".gif": "gif", ".png": "png"}


@dataclass(frozen=True, eq=False)
class Video:
    """RGB frames, uint8 (f, h, w, 3), and frames a second. Raises `VideoError` for other arrays or rates."""

    frames: np.ndarray
    fps: float

    def __post_init__(self) -> None:
        if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8:
            given = getattr(self.frames, "dtype", type(self.frames).__name__)
            raise VideoError(f"the frames of a video are a NumPy array of uint8, 0 to 255; got {given}")
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or 0 in self.frames.shape:
            raise VideoError(
                f"the frames of a video have the shape (f, h, w, 3), none of them 0; got {self.frames.shape}"
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise VideoError(f"fps={self.fps} is not a valid rate: use a finite number above 0")

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.frames.shape[2]

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return self.num_frames / self.fps

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        *,
        max_frames: int | None = None,
        fps: float | None = None,
        allow_damaged: bool = False,
    ) -> "Video":
        """The video in a file of any common container and codec, or a picture as a video of one frame (1
        frame a second).

        Frames come upright (rotation and mirroring of the file are applied), over black where the file is
        transparent, and at a constant rate: `fps`, or else the file's average rate. A frame stays until the
        next one has started, so files of varying rate keep their timing. `max_frames` stops decoding early.
        Pixels that are not square stay as stored.

        Raises `VideoError`, which names the file, if it is missing, empty, not a video, without a frame, too
        long for 8 GiB (unless `max_frames` is given), or damaged: incomplete packets, errors that the decoder
        reports, fewer frames or bytes than the file declares. With `allow_damaged`, a damaged file gives the
        frames that can be decoded, each gap filled by the frame before it, and logs a warning.
        """
        content = read_file(Path(path), max_frames=max_frames, fps=fps, allow_damaged=allow_damaged)
        return cls(content.frames, content.fps)

    def save(
        self,
        path: str | PathLike[str],
        *,
        metadata: Mapping[str, str] | None = None,
        lossless: bool = False,
        quality: int = 18,
    ) -> Path:
        """The path of the file written, in the format of its ending; see `VideoWriter` for .mp4, .webm and
        .mkv.

        .gif loops and has one palette of 256 colours; .png takes a video of one frame. `metadata` comes back
        from `read_metadata`. Raises `VideoError` if the format cannot hold the video and `OutputError` if the
        file cannot be written.
        """
        target = Path(path)
        kind = lookup(ENDINGS, target.suffix.lower(), kind="video ending")
        if kind == "gif":
            if lossless:
                raise VideoError(
                    f"cannot write {target}: a .gif has 256 colours and is not lossless; use .mkv"
                )
            save_gif(target, self.frames, self.fps, checked_metadata(metadata))
        elif kind == "png":
            if self.num_frames > 1:
                raise VideoError(
                    f"cannot write {target}: a .png holds one picture and this video has {self.num_frames}; "
                    "use .mp4 or .gif, or save_image for one of its frames"
                )
            save_image(target, self.frames[0], metadata=metadata)
        else:
            size = self.width, self.height
            with VideoWriter(
                target, self.fps, *size, lossless=lossless, quality=quality, metadata=metadata
            ) as writer:
                writer.write(self.frames)
        return target

    def resampled(self, fps: float) -> "Video":
        """This video at another rate and the same speed: frames are repeated or dropped, not blended.

        Raises `VideoError` for an invalid rate.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise VideoError(f"fps={fps} is not a valid rate: use a finite number above 0")
        timed = ((index / self.fps, 1 / self.fps, index) for index in range(self.num_frames))
        return Video(self.frames[list(at_constant_rate(timed, fps, self.fps))], fps)
