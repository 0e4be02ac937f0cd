"""Grounds and skies: large smooth colours with a few soft features, drawn as two layers (far and near) of a periodic panorama."""

import random
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Ground:
    """Colours of a ground from the horizon (`far`) to the viewer (`near`), of its soft `patches`, and what stands on its horizon."""

    far: Colour
    near: Colour
    patches: Colour
    skyline: str
    skyline_colour: Colour
    marks: str


@dataclass(frozen=True)
class Sky:
    """Colours of a sky from the zenith down, the light it casts on the ground, and the disc, stars and clouds in it."""

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
    """One sampled place, in stage units (height 1, y down). Positions repeat with `period` along x; colours are already lit."""

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
    """A place with that ground under that sky, for a frame `aspect` wide."""
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
        patches.append(
            (
                rng.uniform(0, period),
                horizon + depth * (1.08 - horizon),
                0.06 + 0.13 * depth,
                0.012 + 0.028 * depth,
            )
        )
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
    """Sum of soft spots `(x, y, rx, ry)` on the grid, periodic along x: a product of two thin matrices."""
    dx = (xs[:, None] - spots[:, 0] + period / 2) % period - period / 2
    across = np.exp(-((dx / spots[:, 2]) ** 2))
    down = np.exp(-(((ys[:, None] - spots[:, 1]) / spots[:, 3]) ** 2))
    return down @ across.T


def _rgb(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)


def _mix(picture: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Lays `colour` over the planes `(3, h, w)` of `picture`, as opaque as `alpha` `(h, w)`."""
    picture += alpha * (colour[:, None, None] - picture)


def _interleave(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))


def _rows(column: np.ndarray, width: int) -> np.ndarray:
    """Planes `(3, h, width)` whose rows have the colours of `column` `(3, h)`."""
    return np.repeat(column[:, :, None], width, axis=2)


def _skyline(place: Scenery, xs: np.ndarray) -> np.ndarray:
    """Height of what stands on the horizon, at every x."""
    kind = GROUNDS[place.ground].skyline
    if kind == "none":
        return np.full_like(xs, -1.0)
    if kind == "city":
        cell = (xs % place.period) / place.period * len(place.blocks)
        return np.asarray(place.blocks, np.float32)[np.minimum(cell.astype(int), len(place.blocks) - 1)]
    angle = 2 * np.pi * xs / place.period
    wave = sum(a * np.sin(k * angle + p) for k, a, p in place.waves)
    if kind == "mesas":
        return 0.02 + 0.1 / (1 + np.exp(-7 * (wave - 0.4)))
    if kind == "peaks":
        saw = np.abs(((xs / place.period * 6 + place.phase) % 1) * 2 - 1)
        return 0.03 + 0.11 * saw * (1 + 0.35 * wave)
    return np.clip(0.05 + 0.035 * wave, 0.005, None)


def paint_far(place: Scenery, xs: np.ndarray, ys: np.ndarray, density: float) -> np.ndarray:
    """The sky with all that is in it and the skyline, float32 `(len(ys), len(xs), 3)`; `density` is pixels per stage unit."""
    row = SKIES[place.sky]
    stops = np.array([row.top, row.middle, row.bottom], np.float32)
    at = np.array([0.0, 0.55, 1.0]) * place.horizon
    picture = _rows(np.stack([np.interp(ys, at, stops[:, c]) for c in range(3)]).astype(np.float32), len(xs))
    if place.stars:
        radius = max(0.008, 0.6 / density)
        spots = np.array([(x, y, radius, radius) for x, y, _ in place.stars], np.float32)
        _mix(picture, _rgb((255, 250, 226)), np.minimum(_bumps(xs, ys, spots, place.period), 1.0) * 0.9)
    if row.disc is not None:
        dx = (xs - place.disc[0] + place.period / 2) % place.period - place.period / 2
        distance = np.hypot(dx[None, :], (ys - place.disc[1])[:, None])
        glow = 0.35 * np.exp(-((distance / (2.4 * row.disc_radius)) ** 2))
        disc = np.clip((row.disc_radius - distance) * density + 0.5, 0, 1)
        _mix(picture, _rgb(row.disc), np.maximum(disc, glow).astype(np.float32))
    if row.clouds is not None:
        cover = _bumps(xs, ys, np.array(place.clouds, np.float32), place.period)
        _mix(picture, _rgb(row.clouds), np.clip(2.2 * (cover - 0.3), 0, 1) * 0.9)
    ground = GROUNDS[place.ground]
    top = place.horizon - _skyline(place, xs)
    alpha = np.clip((ys[:, None] - top[None, :]) * density + 0.5, 0, 1).astype(np.float32)
    lit = _rgb(ground.skyline_colour) * _rgb(row.light)
    if ground.skyline != "none":
        _mix(picture, 0.72 * lit + 0.28 * _rgb(row.bottom), alpha)
    return _interleave(picture)


def paint_near(place: Scenery, xs: np.ndarray, ys: np.ndarray, density: float) -> np.ndarray:
    """The ground, float32 `(len(ys), len(xs), 3)`, for rows at or below the horizon."""
    ground = GROUNDS[place.ground]
    depth = np.clip((ys - place.horizon) / (1.0 - place.horizon), 0, 1).astype(np.float32)
    picture = _rows(
        np.outer(ground.far, 1 - depth).astype(np.float32) + np.outer(ground.near, depth).astype(np.float32),
        len(xs),
    )
    mark = _rgb(ground.patches)
    pixel = 1.0 / density
    if ground.marks == "dashes":
        repeats = round(place.period / 0.5)
        cell = ((xs / place.period * repeats + place.phase) % 1 - 0.5) * place.period / repeats
        across = np.clip((0.14 - np.abs(cell)) * density + 0.5, 0, 1)
        middle = place.horizon + 0.62 * (1 - place.horizon)
        down = np.clip((0.016 - np.abs(ys - middle)) * density + 0.5, 0, 1)
        _mix(picture, _rgb((246, 222, 120)), np.outer(down, across).astype(np.float32) * 0.95)
        kerb = np.clip((0.014 - np.abs(ys - place.horizon - 0.014)) * density + 0.5, 0, 1)
        _mix(picture, _rgb((206, 206, 204)), np.repeat(kerb[:, None], len(xs), 1).astype(np.float32))
    elif ground.marks == "planks":
        edges = place.horizon + (1.14 - place.horizon) * np.array([0.0, 0.16, 0.36, 0.62, 1.0])
        line = 0.0035 + pixel / 4
        repeats = round(place.period / 1.0)
        for index in range(4):
            inside = ((ys > edges[index]) & (ys <= edges[index + 1])).astype(np.float32)
            picture *= (1 + (0.03 if index % 2 else -0.03) * inside)[:, None]
            seam = np.clip((line - np.abs(ys - edges[index])) * density + 0.5, 0, 1)[:, None]
            cell = (
                ((xs / place.period * repeats + place.phase + 0.37 * index) % 1 - 0.5)
                * place.period
                / repeats
            )
            joint = np.outer(inside, np.clip((line - np.abs(cell)) * density + 0.5, 0, 1))
            _mix(picture, mark, np.maximum(0.6 * seam, 0.5 * joint).astype(np.float32))
    else:
        cover = _bumps(xs, ys, np.array(place.patches, np.float32), place.period)
        _mix(picture, mark, np.clip(cover, 0, 1).astype(np.float32) * 0.55)
    picture *= _rgb(SKIES[place.sky].light)[:, None, None]
    return _interleave(picture)
