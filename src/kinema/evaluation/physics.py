"""Physical plausibility from tracks: whether objects fall, bounce, roll and collide by the world's laws.

Lengths are in stage units (height 1, y down), times in seconds. Functions take tracks, so that tests can pass
the world's own: on true tracks they must return the constants that produced them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kinema.models.oracle import MIN_FRAMES, Oracle, Reading
from kinema.shapes import Float, UInt8
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import GRAVITY, drop
from kinema.worlds.stage.sprites import SpriteImage, place_sprite, sprite

MIN_FIT = 0.9
"""Explained variance below which a track is not a fall."""
MIN_MATCH = 0.5
"""Mean correlation with the rotated sprite below which the angle is unknown."""
GRAVITY_TOLERANCE, ROLL_TOLERANCE, MOMENTUM_TOLERANCE = 0.2, 0.2, 0.25
RESTITUTION = {"bounce": (0.74, 0.86), "fall": (0.15, 0.5)}
"""Ranges from which the world draws restitutions."""
LAWS = {"gravity": ("bounce", "fall"), "rolling": ("roll",), "permanence": ("pass",), "momentum": ("knock",)}
"""The verbs that each law governs."""


@dataclass(frozen=True)
class FallFit:
    """The drop that fits a track of heights best.

    Gravity in units / s**2, restitution, the initial height, and the explained variance `fit`, 0 to 1.
    """

    gravity: float
    restitution: float
    height: float
    fit: float

    @property
    def is_lawful(self) -> bool:
        """Whether the track is a fall (`MIN_FIT`) and its gravity is the world's within 20 %."""
        return self.fit >= MIN_FIT and abs(self.gravity / GRAVITY - 1) <= GRAVITY_TOLERANCE


def fit_fall(times: Float[np.ndarray, " f"], y: Float[np.ndarray, " f"]) -> FallFit:
    """The least-squares fit of a fall from rest at time 0, with bounces, to `y` (down).

    A drop from height H under g is H times a function of t * sqrt(g / H) and of the restitution. For given
    values of these two, the height and the ground are a linear fit. So a grid over two values, refined around
    its best point, finds all four.
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
    return FallFit(ratio * height, restitution, height, fit)


def sprite_angles(
    frames: UInt8[np.ndarray, "f h w 3"],
    noun: str,
    x: Float[np.ndarray, " f"],
    y: Float[np.ndarray, " f"],
    size: Float[np.ndarray, " f"],
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Per frame, the angle at which the sprite of `noun` correlates best, and that correlation.

    Angles are in degrees, clockwise, 0 to 360.

    Centre and size of the object come from its track.
    """
    candidates = np.arange(0.0, 360.0, 5.0)
    height = frames.shape[1]
    drawn = sprite(noun)
    angles, matches = np.zeros(len(frames)), np.zeros(len(frames))

    for i, frame in enumerate(frames):
        size_px = float(size[i]) * height
        image = drawn.level(size_px)
        extent = (drawn.width * size_px, drawn.height * size_px)

        cells = int(np.ceil(size_px)) + 2
        corner = np.array([x[i] * height - cells / 2, y[i] * height - cells / 2])
        centre = (float(corner[0] + cells / 2 - 0.5), float(corner[1] + cells / 2 - 0.5))
        window = cv2.getRectSubPix(frame, (cells, cells), centre).astype(np.float32)

        scores = [_correlation(window, image, extent, degrees) for degrees in candidates]
        angles[i], matches[i] = candidates[int(np.argmax(scores))], max(scores)

    return angles, matches


def _correlation(
    window: np.ndarray, image: SpriteImage, extent: tuple[float, float], degrees: float
) -> float:
    """Correlation of a window with a rotated sprite, over the sprite's pixels and without mean colours."""
    height, width = window.shape[:2]
    placement = place_sprite(image.alpha.shape, (height, width), (width / 2, height / 2), extent, degrees)
    if placement is None:
        return 0.0

    cover = placement.warp(image.alpha)
    inside = cover > 0.5
    if inside.sum() < 8:
        return 0.0

    pixels = placement.crop(window)[inside]
    drawn = placement.warp(image.rgb)[inside]
    a, b = pixels - pixels.mean(axis=0), drawn - drawn.mean(axis=0)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


@dataclass(frozen=True)
class RollFit:
    """The turned angle relative to rolling without slip: 1 is no slip, 0 is sliding, None is unknown.

    `match` is a correlation.
    """

    ratio: float | None
    match: float

    @property
    def is_lawful(self) -> bool:
        """Whether it rolls without slip within 20 %."""
        return self.ratio is not None and abs(self.ratio - 1) <= ROLL_TOLERANCE


def fit_roll(
    frames: UInt8[np.ndarray, "f h w 3"],
    noun: str,
    x: Float[np.ndarray, " f"],
    y: Float[np.ndarray, " f"],
    size: Float[np.ndarray, " f"],
) -> RollFit:
    """The turned angle times the radius over the distance travelled, by a straight-line fit.

    The radius is half the drawn height.
    """
    angles, matches = sprite_angles(frames, noun, x, y, size)
    radius = 0.5 * sprite(noun).height * float(np.median(size))
    match = float(matches.mean())
    return RollFit(roll_ratio(x, angles, radius) if match >= MIN_MATCH else None, match)


def roll_ratio(x: Float[np.ndarray, " f"], degrees: Float[np.ndarray, " f"], radius: float) -> float | None:
    """(turned angle in radians * radius) / distance. None if the object moves less than 0.3 radii."""
    if np.ptp(x) < 0.3 * radius:
        return None
    travelled = x - x.mean()
    turned = np.unwrap(np.deg2rad(degrees))
    return float((travelled @ (turned - turned.mean())) / (travelled @ travelled) * radius)


