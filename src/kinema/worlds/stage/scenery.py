"""Grounds and skies: smooth colours with a few soft features, as two layers of a periodic panorama."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Ground:
    """Colours of a ground from the horizon (`far`) to the viewer (`near`) and of its marks, and its skyline.

    `skyline` names a row of `SKYLINES`, `marks` a row of `MARKS`.
    """

    far: Colour
    near: Colour
    patches: Colour
    skyline: str
    skyline_colour: Colour
    marks: str


@dataclass(frozen=True)
class Sky:
    """Colours of a sky from the zenith down, its light on the ground, and its disc, stars and clouds."""

    top: Colour
    middle: Colour
    bottom: Colour
    light: Colour
    disc: Colour | None = None
    disc_radius: float = 0.0
    disc_low: bool = False
    stars: int = 0
    clouds: Colour | None = None


GROUNDS: dict[str, Ground] = {
    "grass": Ground((120, 196, 84), (74, 158, 56), (52, 130, 44), "hills", (70, 140, 74), "patches"),
    "desert": Ground((243, 208, 138), (226, 174, 92), (205, 148, 70), "mesas", (214, 132, 82), "patches"),
    "snow": Ground((228, 238, 248), (246, 249, 253), (205, 221, 240), "peaks", (176, 200, 228), "patches"),
    "road": Ground((118, 120, 126), (78, 80, 88), (98, 100, 107), "city", (138, 150, 172), "dashes"),
    "wood": Ground((214, 158, 98), (182, 120, 66), (136, 82, 42), "none", (0, 0, 0), "planks"),
    "lavender": Ground((178, 140, 216), (134, 84, 184), (104, 58, 156), "hills", (112, 160, 104), "patches"),
}

SKIES: dict[str, Sky] = {
    "day": Sky(
        (58, 142, 236),
        (112, 182, 246),
        (186, 226, 252),
        (1, 1, 1),
        (255, 226, 84),
        0.075,
        clouds=(255, 255, 255),
    ),
    "sunset": Sky(
        (124, 52, 108), (238, 98, 58), (255, 190, 72), (1.0, 0.88, 0.84), (255, 236, 150), 0.13, True
    ),
    "night": Sky(
        (8, 12, 44), (18, 26, 72), (44, 58, 116), (0.54, 0.57, 0.72), (244, 240, 214), 0.07, stars=34
    ),
    "cloudy": Sky(
        (146, 154, 164), (172, 179, 187), (204, 209, 214), (0.88, 0.89, 0.92), clouds=(222, 226, 230)
    ),
    "dawn": Sky(
        (158, 164, 232), (246, 170, 208), (255, 226, 206), (1.0, 0.92, 0.95), (255, 246, 232), 0.1, True
    ),
}


@dataclass(frozen=True)
class Scenery:
    """A sampled ground and sky, in stage units (height 1, y down). Positions repeat with `period` along x."""

    ground: str
    sky: str
    period: float
    horizon: float
    disc: tuple[float, float]
    stars: tuple[tuple[float, float, float], ...]
    clouds: tuple[tuple[float, float, float, float], ...]
    patches: tuple[tuple[float, float, float, float], ...]
    waves: tuple[tuple[int, float, float], ...]
    blocks: tuple[float, ...]
    phase: float


def sample_scenery(ground: str, sky: str, aspect: float, rng: random.Random) -> Scenery:
    """The scenery of a ground and a sky, for a frame `aspect` wide."""
    period = 2.0 * max(aspect, 1.0)
    horizon = rng.uniform(0.57, 0.65)

    row = SKIES[sky]
    side = rng.choice((0.2, 0.8)) if not row.disc_low else rng.uniform(0.2, 0.8)
    disc = (
        aspect * (side + rng.uniform(-0.06, 0.06)),
        horizon - 0.06 if row.disc_low else rng.uniform(0.13, 0.2),
    )
    stars = tuple(
        (rng.uniform(0, period), rng.uniform(0.02, 0.5), rng.uniform(0.5, 1.0))
        for _ in range(int(row.stars * period / 2))
    )

    clouds: list[tuple[float, float, float, float]] = []
    for _ in range(4 if row.clouds else 0):
        x, y, r = rng.uniform(0, period), rng.uniform(0.1, 0.36), rng.uniform(0.1, 0.16)
        clouds += [
            (x, y, r, r * 0.32),
            (x - 0.7 * r, y + 0.02, 0.7 * r, r * 0.22),
            (x + 0.7 * r, y + 0.015, 0.75 * r, r * 0.25),
        ]

    patches = []
    for _ in range(14):
        depth = rng.uniform(0.05, 1.0)
        x, y = rng.uniform(0, period), horizon + depth * (1.08 - horizon)
        patches.append((x, y, 0.06 + 0.13 * depth, 0.012 + 0.028 * depth))

    waves = tuple((k, rng.uniform(0.35, 1.0) / k**0.6, rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 5))
    blocks = tuple(rng.uniform(0.04, 0.2) for _ in range(round(period / 0.16)))
    return Scenery(
        ground,
        sky,
        period,
        horizon,
        disc,
        stars,
        tuple(clouds),
        tuple(patches),
        waves,
        blocks,
        rng.uniform(0, 1),
    )


def _bumps(xs: np.ndarray, ys: np.ndarray, spots: np.ndarray, period: float) -> np.ndarray:
    """Sum of soft spots (x, y, rx, ry) on the grid, periodic along x, as a product of two thin matrices."""
    dx = (xs[:, None] - spots[:, 0] + period / 2) % period - period / 2
    across = np.exp(-((dx / spots[:, 2]) ** 2))
    down = np.exp(-(((ys[:, None] - spots[:, 1]) / spots[:, 3]) ** 2))
    return down @ across.T


def _rgb(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)


def _mix(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Blend `colour` (3,) into the planes `image` (3, h, w) with opacity `alpha` (h, w), in scenery."""
    image += alpha * (colour[:, None, None] - image)


