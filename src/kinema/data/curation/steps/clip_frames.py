"""The frames of clips, decoded again in a child process from the rows of the clips."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.dataset import ClipRow
from kinema.errors import VideoError
from kinema.video.reading import at_constant_rate
from kinema.video.resize import cover_and_crop
from kinema.video.scanning import ScannedFrame, read_spans

Span = Mapping[str, Any]
"""What a child needs to decode a clip: see `span_of`."""


def span_of(clip: ClipRow, key: str) -> dict[str, Any]:
    """The times, box and size of a clip as plain values, under the `key` that its result carries. Part of
    stored keys.
    """
    copied = ("start_s", "end_s", "num_source_frames", "source_fps", "height", "width", "num_frames", "fps")
    return {"clip_id": key, "box": list(clip.box), **{name: getattr(clip, name) for name in copied}}


def cropped(pixels: np.ndarray, span: Span, height: int, width: int) -> np.ndarray:
    """The box of the span in a full frame (h, w, 3), scaled to cover `height` x `width` and cropped to its
    centre.
    """
    top, left, box_height, box_width = span["box"]
    return cover_and_crop(pixels[top : top + box_height, left : left + box_width], height, width)


def clip_frames(arguments: Mapping[str, Any]) -> Iterator[tuple[Span, np.ndarray]]:
    """Each span of arguments["clips"] with its frames at its own size, length and rate, uint8 (f, h, w, 3).

    The spans are in rising order of start_s, all of the file at arguments["path"]. Raises `VideoError` if a
    span holds another number of frames than in the analysis.
    """
    spans, path = arguments["clips"], arguments["path"]

    def shrink(index: int, pixels: np.ndarray) -> np.ndarray:
        return cropped(pixels, spans[index], spans[index]["height"], spans[index]["width"])

    times = [(span["start_s"], span["end_s"]) for span in spans]
    for span, frames in zip(spans, read_spans(Path(path), times, shrink), strict=True):
        if len(frames) != span["num_source_frames"]:
            raise VideoError(
                f"cannot read {path}: {len(frames)} frames from {span['start_s']:.3f} s to "
                f"{span['end_s']:.3f} s, where the analysis found {span['num_source_frames']}"
            )
        shown = resampled(frames, span)
        shown += shown[-1:] * (span["num_frames"] - len(shown))  # rounding may leave the last frame out
        yield span, np.stack(shown)


def resampled(frames: Sequence[ScannedFrame], span: Span) -> list[np.ndarray]:
    """The pixels of the frames at the rate of the span, at most `num_frames` of them."""
    timed = [(frame.time_s, frame.duration_s, frame.pixels) for frame in frames]
    return list(at_constant_rate(timed, span["fps"], span["source_fps"]))[: span["num_frames"]]
