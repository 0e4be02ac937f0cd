"""Still and animated pictures through Pillow. A still is a video of one frame."""

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from kinema.errors import VideoError
from kinema.files import atomic_file, output_errors
from kinema.registry import lookup
from kinema.video.metadata import checked_metadata, from_comment

READABLE = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
ANIMATED = ("PNG", "GIF", "WEBP")  # the pages of a TIFF and the views of a JPEG are no time axis
PICTURE_FORMATS: dict[str, tuple[str, dict[str, int | bool]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
STILL_FPS = 1.0  # a picture lasts one second
BROWSER_FRAME_MS = (
    100.0  # what browsers show for frames of 10 ms or less, which old files use for "as fast as you can"
)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image | None]:
    """The picture at `path`; None if of no format of `READABLE`. Raises `VideoError` if it is damaged."""
    try:
        image = Image.open(path, formats=READABLE)
    except UnidentifiedImageError:
        yield None
        return
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"cannot read {path}: {error}") from error
    with image:
        try:
            yield image
        except (OSError, SyntaxError, struct.error, EOFError, Image.DecompressionBombError) as error:
            raise VideoError(f"cannot read {path}: damaged {image.format} picture ({error})") from error


def picture_metadata(image: Image.Image) -> dict[str, str]:
    """The text that `image` carries: PNG text chunks or the comment of a GIF."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        image.load()
        return {key.lower(): str(value) for key, value in image.text.items()}
    comment = image.info.get("comment", b"") if image.format == "GIF" else b""
    return from_comment(comment)


def num_frames(image: Image.Image) -> int:
    """The number of frames of `image`; pages of a TIFF and views of a JPEG do not count."""
    return getattr(image, "n_frames", 1) if image.format in ANIMATED else 1


def timed_frames(image: Image.Image) -> Iterator[tuple[float, float, np.ndarray]]:
    """Start and duration in seconds and RGB pixels (h, w, 3) of every frame, alpha flattened over black."""
    time_s = 0.0
    count = num_frames(image)
    for index in range(count):
        if count > 1:
            image.seek(index)
        pixels = _rgb(image)
        shown_ms = float(image.info.get("duration") or 0.0)
        duration_s = (shown_ms if shown_ms > 10 else BROWSER_FRAME_MS) / 1000 if count > 1 else 1 / STILL_FPS
        yield time_s, duration_s, pixels
        time_s += duration_s


def flatten(rgba: np.ndarray) -> np.ndarray:
    """RGB (h, w, 3) of `rgba` (h, w, 4), uint8, laid over black."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _rgb(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode.startswith("I"):  # 16 bit grey, which Pillow would clip
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        return flatten(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB")).copy()


def png_bytes(array: np.ndarray) -> bytes:
    """A picture, uint8 (h, w, 3), as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def save_image(
    path: str | PathLike[str], array: np.ndarray, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """The path of the picture written from `array`, uint8 (h, w, 3), in the format that the ending of `path`
    names.

    .png and .webp are lossless; only .png carries `metadata`. The file is written atomically.
    Raises `VideoError` for another array, ending or metadata and `OutputError` when it cannot be written.
    """
    target = Path(path)
    name, fixed = lookup(PICTURE_FORMATS, target.suffix.lower(), kind="picture ending")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise VideoError(f"a picture is uint8 (height, width, 3); got {array.dtype} {array.shape}")
    options: dict[str, Any] = dict(fixed)
    if metadata:
        if name != "PNG":
            raise VideoError(f"cannot write {target}: of the pictures only a .png carries metadata")
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for key, value in checked_metadata(metadata).items():
            options["pnginfo"].add_itxt(key, value)
    with atomic_file(target) as partial, output_errors(target):
        try:
            Image.fromarray(np.ascontiguousarray(array)).save(partial, format=name, **options)
        except ValueError as error:  # such as a side longer than the format allows
            raise VideoError(f"cannot write {target}: {error}") from error
    return target
