"""The scores of a clip, from its small grey frames at the clip's rate. All are means or medians over the
clip.

- brightness, contrast: mean and standard deviation of grey, 0 to 1.
- sharpness: variance of the Laplacian of the middle frames at analysis size (Pech-Pacheco et al. 2000).
- motion: mean length of the optical flow (DIS, Kroeger et al. 2016), in frame diagonals per second.
- border: the share of the frame that is black at its edges in every frame.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

BORDER_GREY = 30
"""A row or column that is never brighter is border: limited-range black is 16, plus ringing of compression.
"""
FLOW_SIDE = 128
"""Longest side, in pixels, of the frames for optical flow; small, because only its mean is used."""
MIN_FLOW_SIDE = 32
"""Shortest side of those frames. OpenCV's DIS halves a frame as often as its width allows, and crashes if the
height of a strip is used up before."""
CELLS = 16
"""Rows and columns of a thumbnail."""

Box = tuple[float, float, float, float]
"""Top, left, bottom, right as shares of height and width."""


@dataclass(frozen=True)
class Scores:
    """The scores of a clip. `box` is inside the borders; `hash` (hexadecimal) is of the middle frame;
    `thumbnails` are those of first, middle and last frame, uint8 (3, 16, 16) in base64."""

    brightness: float
    contrast: float
    sharpness: float
    motion: float
    border: float
    box: Box
    hash: str
    thumbnails: str


def score(greys: Sequence[np.ndarray], interval_s: float) -> Scores:
    """The scores of a clip from its grey frames (h, w), uint8, at least one, `interval_s` apart."""
    box = inside_borders(greys)
    top, left, bottom, right = box

    h, w = greys[0].shape
    rows, columns = slice(round(top * h), round(bottom * h)), slice(round(left * w), round(right * w))
    inner = [grey[rows, columns] for grey in greys]

    stats = [cv2.meanStdDev(grey) for grey in inner]
    middle = inner[len(inner) // 3 : len(inner) // 3 + 3]
    shown = [inner[0], inner[len(inner) // 2], inner[-1]]

    return Scores(
        brightness=round(float(np.mean([mean[0, 0] for mean, _ in stats])) / 255, 5),
        contrast=round(float(np.mean([std[0, 0] for _, std in stats])) / 255, 5),
        sharpness=round(float(np.median([cv2.Laplacian(grey, cv2.CV_64F).var() for grey in middle])), 3),
        motion=round(motion(inner, interval_s), 5),
        border=round(1 - (bottom - top) * (right - left), 5),
        box=box,
        hash=f"{dhash(shown[1]):016x}",
        thumbnails=base64.b64encode(np.stack([thumbnail(grey) for grey in shown]).tobytes()).decode(),
    )


def motion(greys: Sequence[np.ndarray], interval_s: float) -> float:
    """Mean length of the flow between neighbouring frames, in frame diagonals per second; 0 for a single
    frame.
    """
    if len(greys) < 2 or interval_s <= 0 or min(greys[0].shape) < 16:
        return 0.0

    shrink = min(1.0, FLOW_SIDE / max(greys[0].shape))
    size = (
        max(MIN_FLOW_SIDE, round(greys[0].shape[1] * shrink)),
        max(MIN_FLOW_SIDE, round(greys[0].shape[0] * shrink)),
    )
    small = [cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for grey in greys]

    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    calc: Any = flow.calc  # the stubs of OpenCV lack that the initial flow may be None
    lengths = [np.linalg.norm(calc(first, second, None), axis=2).mean() for first, second in pairwise(small)]
    return float(np.mean(lengths)) / float(np.hypot(*size)) / interval_s


def inside_borders(greys: Sequence[np.ndarray]) -> Box:
    """The smallest box of all rows and columns that are brighter than `BORDER_GREY` in some frame; the whole
    frame if none is.
    """
    brightest = greys[0]
    for grey in greys[1:]:
        brightest = cv2.max(brightest, grey)

    h, w = brightest.shape
    rows, columns = (np.flatnonzero(brightest.max(axis=axis) > BORDER_GREY) for axis in (1, 0))
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    return float(rows[0] / h), float(columns[0] / w), float((rows[-1] + 1) / h), float((columns[-1] + 1) / w)


def dhash(grey: np.ndarray) -> int:
    """64 bits: whether the frame gets brighter from left to right at each cell of an 8 x 8 grid (dHash)."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """The mean greys of the frame in `CELLS` x `CELLS` cells, uint8."""
    return cv2.resize(grey, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
