"""Resizing of frames to a given size: crop, pad or stretch."""

from typing import Literal

import cv2
import numpy as np

from kinema.video import Video

Fit = Literal["crop", "pad", "stretch"]
"""How frames of another aspect ratio are fitted: centre crop, black bars, or stretch."""


def fit_pixels(frames: np.ndarray, width: int, height: int, rule: Fit) -> np.ndarray:
    """`frames` (f, h, w, 3), uint8, as (f, height, width, 3); frames of that size are returned unchanged.

    "crop" keeps the centre, "pad" adds black bars, "stretch" changes the aspect ratio. Shrinking uses area
    averages, enlarging is bicubic.
    """
    _, h, w, _ = frames.shape
    if (w, h) == (width, height):
        return frames

    inner_width, inner_height = _inner_size(w, h, width, height, rule)
    shrinks = inner_width * inner_height <= w * h
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC

    out = np.zeros((len(frames), height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    rows = slice(max(0, top), max(0, top) + min(height, inner_height))
    columns = slice(max(0, left), max(0, left) + min(width, inner_width))
    cut_top, cut_left = max(0, -top), max(0, -left)

    for shown, frame in zip(out, frames):
        scaled = cv2.resize(np.ascontiguousarray(frame), (inner_width, inner_height), interpolation=method)
        shown[rows, columns] = scaled[cut_top : cut_top + height, cut_left : cut_left + width]

    return out


def cover_and_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image (h, w, 3), uint8, scaled to cover `height` x `width` and cropped to its centre.

    Shrinks by area averages and enlarges bicubically. Where an odd number of rows or columns is cut off, the
    larger part is cut at the bottom or right; `fit_pixels` cuts it at the top or left.
    """
    h, w = image.shape[:2]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    if size != (h, w):
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=method)

    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def fit_mask(frames: np.ndarray, width: int, height: int, rule: Fit) -> np.ndarray:
    """A mask (f, h, w, 3) as booleans (f, height, width): True where the mean of channels is >= 127.5."""
    return fit_pixels(frames, width, height, rule).mean(axis=3) >= 127.5


def describe_fit(video: Video, width: int, height: int, fps: float, rule: Fit, is_still: bool = False) -> str:
    """One line that describes how `video` is fitted."""
    what = f"{video.width}x{video.height}" + (
        "" if is_still else f", {video.num_frames} frames at {video.fps:.4g} fps"
    )
    done = []
    if (video.width, video.height) != (width, height):
        inner_width, inner_height = _inner_size(video.width, video.height, width, height, rule)
        cut = 1 - (min(width, inner_width) * min(height, inner_height)) / (inner_width * inner_height)
        bars = 1 - (min(width, inner_width) * min(height, inner_height)) / (width * height)
        done.append(
            f"scaled to {width}x{height}"
            + {
                "crop": f", with {cut:.0%} of the picture cut off" if cut else "",
                "pad": f", with {bars:.0%} of it black bars" if bars else "",
                "stretch": ", stretched" if video.width * height != video.height * width else "",
            }[rule]
        )
    if not is_still and video.fps != fps:
        done.append(f"taken at {fps:g} fps, {video.resampled(fps).num_frames} frames")
    return f"{what}: {'; '.join(done) if done else 'used as it is'}"


def _inner_size(w: int, h: int, width: int, height: int, rule: Fit) -> tuple[int, int]:
    """The size (width, height) to which `w` x `h` is scaled before cropping or padding."""
    if rule == "stretch":
        return width, height
    scale = (max if rule == "crop" else min)(width / w, height / h)
    inner = round(w * scale), round(h * scale)
    return (
        (max(width, inner[0]), max(height, inner[1]))
        if rule == "crop"
        else (max(1, inner[0]), max(1, inner[1]))
    )
