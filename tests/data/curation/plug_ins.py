"""Scorers and a cut detector as a user would write them."""

from collections.abc import Iterator

import numpy as np


def redness(frames: np.ndarray) -> float:
    """How much red there is more than blue, -1 to 1."""
    return float(frames[..., 0].mean() - frames[..., 2].mean()) / 255


def nothing(frames: np.ndarray) -> float:
    """No number."""
    return float("nan")


def every_tenth(frames: Iterator[np.ndarray]) -> Iterator[bool]:
    """A cut at every tenth frame, said two frames late."""
    waiting: list[bool] = []
    for index, pixels in enumerate(frames):
        assert pixels.dtype == np.uint8
        waiting.append(index % 10 == 0)
        if len(waiting) > 2:
            yield waiting.pop(0)
    yield from waiting


def silent(frames: Iterator[np.ndarray]) -> Iterator[bool]:
    """Nothing at all."""
    yield from ()
