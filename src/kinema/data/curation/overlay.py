"""How much of a picture is overlaid text: a scorer for recipes, without a network.

    [scorers.overlay]
    function = "kinema.data.curation.overlay:share"
    max = 0.004

Overlaid text stands still while the film moves, and is made of strokes: strong edges close together, in lines wider than high, of one
brightness against another. Both are asked for. What else stands still and is striped is taken for text too (fences, brick, keyboards), and
text that moves, is larger than a quarter of the picture or has little contrast is not found: `bench/overlay.py` prints how often.
"""

import cv2
import numpy as np

SIDE = 256
"""Pixels of the longer side at which strokes are looked for."""
STRONG = 48
"""Least change of grey over a pixel that is an edge of a stroke; letters are made to be read."""
STANDS = 0.8
"""Share of the frames in which an edge of a letter must be at its place."""
LEAST_HEIGHT, MOST_HEIGHT = 5, SIDE // 4
LEAST_ASPECT = 1.5
DENSITY = (0.2, 0.85)
"""Share of a line's box that is edges: less is an outline, more is noise."""
LEAST_STROKES = 6
"""Changes from dark to bright along the middle of a line."""


def share(frames: np.ndarray) -> float:
    """The share of the picture that lines of still text cover, 0 to 1, of frames uint8 (f, h, w, 3)."""
    shown = frames[np.linspace(0, len(frames) - 1, min(len(frames), 9)).round().astype(int)]
    scale = SIDE / max(shown.shape[1:3])
    size = max(8, round(shown.shape[2] * scale)), max(8, round(shown.shape[1] * scale))
    greys = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for frame in shown
    ]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edges = (
        np.mean([cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, cross) >= STRONG for grey in greys], axis=0)
        >= STANDS
    )
    lines = cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    middle = np.median(greys, axis=0)
    covered = 0
    for label in range(1, count):
        x, y, width, height, _ = stats[label].tolist()
        if not LEAST_HEIGHT <= height <= MOST_HEIGHT or width < LEAST_ASPECT * height:
            continue
        inside = edges[y : y + height, x : x + width]
        if (
            DENSITY[0] <= inside.mean() <= DENSITY[1]
            and _strokes(middle[y : y + height, x : x + width]) >= LEAST_STROKES
        ):
            covered += width * height
    return covered / (size[0] * size[1])


def _strokes(grey: np.ndarray) -> float:
    """How often the rows in the middle of a box change between its dark and its bright half, the median over them."""
    threshold = (float(np.percentile(grey, 10)) + float(np.percentile(grey, 90))) / 2
    rows = grey[len(grey) // 4 : max(len(grey) // 4 + 1, 3 * len(grey) // 4)] > threshold
    return float(np.median(np.abs(np.diff(rows.astype(np.int8), axis=1)).sum(axis=1)))
