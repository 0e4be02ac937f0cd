"""The share of a frame that overlaid text covers: a scorer for recipes, without a network.

    [scorers.overlay]
    function = "kinema.data.curation.overlay:share"
    max = 0.004

Overlaid text does not move while the film does, and it consists of strokes: strong edges close together, in
lines wider than high, of one brightness against another. Both are required. False positives are other static
stripes (fences, brick, keyboards). Text that moves, is higher than a quarter of the frame or has little
contrast is not found. `bench/overlay.py` prints the rates.

`plug_ins.OWN_VERSIONS` has the version of this module's results.
"""

import cv2
import numpy as np

SIDE = 256
"""Longer side, in pixels, of the frames in which strokes are searched."""
MIN_EDGE = 48
"""Change of grey over a pixel that makes an edge of a stroke; text has high contrast."""
MIN_STATIC_SHARE = 0.8
"""Share of the frames in which an edge of a letter must be at the same pixel."""
MIN_HEIGHT, MAX_HEIGHT = 5, SIDE // 4
"""Height of a line of text, in pixels."""
MIN_ASPECT = 1.5
"""Width of a line of text as a multiple of its height."""
DENSITY = (0.2, 0.85)
"""Share of edges in the box of a line: below is an outline, above is noise."""
MIN_STROKES = 6
"""Changes between dark and bright along the middle of a line."""


def share(frames: np.ndarray) -> float:
    """The share of the frame that lines of still text cover, 0 to 1. `frames` are uint8 (f, h, w, 3)."""
    shown = frames[np.linspace(0, len(frames) - 1, min(len(frames), 9)).round().astype(int)]
    scale = SIDE / max(shown.shape[1:3])
    size = max(8, round(shown.shape[2] * scale)), max(8, round(shown.shape[1] * scale))
    greys = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for frame in shown
    ]

    edges = _static_edges(greys)
    lines = cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)

    middle = np.median(greys, axis=0)
    covered = 0
    for label in range(1, count):
        x, y, width, height, _ = stats[label].tolist()
        rows, columns = slice(y, y + height), slice(x, x + width)
        if not MIN_HEIGHT <= height <= MAX_HEIGHT or width < MIN_ASPECT * height:
            continue
        is_dense = DENSITY[0] <= edges[rows, columns].mean() <= DENSITY[1]
        if is_dense and _strokes(middle[rows, columns]) >= MIN_STROKES:
            covered += width * height
    return covered / (size[0] * size[1])


def _static_edges(greys: list[np.ndarray]) -> np.ndarray:
    """Where (h, w) an edge is at the same pixel in most of the grey frames."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    is_edge = [cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, cross) >= MIN_EDGE for grey in greys]
    return np.mean(is_edge, axis=0) >= MIN_STATIC_SHARE


def _strokes(grey: np.ndarray) -> float:
    """How often a row changes between dark and bright: the median over the middle rows of a box (h, w)."""
    threshold = (float(np.percentile(grey, 10)) + float(np.percentile(grey, 90))) / 2
    rows = grey[len(grey) // 4 : max(len(grey) // 4 + 1, 3 * len(grey) // 4)] > threshold
    return float(np.median(np.abs(np.diff(rows.astype(np.int8), axis=1)).sum(axis=1)))
