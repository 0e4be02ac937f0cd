"""Small videos for the tests, and files as other programs write them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

METADATA = {
    "kinema": '{"prompt": "' + "a fox " * 5000 + '"}',
    "prompt": "一只红狐狸 runs",
    "title": "Fox",
    "seed": "7",
    "comment": "c",
}


VIDEO_ENDINGS = [".mp4", ".webm", ".mkv", ".gif"]


def smooth(num_frames=9, height=48, width=64, seed=0) -> np.ndarray:
    """Coloured frames without hard edges, which drift over time."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 8, width // 8 + num_frames, 3), dtype=np.uint8
    )
    wide = np.asarray(
        Image.fromarray(coarse).resize((width + 8 * num_frames, height), Image.Resampling.BICUBIC)
    )
    return np.stack([wide[:, 4 * index : 4 * index + width] for index in range(num_frames)])


def noise(num_frames=5, height=20, width=24, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def levels(*values: int, height=16, width=16) -> np.ndarray:
    """One grey frame per value."""
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def encode(
    path,
    frames,
    *,
    codec="ffv1",
    pixel_format="bgr0",
    times_ms=None,
    rate=8,
    prepare=lambda stream: None,
    source="rgb24",
) -> Path:
    """A file as some other program would write it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source).reformat(
                format=pixel_format
            )
            frame.pts = times_ms[index] if times_ms else round(1000 * index / rate)
            frame.time_base = Fraction(1, 1000)
            if times_ms and index + 1 < len(frames):
                frame.duration = times_ms[index + 1] - times_ms[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def half_transparent() -> np.ndarray:
    rgba = np.full((2, 32, 32, 4), 200, np.uint8)
    rgba[:, :, 16:, 3], rgba[:, :, :16, 3] = 0, 255
    return rgba
