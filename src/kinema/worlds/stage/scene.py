"""A scene: the actors, their positions, and how they and the camera move. In stage units and seconds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import Path
from kinema.worlds.stage.scenery import Scenery
from kinema.worlds.stage.sprites import sprite

ZOOM_FAR, ZOOM_NEAR, ZOOM_DURATION = 0.8, 1.12, 2.2
ZOOM_LEVEL = 0.62
PAN_DURATION = 3.0
RISE_DURATION = 2.4
GROW_DURATION = 2.4


@dataclass(frozen=True)
class Actor:
    """One object. It starts with its centre at `x0` and follows `path` along `sense` (+1 right).

    The path is folded into [low, high]. `vertical` names the function of its height above the ground
    (`HEIGHTS`); `height` and `restitution` are that function's parameters.
    """

    noun: str
    role: str
    size: float
    feet: float
    x0: float
    sense: float
    low: float
    high: float
    path: Path
    vertical: str = "ground"
    height: float = 0.0
    restitution: float = 0.0
    phase: float = 0.0
    spin: float = 0.0
    growth: tuple[float, float] = (1.0, 1.0)
    rolls: bool = False

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the drawn pixels at the nominal size."""
        drawn = sprite(self.noun)
        return drawn.width * self.size, drawn.height * self.size

    @property
    def radius(self) -> float:
        """Half the drawn height: the rolling radius."""
        return 0.5 * self.extent[1]

    @property
    def mass(self) -> float:
        """Mass in arbitrary units: the noun's mass per area, times the squared size."""
        return NOUNS[self.noun].mass * self.size**2


@dataclass(frozen=True)
class Camera:
    """A pan at `speed` (stage units per second) until `until`, and the zooms at 0 s and `ZOOM_DURATION`."""

    kind: str
    speed: float = 0.0
    until: float = float("inf")
    zoom: tuple[float, float] = (1.0, 1.0)

    def x(self, times: np.ndarray) -> np.ndarray:
        """Distance that the camera has moved to the right."""
        return self.speed * np.minimum(times, self.until)

    def zoom_at(self, times: np.ndarray) -> np.ndarray:
        """The magnification, which changes by equal factors in equal times."""
        return self.zoom[0] * (self.zoom[1] / self.zoom[0]) ** np.minimum(times / ZOOM_DURATION, 1.0)


@dataclass(frozen=True)
class Motion:
    """Motion of an actor relative to the panning camera, before the zoom: arrays (f,), stage units."""

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    degrees: np.ndarray
    facing: np.ndarray
    height: np.ndarray
    world_x: np.ndarray


@dataclass(frozen=True)
class Action:
    """The slots of a scene, apart from its ground and sky. `other` is the partner of a paired verb."""

    verb: str
    noun: str
    other: str | None
    count: int
    size: str
    camera: str


@dataclass(frozen=True)
class Scene:
    """The content of a clip, independent of its size, frame rate and length."""

    action: Action
    direction: str
    aspect: float
    scenery: Scenery
    camera: Camera
    actors: tuple[Actor, ...]
    hit_time: float | None = None
    hit_restitution: float | None = None


def move(actor: Actor, camera: Camera, times: np.ndarray) -> Motion:
    """The motion of `actor` at `times`."""
    distance, _ = physics.along(actor.path, times)
    # Slightly wider, so that an actor that starts at the edge has not turned already.
    x, forward = physics.reflect(actor.x0 + actor.sense * distance, actor.low - 1e-6, actor.high + 1e-6)
    facing = actor.sense * forward
    world_x = x + camera.x(times)

    growth = actor.growth[0] + (actor.growth[1] - actor.growth[0]) * physics.eased(times, GROW_DURATION)
    size = actor.size * growth
    half = 0.5 * actor.extent[1] * growth

    height, degrees = HEIGHTS[actor.vertical](actor, times)
    if actor.rolls:
        degrees = np.rad2deg((world_x - actor.x0) / actor.radius)
    return Motion(x, actor.feet - half - height, size, degrees, facing, height, world_x)


HeightAndDegrees = tuple[np.ndarray, np.ndarray]
"""Height above the ground, and clockwise rotation in degrees."""


def _ground_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    return np.zeros_like(times), np.zeros_like(times)


def _drop_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    return physics.drop(times, actor.height, actor.restitution), np.zeros_like(times)


def _hop_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    return physics.hops(times + actor.phase, actor.height), np.zeros_like(times)


def _walk_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    clock = times + actor.phase
    height = 0.05 * actor.size * np.abs(np.sin(2 * np.pi * clock))
    return height, 5.0 * np.sin(2 * np.pi * clock)


def _fly_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    clock = times + actor.phase
    height = actor.height + 0.025 * np.sin(np.pi * clock)
    return height, 3.0 * np.sin(np.pi * clock + 1.0)


def _rise_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    return actor.height * physics.eased(times, RISE_DURATION), np.zeros_like(times)


def _spin_height(actor: Actor, times: np.ndarray) -> HeightAndDegrees:
    return np.full_like(times, actor.height), actor.spin * times


HEIGHTS: dict[str, Callable[[Actor, np.ndarray], HeightAndDegrees]] = {
    "ground": _ground_height,
    "bounce": _drop_height,
    "fall": _drop_height,
    "hop": _hop_height,
    "walk": _walk_height,
    "fly": _fly_height,
    "rise": _rise_height,
    "spin": _spin_height,
}
