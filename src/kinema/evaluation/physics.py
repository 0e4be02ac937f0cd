"""Physics read from tracks: do things fall, bounce, roll and push as the world's laws say? Lengths in stage units, times in seconds.

Every function takes tracks, so that the world's own truth tests it: on true tracks it must give the constants that made them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kinema.models.oracle import LEAST_FRAMES, Oracle, Reading
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import GRAVITY, drop
from kinema.worlds.stage.sprites import place, sprite

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
    for num, shrink in ((25, 1.0), (13, 0.16), (9, 0.03)):
        ratios = rate * np.geomspace(spans[0] ** -shrink, spans[0] ** shrink, num)
        elastic = np.clip(
            np.linspace(bounce - spans[1] * shrink, bounce + spans[1] * shrink, num), 0.02, 0.97
        )
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


def sprite_angles(
    frames: np.ndarray, noun: str, x: np.ndarray, y: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
        window = cv2.getRectSubPix(
            frame, (cells, cells), (float(corner[0] + cells / 2 - 0.5), float(corner[1] + cells / 2 - 0.5))
        )
        scores = [
            _match(
                window.astype(np.float32),
                picture.rgb,
                picture.alpha,
                drawn.width * size_px,
                drawn.height * size_px,
                t,
            )
            for t in turns
        ]
        angles[i], matches[i] = turns[int(np.argmax(scores))], max(scores)
    return angles, matches


def _match(
    window: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, width: float, height: float, degrees: float
) -> float:
    """Correlation of a window with a sprite turned in its middle, over the sprite's own pixels and about its mean colour."""
    where = place(
        alpha.shape, window.shape[:2], (window.shape[1] / 2, window.shape[0] / 2), (width, height), degrees
    )
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
    return Roll(
        roll_ratio(x, angles, radius) if float(matches.mean()) >= LEAST_MATCH else None, float(matches.mean())
    )


def roll_ratio(x: np.ndarray, degrees: np.ndarray, radius: float) -> float | None:
    """(turned angle in radians * radius) / distance. None when the object does not get anywhere."""
    gone = x - x.mean()
    if np.ptp(x) < 0.3 * radius:
        return None
    turned = np.unwrap(np.deg2rad(degrees))
    return float((gone @ (turned - turned.mean())) / (gone @ gone) * radius)


def momentum_ratio(
    times: np.ndarray, striker_x: np.ndarray, struck_x: np.ndarray, striker_mass: float, struck_mass: float
) -> float | None:
    """The momentum of two bodies after a knock over that before it; 1 when it is kept. None where no knock is found.

    Until they meet both move freely; afterwards friction brings both to rest. The moment of the knock is the one from which the paths of
    both, each starting where it was, fit best; it lies within a frame and a half of where the struck one is first seen to have moved.
    """
    moved = np.abs(struck_x - np.median(struck_x[:3])) > 0.02
    if not moved.any():
        return None
    first = int(np.argmax(moved))
    if first < 3 or len(times) - first < 4:
        return None
    before, start = np.polyfit(times[: first - 1], striker_x[: first - 1], 1)
    if abs(before) < 0.02:
        return None
    rest = float(np.median(struck_x[: first - 1]))
    best = (np.inf, 0.0, 0.0)
    for hit in np.linspace(times[first] - 1.5 * (times[1] - times[0]), times[first], 19):
        after = times > hit
        clock = times[after] - hit
        error, speed = _braked(clock, striker_x[after] - (start + before * hit))
        struck_error, struck_speed = _braked(clock, struck_x[after] - rest)
        best = min(best, (error + struck_error, speed, struck_speed))
    _, speed, struck_speed = best
    return float((striker_mass * speed + struck_mass * struck_speed) / (striker_mass * before))


def _braked(times: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """(squared error, first speed) of the body that leaves 0 at time 0 and is brought to rest by friction; the time it takes is a grid."""
    durations = np.linspace(times[-1] / 8, 4 * times[-1], 40)[:, None]
    clock = np.minimum(times, durations)
    shapes = clock - clock**2 / (2 * durations)
    speeds = (shapes @ x) / (shapes**2).sum(axis=1)
    errors = ((x - speeds[:, None] * shapes) ** 2).sum(axis=1)
    index = int(errors.argmin())
    return float(errors[index]), float(speeds[index])


def flicker(frames: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> float:
    """The mean change of a pixel from one frame to the next, 0 to 255, where nothing moves: away from all tracks (f, k)."""
    _, height, width, _ = frames.shape
    rows, columns = np.mgrid[:height, :width]
    still = np.ones((height, width), bool)
    for x_px, y_px, half in zip(
        (x * height).ravel(), (y * height).ravel(), (0.75 * size * height).ravel(), strict=True
    ):
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


LAWS = {"gravity": ("bounce", "fall"), "rolling": ("roll",), "permanence": ("pass",), "momentum": ("knock",)}
"""The laws by the verbs that they govern."""


def laws(
    oracle: Oracle, frames: np.ndarray, reading: Reading, truth: Mapping[str, Any], fps: float
) -> dict[str, Any]:
    """What the laws of the prompt's verb say of one clip, under the name of each; only where one object is seen by a still camera."""
    times = np.arange(len(frames)) / fps
    if truth["camera"] != "still" or truth["count"] != 1:
        return {}
    x, y, size = (values[:, 0] for values in (reading.x, reading.y, reading.size))
    if truth["verb"] in ("bounce", "fall"):
        fall = fit_fall(times, y)
        return {
            "gravity": fall.is_right,
            "g": fall.gravity,
            "e": fall.restitution,
            "fit": fall.fit,
            "verb": truth["verb"],
        }
    if truth["verb"] == "roll":
        roll = fit_roll(frames, truth["noun"], x, y, size)
        return {"rolling": roll.is_right, "read": roll.ratio is not None, "ratio": roll.ratio}
    if truth["verb"] == "pass":
        ends = [
            oracle.read([part], oracle.config.fps)[0].answers["noun"]
            for part in (frames[:LEAST_FRAMES], frames[-LEAST_FRAMES:])
        ]
        return {"permanence": ends[0] == ends[1]}
    if truth["verb"] == "knock" and oracle.config.num_tracks > 1:
        masses = [
            mass_of(truth[role], float(np.median(reading.size[:, i])))
            for i, role in enumerate(("noun", "other"))
        ]
        ratio = momentum_ratio(times, x, reading.x[:, 1], *masses)
        return {"momentum": ratio is not None and abs(ratio - 1) <= MOMENTUM_TOLERANCE, "ratio": ratio}
    return {}


def is_lawful(
    oracle: Oracle, frames: np.ndarray, reading: Reading, truth: Mapping[str, Any], fps: float
) -> bool | None:
    """Whether the clip keeps the law of its verb; None for a verb without one, or one that cannot be read here."""
    found = laws(oracle, frames, reading, truth, fps)
    return next((bool(found[law]) for law in LAWS if law in found), None)
