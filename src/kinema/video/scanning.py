"""Reads headers, and decodes a file once and in order: every frame small, or a few spans in full."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from kinema.errors import VideoError
from kinema.video import pyav
from kinema.video.pictures import STILL_FPS, num_frames, open_picture, timed_frames
from kinema.video.reading import (
    Damage,
    checked_file,
    decode_timed,
    frame_rate,
    open_video,
    rotation_tag,
    upright,
)

Shrink = Callable[[int, np.ndarray], np.ndarray]
"""From the index of a span and the pixels (h, w, 3) of one of its frames to the pixels that are kept."""

SEEK_S = 12.0
"""Shortest gap between two spans that is skipped by seeking. Decoding a shorter one costs less."""


@dataclass(frozen=True)
class VideoHeader:
    """The header of a file. `duration_s` and `num_frames` are 0 if not declared; `is_still` marks a still."""

    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    duration_s: float
    num_frames: int
    is_still: bool = False


@dataclass(frozen=True, eq=False)
class ScannedFrame:
    """A decoded frame: its time, upright RGB pixels (h, w, 3), possibly shrunk, and its full upright size."""

    time_s: float
    duration_s: float
    pixels: np.ndarray
    height: int
    width: int


def read_header(path: Path) -> VideoHeader:
    """The header of the file at `path`, not decoded. Raises `VideoError` if it is no video or picture."""
    with open_picture(checked_file(path)) as picture:
        if picture is not None:
            count = num_frames(picture)
            kind = str(picture.format).lower()
            return VideoHeader(
                kind,
                kind,
                picture.mode,
                picture.width,
                picture.height,
                STILL_FPS,
                0.0,
                count,
                is_still=count == 1,
            )
    with open_video(path) as (container, stream):
        duration = (
            stream.duration * (stream.time_base or 0)
            if stream.duration
            else Fraction(container.duration or 0, pyav.load().time_base)
        )
        codec = stream.codec_context
        return VideoHeader(
            container=container.format.name,
            codec=codec.name,
            pixel_format=codec.pix_fmt or "",
            width=codec.width,
            height=codec.height,
            fps=float(frame_rate(path, stream)),
            duration_s=max(0.0, float(duration)),
            num_frames=stream.frames,
        )


def scan(path: Path, *, max_side: int | None = None) -> Iterator[ScannedFrame]:
    """Every frame of the file at `path` in order of presentation, no side longer than `max_side` pixels.

    Memory does not grow with the length. Raises `VideoError` at the first damage, and when the size changes.
    """
    with open_picture(checked_file(path)) as picture:
        if picture is not None:
            for time_s, duration_s, pixels in timed_frames(picture):
                yield ScannedFrame(time_s, duration_s, _shrunk(pixels, max_side), *pixels.shape[:2])
            return
    with open_video(path) as (container, stream):
        interval_s = 1 / float(frame_rate(path, stream))
        tag = rotation_tag(stream)
        size: tuple[int, int] | None = None
        for index, (time_s, duration_s, frame) in enumerate(
            decode_timed(container, stream, interval_s, Damage(path, is_allowed=False))
        ):
            pixels = upright(frame, tag, max_side)
            is_turned = (pixels.shape[0] >= pixels.shape[1]) != (frame.height >= frame.width)
            full = (frame.width, frame.height) if is_turned else (frame.height, frame.width)
            if size not in (None, full):
                raise VideoError(
                    f"cannot read {path}: its size changes from {size[1]}x{size[0]} to "
                    f"{full[1]}x{full[0]} at frame {index}"
                )
            size = full
            yield ScannedFrame(time_s, duration_s, pixels, *full)


def read_spans(
    path: Path, spans: Sequence[tuple[float, float]], shrink: Shrink
) -> Iterator[list[ScannedFrame]]:
    """For each span (start, end) in seconds, in rising order without overlap, its frames, each after
    `shrink`.

    Memory is that of one span of shrunk frames. Gaps longer than `SEEK_S` are skipped by seeking forwards. If
    the first frame after a seek is not before the span, the file is decoded from its beginning. Raises
    `VideoError` if a span holds no frame.
    """
    if any(end <= start for start, end in spans) or any(
        first[1] > second[0] + 1e-6 for first, second in pairwise(spans)
    ):
        raise VideoError(f"cannot read {path} in spans that overlap or run backwards")
    with open_picture(checked_file(path)) as picture:
        if picture is not None:
            timed = list(timed_frames(picture))
            for index, span in enumerate(spans):
                frames = [
                    ScannedFrame(t, d, shrink(index, pixels), *pixels.shape[:2])
                    for t, d, pixels in timed
                    if _is_in(t, span)
                ]
                yield _checked(path, frames, span)
            return
    first = 0
    for after in range(1, len(spans) + 1):
        if after == len(spans) or spans[after][0] - spans[after - 1][1] > SEEK_S:
            yield from _run_of_spans(path, spans, range(first, after), shrink)
            first = after


def _run_of_spans(
    path: Path, spans: Sequence[tuple[float, float]], run: range, shrink: Shrink
) -> Iterator[list[ScannedFrame]]:
    """The spans of `run`, close to each other, decoded in one pass from the keyframe before the first."""
    start_s = spans[run[0]][0]
    for seeks in (True, False) if start_s > SEEK_S else (False,):
        with open_video(path) as (container, stream):
            if seeks and stream.time_base:
                container.seek(math.floor(start_s / stream.time_base), stream=stream)
            interval_s, tag = 1 / float(frame_rate(path, stream)), rotation_tag(stream)
            waiting, found, is_first = list(run), list[ScannedFrame](), True
            # Damage was reported when the whole file was analyzed.
            for time_s, duration_s, frame in decode_timed(
                container, stream, interval_s, Damage(path, is_allowed=True)
            ):
                if is_first and seeks and (frame.pts is None or time_s > start_s + 1e-4):
                    break
                is_first = False
                while waiting and time_s >= spans[waiting[0]][1] - 1e-6:
                    yield _checked(path, found, spans[waiting.pop(0)])
                    found = []
                if not waiting:
                    return
                if _is_in(time_s, spans[waiting[0]]):
                    pixels = upright(frame, tag)
                    found.append(
                        ScannedFrame(time_s, duration_s, shrink(waiting[0], pixels), *pixels.shape[:2])
                    )
            else:
                for index in waiting:
                    yield _checked(path, found, spans[index])
                    found = []
                return


def _is_in(time_s: float, span: tuple[float, float]) -> bool:
    return span[0] - 1e-6 <= time_s < span[1] - 1e-6


def _checked(path: Path, frames: list[ScannedFrame], span: tuple[float, float]) -> list[ScannedFrame]:
    if not frames:
        raise VideoError(f"cannot read {path}: no frame from {span[0]:.3f} s to {span[1]:.3f} s")
    return frames


def _shrunk(pixels: np.ndarray, max_side: int | None) -> np.ndarray:
    from PIL import Image

    if max_side is None or max(pixels.shape[:2]) <= max_side:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return np.asarray(image)
