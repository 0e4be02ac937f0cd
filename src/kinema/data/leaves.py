"""Dead leaves that move: clips with the statistics of pictures of the world at large, from no file.

Opaque shapes of all sizes cover each other (Lee, Mumford and Huang 2001); networks that see nothing else learn features that hold for
photographs (Baradad et al. 2021). Here each leaf has a path of its own, under a camera that pans, so that a VAE learns to keep motion
and occlusion of things that no world of ours draws.
"""

import cv2
import numpy as np

LEAVES = 60
SUBPIXEL_BITS = 4
RADII = (0.05, 0.7)
"""Of the shorter side: radii have density 1 / r^3 between these, which looks alike at every scale."""


def leaves(rng: np.random.Generator, num_frames: int, height: int, width: int) -> np.ndarray:
    """A clip of leaves, uint8 (f, h, w, 3): ellipses and rectangles of one colour, moving and turning evenly, over a shade, with a texture on all."""
    side, palette = min(height, width), _palette(rng)
    low, high = (side * share for share in RADII)
    radius = 1 / np.sqrt(rng.uniform(high**-2, low**-2, LEAVES))
    place = rng.uniform(-0.2, 1.2, (LEAVES, 2)) * (width, height)
    speed = rng.normal(0, 0.012 * side, 2) + rng.normal(0, 0.008 * side, (LEAVES, 2))  # px per frame: the camera's and the leaf's
    flatness, angle, turn = rng.uniform(0.3, 1, LEAVES), rng.uniform(0, 360, LEAVES), rng.normal(0, 2, LEAVES)
    is_round = rng.random(LEAVES) < 0.6
    colours = np.clip(palette[rng.integers(len(palette), size=LEAVES)] + rng.normal(0, 18, (LEAVES, 3)), 0, 255)
    ground, texture = _shade(rng, palette, height, width), _texture(rng, height, width)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    order = np.argsort(-radius * rng.uniform(0.5, 1.5, LEAVES))  # small ones tend to lie on top
    for f in range(num_frames):
        picture = ground.copy()
        for i in order:
            _draw(picture, place[i] + f * speed[i], (radius[i], radius[i] * flatness[i]), angle[i] + f * turn[i], colours[i], bool(is_round[i]))
        frames[f] = np.clip(picture.astype(np.float32) + texture, 0, 255).astype(np.uint8)
    return frames


def _palette(rng: np.random.Generator) -> np.ndarray:
    """A few colours that a scene could have: any brightness, mostly muted."""
    grey, tint = rng.uniform(10, 245, (6, 1)), rng.normal(0, 1, (6, 3)) * rng.choice([12, 30, 70], (6, 1))
    return np.clip(grey + tint, 0, 255)


def _shade(rng: np.random.Generator, palette: np.ndarray, height: int, width: int) -> np.ndarray:
    """One colour going over into another, in some direction."""
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    share = np.cos(angle) * x / width + np.sin(angle) * y / height
    share = (share - share.min()) / max(np.ptp(share), 1e-6)
    a, b = palette[rng.integers(len(palette), size=2)]
    return (a + (b - a) * share[..., None]).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Grey noise of a few scales that lies on the whole picture, about 1/f, of a strength of its own per clip."""
    strength, total = rng.uniform(0, 12), np.zeros((height, width), np.float32)
    for scale in (2, 4, 8, 16):
        small = rng.standard_normal((height // scale + 1, width // scale + 1)).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * scale / 16
    return (strength * total)[..., None]


def _draw(picture: np.ndarray, centre: np.ndarray, radii: tuple[float, float], angle: float, colour: np.ndarray, is_round: bool) -> None:
    bgr, unit = tuple(float(c) for c in colour), 1 << SUBPIXEL_BITS
    if is_round:
        middle, axes = tuple(round(c * unit) for c in centre), tuple(round(r * unit) for r in radii)
        cv2.ellipse(picture, middle, axes, angle, 0, 360, bgr, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        return
    box = cv2.boxPoints(((float(centre[0]), float(centre[1])), (2 * radii[0], 2 * radii[1]), angle))
    cv2.fillConvexPoly(picture, np.round(box * unit).astype(np.int32), bgr, cv2.LINE_AA, SUBPIXEL_BITS)