def _interleave(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(image, 0, -1))


def _rows(column: np.ndarray, width: int) -> np.ndarray:
    """Planes (3, h, width) whose rows have the colours of `column` (3, h)."""
    return np.repeat(column[:, :, None], width, axis=2)


def _city_skyline(scenery: Scenery, xs: np.ndarray) -> np.ndarray:
    cell = (xs % scenery.period) / scenery.period * len(scenery.blocks)
    blocks = np.asarray(scenery.blocks, np.float32)
    return blocks[np.minimum(cell.astype(int), len(blocks) - 1)]


def _wave(scenery: Scenery, xs: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * xs / scenery.period
    return sum((a * np.sin(k * angle + p) for k, a, p in scenery.waves), start=np.zeros_like(xs))


def _hills_skyline(scenery: Scenery, xs: np.ndarray) -> np.ndarray:
    return np.clip(0.05 + 0.035 * _wave(scenery, xs), 0.005, None)


def _mesas_skyline(scenery: Scenery, xs: np.ndarray) -> np.ndarray:
    return 0.02 + 0.1 / (1 + np.exp(-7 * (_wave(scenery, xs) - 0.4)))


def _peaks_skyline(scenery: Scenery, xs: np.ndarray) -> np.ndarray:
    saw = np.abs(((xs / scenery.period * 6 + scenery.phase) % 1) * 2 - 1)
    return 0.03 + 0.11 * saw * (1 + 0.35 * _wave(scenery, xs))


SKYLINES: dict[str, Callable[[Scenery, np.ndarray], np.ndarray]] = {
    "city": _city_skyline,
    "hills": _hills_skyline,
    "mesas": _mesas_skyline,
    "peaks": _peaks_skyline,
}
"""Height above the horizon at every x. A ground without a row has no skyline."""


def paint_far(scenery: Scenery, xs: np.ndarray, ys: np.ndarray, density: float) -> np.ndarray:
    """The sky with its features and the skyline, float32 (len(ys), len(xs), 3).

    `density` is pixels per stage unit.
    """
    sky = SKIES[scenery.sky]
    stops = np.array([sky.top, sky.middle, sky.bottom], np.float32)
    at = np.array([0.0, 0.55, 1.0]) * scenery.horizon
    column = np.stack([np.interp(ys, at, stops[:, c]) for c in range(3)]).astype(np.float32)
    image = _rows(column, len(xs))

    if scenery.stars:
        radius = max(0.008, 0.6 / density)
        spots = np.array([(x, y, radius, radius) for x, y, _ in scenery.stars], np.float32)
        _mix(image, _rgb((255, 250, 226)), np.minimum(_bumps(xs, ys, spots, scenery.period), 1.0) * 0.9)

    if sky.disc is not None:
        dx = (xs - scenery.disc[0] + scenery.period / 2) % scenery.period - scenery.period / 2
        distance = np.hypot(dx[None, :], (ys - scenery.disc[1])[:, None])
        glow = 0.35 * np.exp(-((distance / (2.4 * sky.disc_radius)) ** 2))
        disc = np.clip((sky.disc_radius - distance) * density + 0.5, 0, 1)
        _mix(image, _rgb(sky.disc), np.maximum(disc, glow).astype(np.float32))

    if sky.clouds is not None:
        cover = _bumps(xs, ys, np.array(scenery.clouds, np.float32), scenery.period)
        _mix(image, _rgb(sky.clouds), np.clip(2.2 * (cover - 0.3), 0, 1) * 0.9)

    ground = GROUNDS[scenery.ground]
    if ground.skyline in SKYLINES:
        top = scenery.horizon - SKYLINES[ground.skyline](scenery, xs)
        alpha = np.clip((ys[:, None] - top[None, :]) * density + 0.5, 0, 1).astype(np.float32)
        lit = _rgb(ground.skyline_colour) * _rgb(sky.light)
        _mix(image, 0.72 * lit + 0.28 * _rgb(sky.bottom), alpha)
    return _interleave(image)


def paint_near(scenery: Scenery, xs: np.ndarray, ys: np.ndarray, density: float) -> np.ndarray:
    """The ground below the horizon, float32 (len(ys), len(xs), 3). `density` is pixels per stage unit."""
    ground = GROUNDS[scenery.ground]
    depth = np.clip((ys - scenery.horizon) / (1.0 - scenery.horizon), 0, 1).astype(np.float32)
    far = np.outer(ground.far, 1 - depth).astype(np.float32)
    near = np.outer(ground.near, depth).astype(np.float32)
    image = _rows(far + near, len(xs))

    MARKS[ground.marks](image, scenery, xs, ys, density)
    image *= _rgb(SKIES[scenery.sky].light)[:, None, None]
    return _interleave(image)


def _paint_dashes(
    image: np.ndarray, scenery: Scenery, xs: np.ndarray, ys: np.ndarray, density: float
) -> None:
    repeats = round(scenery.period / 0.5)
    cell = ((xs / scenery.period * repeats + scenery.phase) % 1 - 0.5) * scenery.period / repeats
    across = np.clip((0.14 - np.abs(cell)) * density + 0.5, 0, 1)
    middle = scenery.horizon + 0.62 * (1 - scenery.horizon)
    down = np.clip((0.016 - np.abs(ys - middle)) * density + 0.5, 0, 1)
    _mix(image, _rgb((246, 222, 120)), np.outer(down, across).astype(np.float32) * 0.95)

    kerb = np.clip((0.014 - np.abs(ys - scenery.horizon - 0.014)) * density + 0.5, 0, 1)
    _mix(image, _rgb((206, 206, 204)), np.repeat(kerb[:, None], len(xs), 1).astype(np.float32))


def _paint_planks(
    image: np.ndarray, scenery: Scenery, xs: np.ndarray, ys: np.ndarray, density: float
) -> None:
    colour = _rgb(GROUNDS[scenery.ground].patches)
    edges = scenery.horizon + (1.14 - scenery.horizon) * np.array([0.0, 0.16, 0.36, 0.62, 1.0])
    line = 0.0035 + 1.0 / density / 4
    repeats = round(scenery.period / 1.0)

    for index in range(4):
        inside = ((ys > edges[index]) & (ys <= edges[index + 1])).astype(np.float32)
        image *= (1 + (0.03 if index % 2 else -0.03) * inside)[:, None]
        seam = np.clip((line - np.abs(ys - edges[index])) * density + 0.5, 0, 1)[:, None]

        position = (xs / scenery.period * repeats + scenery.phase + 0.37 * index) % 1 - 0.5
        cell = position * scenery.period / repeats
        joint = np.outer(inside, np.clip((line - np.abs(cell)) * density + 0.5, 0, 1))
        _mix(image, colour, np.maximum(0.6 * seam, 0.5 * joint).astype(np.float32))


def _paint_patches(
    image: np.ndarray, scenery: Scenery, xs: np.ndarray, ys: np.ndarray, density: float
) -> None:
    cover = _bumps(xs, ys, np.array(scenery.patches, np.float32), scenery.period)
    _mix(image, _rgb(GROUNDS[scenery.ground].patches), np.clip(cover, 0, 1).astype(np.float32) * 0.55)


MARKS: dict[str, Callable[[np.ndarray, Scenery, np.ndarray, np.ndarray, float], None]] = {
    "dashes": _paint_dashes,
    "planks": _paint_planks,
    "patches": _paint_patches,
}
"""What is painted onto the planes (3, h, w) of a ground."""