def momentum_ratio(
    times: Float[np.ndarray, " f"],
    striker_x: Float[np.ndarray, " f"],
    struck_x: Float[np.ndarray, " f"],
    striker_mass: float,
    struck_mass: float,
) -> float | None:
    """The momentum of two bodies after a collision over their momentum before it; 1 if it is conserved.

    None if no collision is found.

    Before the collision both move freely; after it, friction brings both to rest. The time of the collision
    is the one for which both paths fit best. It is searched within 1.5 frames before the first frame in which
    the struck body has moved.
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
    """(squared error, initial speed) of the best fit of a body that leaves 0 at time 0 and brakes.

    The time until it rests is searched on a grid.
    """
    durations = np.linspace(times[-1] / 8, 4 * times[-1], 40)[:, None]
    clock = np.minimum(times, durations)
    shapes = clock - clock**2 / (2 * durations)
    speeds = (shapes @ x) / (shapes**2).sum(axis=1)
    errors = ((x - speeds[:, None] * shapes) ** 2).sum(axis=1)
    index = int(errors.argmin())
    return float(errors[index]), float(speeds[index])


def flicker(
    frames: UInt8[np.ndarray, "f h w 3"],
    x: Float[np.ndarray, "f k"],
    y: Float[np.ndarray, "f k"],
    size: Float[np.ndarray, "f k"],
) -> float:
    """The mean change of a pixel between frames, 0 to 255, in the static background: outside all tracks.

    NaN if there is none.
    """
    _, height, width, _ = frames.shape
    rows, columns = np.mgrid[:height, :width]
    still = np.ones((height, width), bool)

    centres_x, centres_y, halves = (x * height).ravel(), (y * height).ravel(), (0.75 * size * height).ravel()
    for x_px, y_px, half in zip(centres_x, centres_y, halves, strict=True):
        still &= (np.abs(columns - x_px) > half) | (rows < y_px - half)

    if not still.any():
        return float("nan")
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0))[:, still].mean())


def mass_of(noun: str, size: float) -> float:
    """Mass of an object of that size, in the world's arbitrary units."""
    return NOUNS[noun].mass * size**2


@dataclass(frozen=True)
class LawResult:
    """Whether a clip keeps the law of its verb, and the fit for gravity (`fall`) and rolling (`roll`)."""

    law: str
    verb: str
    is_kept: bool
    fall: FallFit | None = None
    roll: RollFit | None = None


def check_law(
    oracle: Oracle,
    frames: UInt8[np.ndarray, "f h w 3"],
    reading: Reading,
    truth: Mapping[str, Any],
    fps: float,
) -> LawResult | None:
    """The result of the law that governs the prompt's verb.

    None for a verb without a law, for several objects, for a camera that moves or is not named, and for a
    collision if the oracle tracks one object.
    """
    if truth.get("camera") != "still" or truth["count"] != 1:
        return None
    times = np.arange(len(frames)) / fps
    x, y, size = (values[:, 0] for values in (reading.x, reading.y, reading.size))
    verb = truth["verb"]

    if verb in LAWS["gravity"]:
        fall = fit_fall(times, y)
        return LawResult("gravity", verb, fall.is_lawful, fall=fall)

    if verb in LAWS["rolling"]:
        roll = fit_roll(frames, truth["noun"], x, y, size)
        return LawResult("rolling", verb, roll.is_lawful, roll=roll)

    if verb in LAWS["permanence"]:
        first, last = (
            oracle.read([ends], oracle.config.fps)[0].answers["noun"]
            for ends in (frames[:MIN_FRAMES], frames[-MIN_FRAMES:])
        )
        return LawResult("permanence", verb, first == last)

    if verb in LAWS["momentum"] and oracle.config.num_tracks > 1:
        masses = [
            mass_of(truth[role], float(np.median(reading.size[:, i])))
            for i, role in enumerate(("noun", "other"))
        ]
        ratio = momentum_ratio(times, x, reading.x[:, 1], *masses)
        return LawResult("momentum", verb, ratio is not None and abs(ratio - 1) <= MOMENTUM_TOLERANCE)

    return None


def summarize_law(
    law: str,
    generated: Sequence[LawResult | None],
    true: Sequence[LawResult | None],
    after_vae: Sequence[LawResult | None],
) -> dict[str, Any]:
    """The scores of a law as plain JSON: the shares of clips that keep it, and medians of the fits.

    Shares are `model`, `ceiling` (of the renderer) and `after_vae` (of the renderer after the model's VAE).
    """
    results = [result for result in generated if result is not None]
    row: dict[str, Any] = {
        "num": len(results),
        "model": _share_kept(generated),
        "ceiling": _share_kept(true),
        "after_vae": _share_kept(after_vae),
    }

    if law == "gravity":
        falls = [
            (result.verb, result.fall)
            for result in results
            if result.fall is not None and result.fall.fit >= MIN_FIT
        ]
        row["num_fitted"] = len(falls)
        row["median_gravity"] = _median([fall.gravity for _, fall in falls])
        row["world_gravity"] = GRAVITY
        for verb, (low, high) in RESTITUTION.items():
            values = [fall.restitution for name, fall in falls if name == verb]
            row[f"{verb}_restitution"] = {"median": _median(values), "world": [low, high]}

    if law == "rolling":
        rolls = [result.roll for result in results if result.roll is not None]
        ratios = [roll.ratio for roll in rolls if roll.ratio is not None]
        row |= {"num_read": len(ratios), "median_ratio": _median(ratios)}

    return row


def _share_kept(results: Sequence[LawResult | None]) -> float:
    kept = [result.is_kept for result in results if result is not None]
    return sum(kept) / len(kept)


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
