"""Writes video files frame by frame."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import numpy as np

from kinema.errors import OutputError, VideoError
from kinema.files import DISK_ERRORS, atomic_file, output_errors, reason
from kinema.registry import lookup
from kinema.video import pyav
from kinema.video.metadata import checked_metadata

if TYPE_CHECKING:
    import av

KEYFRAME_S = 2.0  # seeking and random clips decode from the keyframe before; x264's own default is 250 frames
MAX_QUALITY = 51


@dataclass(frozen=True)
class Encoding:
    """How a kind of file is encoded: FFmpeg's names, and options for a quality (x264's CRF, 0 is best)."""

    container: str
    codec: str
    pixel_format: str
    options: Callable[[int], dict[str, str]]

    @property
    def halves_chroma(self) -> bool:
        """Whether sizes must be even."""
        return self.pixel_format == "yuv420p"


def _h264(quality: int) -> dict[str, str]:
    # swscale puts chroma samples at the centre of their four pixels; untagged H.264 is taken for left, which
    # costs 14 dB.
    return {"crf": str(quality), "chroma_sample_location": "center"}


def _vp9(quality: int) -> dict[str, str]:
    return {"crf": str(round(quality * 63 / MAX_QUALITY)), "b": "0", "row-mt": "1", "cpu-used": "4"}


# ffv1: level 3 with checksums, every frame on its own. RGB codecs take no colour conversion at all.
_FFV1 = Encoding("matroska", "ffv1", "bgr0", lambda _: {"level": "3", "slicecrc": "1", "g": "1"})
LOSSY = {
    ".mp4": Encoding("mp4", "libx264", "yuv420p", _h264),
    ".webm": Encoding("webm", "libvpx-vp9", "yuv420p", _vp9),
    ".mkv": _FFV1,
}
LOSSLESS = {
    ".mp4": Encoding("mp4", "libx264rgb", "rgb24", lambda _: {"qp": "0"}),
    ".webm": Encoding(
        "webm", "libvpx-vp9", "gbrp", lambda _: {"lossless": "1", "row-mt": "1", "cpu-used": "4"}
    ),
    ".mkv": _FFV1,
}


class VideoWriter:
    """Writes a video file in constant memory; use it in a `with` statement.

        with VideoWriter("out.mp4", fps=24, width=640, height=360) as writer:
            writer.write(frames)  # uint8 (f, h, w, 3), as often as needed

    The ending of `path` decides: .mp4 is H.264 that browsers play (yuv420p, BT.709 tags, index first), .webm
    is VP9, .mkv is lossless FFV1. `lossless=True` keeps every bit in .mp4 and .webm too, but few browsers
    play those. `quality` is x264's CRF, 0 to 51, lower is better; lossless files ignore it. 4:2:0 needs even
    sizes: an odd side repeats its last row or column. `metadata` comes back from `read_metadata`.

    The file appears, complete and synced to disk, when the `with` block ends; after an exception no file is
    left. Raises `VideoError` if the frames cannot be encoded (or there are none) and `OutputError` if the
    file cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        fps: float,
        width: int,
        height: int,
        *,
        lossless: bool = False,
        quality: int = 18,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.encoding = lookup(LOSSLESS if lossless else LOSSY, self.path.suffix.lower(), kind="video ending")
        if not (math.isfinite(fps) and fps > 0):
            raise VideoError(f"fps={fps} is not a valid rate: use a finite number above 0")
        if width < 1 or height < 1:
            raise VideoError(f"a video needs at least 1x1 pixels; got {width}x{height}")
        if not 0 <= quality <= MAX_QUALITY:
            raise VideoError(f"quality={quality} is out of range: use 0 (best) to {MAX_QUALITY} (worst)")
        self.rate = Fraction(fps).limit_denominator(1001)
        if not self.rate:
            raise VideoError(
                f"fps={fps} is too slow for a video file: use a frame every 1001 seconds or more often"
            )
        self.width, self.height, self.quality = width, height, quality
        self.metadata = checked_metadata(metadata)
        self.num_frames = 0

    def __enter__(self) -> "VideoWriter":
        self._session = self._encode()
        self._container, self._stream = self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def write(self, frames: np.ndarray) -> None:
        """Appends `frames`, uint8 (f, h, w, 3). Raises `VideoError` for another size, shape or type."""
        av = pyav.load()
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (self.height, self.width, 3):
            raise VideoError(
                f"{self.path} takes frames of uint8 (f, {self.height}, {self.width}, 3); got "
                f"{frames.dtype} {frames.shape}"
            )
        for pixels in frames:
            if self.encoding.halves_chroma:
                pixels = np.pad(pixels, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if self.encoding.halves_chroma:
                frame = frame.reformat(
                    format="yuv420p",
                    dst_colorspace=pyav.BT709,
                    dst_color_range=pyav.LIMITED_RANGE,
                    interpolation=pyav.ACCURATE,
                )
            frame.pts, frame.time_base = self.num_frames, 1 / self.rate
            with self._encoder_errors():
                self._container.mux(self._stream.encode(frame))
            self.num_frames += 1

    @contextmanager
    def _encode(self) -> "Iterator[tuple[av.container.OutputContainer, av.VideoStream]]":
        av = pyav.load()
        with atomic_file(self.path) as partial:
            options = {"fflags": "+bitexact"}  # no version strings: the same frames make the same bytes
            if self.encoding.container == "mp4":
                options["movflags"] = "+faststart+use_metadata_tags"
            with self._encoder_errors():
                container = av.open(pyav.url(partial), "w", format=self.encoding.container, options=options)
            try:
                with self._encoder_errors():
                    stream = self._add_stream(container)
                yield container, stream
                if not self.num_frames:
                    raise VideoError(f"cannot write {self.path}: no frame was given")
                with self._encoder_errors():
                    container.mux(stream.encode(None))
            except BaseException:
                with suppress(
                    av.FFmpegError
                ):  # the file is thrown away, and the first error is the one to show
                    container.close()
                raise
            with self._encoder_errors():
                container.close()

    def _add_stream(self, container: "av.container.OutputContainer") -> "av.VideoStream":
        encoding = self.encoding
        stream = cast(
            "av.VideoStream",
            container.add_stream(encoding.codec, rate=self.rate, options=encoding.options(self.quality)),
        )
        odd = 1 if encoding.halves_chroma else 0
        stream.width, stream.height = self.width + (self.width & odd), self.height + (self.height & odd)
        stream.pix_fmt = encoding.pixel_format
        stream.codec_context.bit_rate = 0
        if encoding is not _FFV1:
            stream.codec_context.gop_size = max(1, round(KEYFRAME_S * self.rate))
        if encoding.halves_chroma:
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = pyav.BT709
            context.color_range = pyav.LIMITED_RANGE
        container.metadata.update(self.metadata)
        return stream

    @contextmanager
    def _encoder_errors(self) -> Iterator[None]:
        """Turns an FFmpeg error into `OutputError` if the disk refused, `VideoError` if the encoder did."""
        av = pyav.load()
        try:
            with output_errors(self.path):
                yield
        except av.FFmpegError as error:
            if error.errno in DISK_ERRORS:
                raise OutputError(
                    f"cannot write {self.path}: {reason(OSError(error.errno, error.strerror))}"
                ) from error
            size = f"{self.width}x{self.height} at {float(self.rate):g} frames a second"
            raise VideoError(
                f"cannot write {self.path}: {self.encoding.codec} refuses {size} ({error.strerror})"
            ) from error
