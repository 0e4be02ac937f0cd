"""PyAV, loaded when first needed: what only touches frames in memory runs without it."""

from pathlib import Path
from types import ModuleType

from kinema.errors import VideoError

# swscale's default takes chroma samples unfiltered: 29.7 dB after one RGB -> 4:2:0 -> RGB trip on smooth
# colours, 48.9 dB with these flags (bicubic 4, full chroma interpolation 0x2000, accurate rounding 0x40000).
ACCURATE = 0x4 | 0x2000 | 0x40000
AREA = 0x20  # every pixel of the large frame counts: for pictures made much smaller
BT709, UNSPECIFIED, LIMITED_RANGE = 1, 2, 1  # ITU-T H.273 code points; FFmpeg's number of the range 16..235


def load() -> ModuleType:
    """The module `av`. Raises `VideoError` when PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise VideoError(f"reading and writing video files needs PyAV ({error}): pip install av") from error
    return av


def url(path: Path) -> str:
    """`path` as FFmpeg takes it for a file whatever its name is ("12:30.mp4" would be the protocol 12)."""
    return f"file:{path}"
