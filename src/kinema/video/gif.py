"""Animated GIF with one palette for the whole video, so that static areas do not flicker.

The frames are encoded one by one, because `Image.save(save_all=True)` merges equal neighbouring frames, which
would change the number of frames. FFmpeg's palettegen has nearly twice the squared error on smooth colours,
and its muxer writes no comment.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinema.errors import VideoError
from kinema.files import atomic_file, output_errors
from kinema.video.metadata import to_comment

MAX_COLOURS = 256
MAX_FPS = 50.0  # a GIF counts hundredths of a second, and browsers slow frames shorter than two of them down
MAX_SIDE_PX = 65535
BAYER = (
    np.array(  # thresholds of ordered dithering, -0.5 to 0.5 (Bayer 1973)
        [
            [0, 32, 8, 40, 2, 34, 10, 42],
            [48, 16, 56, 24, 50, 18, 58, 26],
            [12, 44, 4, 36, 14, 46, 6, 38],
            [60, 28, 52, 20, 62, 30, 54, 22],
            [3, 35, 11, 43, 1, 33, 9, 41],
            [51, 19, 59, 27, 49, 17, 57, 25],
            [15, 47, 7, 39, 13, 45, 5, 37],
            [63, 31, 55, 23, 61, 29, 53, 21],
        ]
    )
    / 64
    - 63 / 128
)
PALETTE_SAMPLE_PX = 1 << 16  # pixels of the whole video that the palette is chosen from


def save_gif(path: Path, frames: np.ndarray, fps: float, metadata: Mapping[str, str]) -> None:
    """Writes `frames`, uint8 (f, h, w, 3), as a looping GIF: exact with at most 256 colours, dithered
    otherwise.

    Frame times are rounded to 1/100 s. Raises `VideoError` above 50 frames per second or 65535 pixels a side,
    and `OutputError` if the file cannot be written.
    """
    if fps > MAX_FPS:
        raise VideoError(
            f"cannot write {path}: a .gif shows at most {MAX_FPS:g} frames a second, not {fps:g}; "
            "resample, or write .mp4"
        )
    if max(frames.shape[1:3]) > MAX_SIDE_PX:
        raise VideoError(f"cannot write {path}: a .gif has at most {MAX_SIDE_PX} pixels a side")
    colours = _few_colours(frames)
    if colours is None:
        palette = _palette(frames)
        pattern = _dither_pattern(frames, palette)
    starts_cs = [round(100 * index / fps) for index in range(len(frames) + 1)]
    with atomic_file(path) as partial, output_errors(path), partial.open("wb") as file:
        before = None
        for index, frame in enumerate(frames):
            indexed = _quantised(frame, palette, pattern) if colours is None else _exact(frame, colours)
            duration_ms = 10 * (starts_cs[index + 1] - starts_cs[index])
            if before is None:
                comment = to_comment(metadata)
                file.write(_still(indexed, duration=duration_ms, loop=0, comment=comment)[:-1])
            else:
                file.write(_change(before, indexed, duration_ms))
            before = indexed
        file.write(b";")


def _still(picture: Image.Image, **options: Any) -> bytes:
    """A GIF of one frame: header, palette, extensions, image and ";"."""
    content = io.BytesIO()
    picture.save(content, "GIF", optimize=False, disposal=1, **options)
    return content.getvalue()


def _change(before: Image.Image, now: Image.Image, duration_ms: int) -> bytes:
    """The blocks of a frame in a GIF (GIF89a, sections 20 and 23): its control extension of 8 bytes, and the
    image of the part that differs from the frame before, with its offset."""
    left, top, right, bottom = _changed(before, now)
    still = _still(now.crop((left, top, right, bottom)), duration=duration_ms)
    start = 13 + (6 << (still[10] & 7))  # after the header and the palette of 2^(n + 1) colours
    return still[start : start + 9] + struct.pack("<HH", left, top) + still[start + 13 : -1]


def _pack(frame: np.ndarray) -> np.ndarray:
    wide = frame.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _unpack(colours: np.ndarray) -> np.ndarray:
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)


def _few_colours(frames: np.ndarray) -> np.ndarray | None:
    """The colours of the video, packed and sorted, or None when there are more than 256."""
    colours = np.empty(0, np.uint32)
    for frame in frames:
        colours = np.union1d(colours, _pack(frame))
        if len(colours) > MAX_COLOURS:
            return None
    return colours


def _palette(frames: np.ndarray) -> Image.Image:
    sample = _sample(frames)
    settled = (
        1 + sample.width * sample.height // 20
    )  # k-means runs until fewer pixels than this change their colour
    return sample.quantize(MAX_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=settled)


def _sample(frames: np.ndarray) -> Image.Image:
    step = max(1, int(np.sqrt(frames.size / 3 / PALETTE_SAMPLE_PX)))
    few = frames[:, ::step, ::step]
    return Image.fromarray(np.ascontiguousarray(few.reshape(-1, few.shape[2], 3)))


def _dither_pattern(frames: np.ndarray, palette: Image.Image) -> np.ndarray:
    """The offset (h, w, 1) added to every frame: ordered dithering, scaled by the mean error of the palette.

    Error diffusion looks finer in one frame, but spreads each change to the right and down, so static areas
    would flicker.
    """
    sample = _sample(frames)
    error = np.abs(
        np.asarray(sample).astype(float)
        - np.asarray(sample.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB"))
    )
    height, width = frames.shape[1:3]
    repeats = -(-height // BAYER.shape[0]), -(-width // BAYER.shape[1])
    return np.tile(BAYER, repeats)[:height, :width, np.newaxis] * 2 * error.mean()


def _quantised(frame: np.ndarray, palette: Image.Image, pattern: np.ndarray) -> Image.Image:
    dithered = (frame + pattern).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(dithered).quantize(palette=palette, dither=Image.Dither.NONE)


def _exact(frame: np.ndarray, colours: np.ndarray) -> Image.Image:
    indices = np.searchsorted(colours, _pack(frame)).astype(np.uint8)
    indexed = Image.frombytes("P", (frame.shape[1], frame.shape[0]), indices.tobytes())
    indexed.putpalette(_unpack(colours).tobytes())
    return indexed


def _changed(before: Image.Image, now: Image.Image) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) of all pixels that differ; one pixel if none does."""
    rows, columns = np.nonzero(np.asarray(before) != np.asarray(now))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
