"""Physics read from tracks: do things fall, bounce, roll and push as the world's laws say? Lengths in stage units, times in seconds.

Every function takes tracks, so that the world's own truth tests it: on true tracks it must give the constants that made them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kinema.worlds.nouns import NOUNS
from kinema.worlds.physics import GRAVITY, drop
from kinema.worlds.sprites import place, sprite

LEAST_FIT = 0.9
"""A fit that explains less of the variance than this is no fall at all."""
LEAST_MATCH = 0.5
"""Mean correlation with the turned sprite below which its angle is not read."""
GRAVITY_TOLERANCE, ROLL_TOLERANCE, MOMENTUM_TOLERANCE = 0.2, 0.2, 0.25
RESTITUTION = {"bounce": (0.74, 0.86), "fall": (0.15, 0.5)}
"""What the world draws restitutions from."""


@dataclass(frozen=True)
class Fall:
    """The drop that fits a track of heights best: gravity (units / s**2), restitution, first height, and the variance explained, 0 to 1."""

    gravity: float
    restitution: float
    height: float
    fit: float

    @property
    def is_right(self) -> bool:
        """Whether it is a fall at all, under the world's gravity within 20 %."""
        return self.fit >= LEAST_FIT and abs(self.gravity / GRAVITY - 1) <= GRAVITY_TOLERANCE


def fit_fall(times: np.ndarray, y: np.ndarray) -> Fall:
    """The fall from rest at time 0, with bounces, that fits `y` (down) best in the least squares.

    A drop from height H under g is H times a function of t * sqrt(g / H) and the restitution: for each of those two the height and
    the ground are a linear fit, so a grid over two numbers, made finer around its best, finds all four.
    """
    rate, bounce, spans = 6.0, 0.5, (8.0, 0.48)
    best = (np.inf, rate, bounce, 0.0)
    for num, shrink in ((33, 1.0), (17, 0.12), (13, 0.02)):
        ratios = rate * np.geomspace(spans[0] ** -shrink, spans[0] ** shrink, num)
        elastic = np.clip(np.linspace(bounce - spans[1] * shrink, bounce + spans[1] * shrink, num), 0.02, 0.97)
        for ratio in ratios:
            for restitution in elastic:
                shape = drop(times, 1.0, float(restitution), float(ratio))
                centred = shape - shape.mean()
                power = float(centred @ centred)
                if power < 1e-12:
                    continue
                height = -float(centred @ y) / power
                rest = y - y.mean() + height * centred
                error = float(rest @ rest)
                if height > 0 and error < best[0]:
                    best = (error, float(ratio), float(restitution), height)
        _, rate, bounce, _ = best
    error, ratio, restitution, height = best
    spread = float(((y - y.mean()) ** 2).sum())
    fit = 1 - error / spread if spread > 0 and np.isfinite(error) else 0.0
    return Fall(ratio * height, restitution, height, fit)


def sprite_angles(frames: np.ndarray, noun: str, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The angle in degrees (clockwise, 0 to 360) at which the sprite of `noun` fits each frame best, and how well, as a correlation.

    Frames are uint8 (f, h, w, 3); centre and size come from a track.
    """
    turns = np.arange(0.0, 360.0, 5.0)
    height = frames.shape[1]
    drawn = sprite(noun)
    angles, matches = np.zeros(len(frames)), np.zeros(len(frames))
    for i, frame in enumerate(frames):
        size_px = float(size[i]) * height
        picture = drawn.level(size_px)
        cells = int(np.ceil(size_px)) + 2
        corner = np.array([x[i] * height - cells / 2, y[i] * height - cells / 2])
        window = cv2.getRectSubPix(frame, (cells, cells), (float(corner[0] + cells / 2 - 0.5), float(corner[1] + cells / 2 - 0.5)))
        scores = [_match(window.astype(np.float32), picture.rgb, picture.alpha, drawn.width * size_px, drawn.height * size_px, t) for t in turns]
        angles[i], matches[i] = turns[int(np.argmax(scores))], max(scores)
    return angles, matches


def _match(window: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, width: float, height: float, degrees: float) -> float:
    """Correlation of a window with a sprite turned in its middle, over the sprite's own pixels and about its mean colour."""
    where = place(alpha.shape, window.shape[:2], (window.shape[1] / 2, window.shape[0] / 2), (width, height), degrees)
    if where is None:
        return 0.0
    cover = where.warp(alpha)
    inside = cover > 0.5
    if inside.sum() < 8:
        return 0.0
    seen = window[where.top : where.bottom, where.left : where.right][inside]
    drawn = where.warp(rgb)[inside]
    a, b = seen - seen.mean(axis=0), drawn - drawn.mean(axis=0)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


@dataclass(frozen=True)
class Roll:
    """How far something turned against how far it would without slipping: 1 is no slip, 0 is sliding. None where it cannot be read."""

    ratio: float | None
    match: float

    @property
    def is_right(self) -> bool:
        """Whether it rolls without slip within 20 %."""
        return self.ratio is not None and abs(self.ratio - 1) <= ROLL_TOLERANCE


def fit_roll(frames: np.ndarray, noun: str, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> Roll:
    """The angle turned over the distance gone divided by the radius, by a straight-line fit; the radius is half the drawn height."""
    angles, matches = sprite_angles(frames, noun, x, y, size)
    radius = 0.5 * sprite(noun).height * float(np.median(size))
    return Roll(roll_ratio(x, angles, radius) if float(matches.mean()) >= LEAST_MATCH else None, float(matches.mean()))


def roll_ratio(x: np.ndarray, degrees: np.ndarray, radius: float) -> float | None:
    """(turned angle in radians * radius) / distance. None when the object does not get anywhere."""
    gone = x - x.mean()
    if np.ptp(x) < 0.3 * radius:
        return None
    turned = np.unwrap(np.deg2rad(degrees))
    return float((gone @ (turned - turned.mean())) / (gone @ gone) * radius)


def momentum_ratio(times: np.ndarray, striker_x: np.ndarray, struck_x: np.ndarray, striker_mass: float, struck_mass: float) -> float | None:
    """The momentum of two bodies after a knock over that before it; 1 when it is kept. None where no knock is found.

    Both move freely until they meet; then both are braked by one friction. The moment is where the struck one starts; speeds right after it
    are those of parabolas fitted to both from there to where the struck one comes to rest.
    """
    moved = np.abs(struck_x - np.median(struck_x[:3])) > 0.02
    if not moved.any() or moved[0]:
        return None
    hit = int(np.argmax(moved)) - 1
    if hit < 2 or len(times) - hit < 4:
        return None
    before = float(np.polyfit(times[: hit + 1], striker_x[: hit + 1], 1)[0])

    def just_after(x: np.ndarray) -> float:
        return float(_braked(times[hit + 1 :] - times[hit + 1], x[hit + 1 :]))

    total_before = striker_mass * before
    if abs(before) < 0.02:
        return None
    return (striker_mass * just_after(striker_x) + struck_mass * just_after(struck_x)) / total_before


def _braked(times: np.ndarray, x: np.ndarray) -> float:
    """The first speed of a body that friction brings to rest: v * t - sign(v) * a * t**2 / 2 until v / a; a grid over a, v linear in pieces."""
    best = (np.inf, 0.0)
    for duration in np.linspace(times[1], 4 * times[-1], 60):
        clock = np.minimum(times, duration)
        shape = clock - clock**2 / (2 * duration)
        design = np.stack([np.ones_like(times), shape], axis=1)
        (start, speed), *_ = np.linalg.lstsq(design, x, rcond=None)
        error = float(((x - start - speed * shape) ** 2).sum())
        if error < best[0]:
            best = (error, float(speed))
    return best[1]


def flicker(frames: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> float:
    """The mean change of a pixel from one frame to the next, 0 to 255, where nothing moves: outside wide boxes around every track (f, k)."""
    _, height, width, _ = frames.shape
    rows, columns = np.mgrid[:height, :width]
    still = np.ones((height, width), bool)
    for x_px, y_px, half in zip((x * height).ravel(), (y * height).ravel(), (0.75 * size * height).ravel(), strict=True):
        still &= (np.abs(columns - x_px) > half) | (rows < y_px - half)
    if not still.any():
        return float("nan")
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0))[:, still].mean())


def shares_right(values: Sequence[bool]) -> float | None:
    """The share of true ones; None of nothing."""
    return sum(values) / len(values) if values else None


def mass_of(noun: str, size: float) -> float:
    """Mass in the world's arbitrary units of something of that size."""
    return NOUNS[noun].mass * size**2
