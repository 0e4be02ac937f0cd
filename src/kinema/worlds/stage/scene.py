"""A scene: who is on the stage, where, and how everyone and the camera move. Sampled from a seed, in stage units and seconds."""

import random
from dataclasses import dataclass, replace

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import Piece
from kinema.worlds.stage.scenery import Scenery
from kinema.worlds.stage.sprites import sprite

HORIZONTAL = ("roll", "bounce", "drive", "walk", "hop", "fly", "slide")
PAIRED = ("pass", "knock", "chase")
STILL_CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out")
CAMERAS_OF = {
    **{
        verb: (*STILL_CAMERAS, "follow")
        for verb in ("roll", "bounce", "drive", "walk", "hop", "fly", "chase")
    },
    **{verb: STILL_CAMERAS for verb in ("fall", "rise", "spin")},
    **{verb: ("still", "pan_left", "pan_right") for verb in ("grow", "shrink")},
    **{verb: ("still", "zoom_in", "zoom_out") for verb in ("slide", "pass")},
    "knock": ("still",),
}
BASE_SIZE = {1: 0.41, 2: 0.33, 3: 0.27}
SIZE_FACTOR = {"small": 0.82, "regular": 1.0, "large": 1.2}
ZOOM_FAR, ZOOM_NEAR, ZOOM_DURATION = 0.8, 1.12, 2.2
ZOOM_LEVEL = 0.62
PAN_DURATION = 3.0
RISE_DURATION = 2.4
GROW_DURATION = 2.4
PASS_TIME = 2.0


@dataclass(frozen=True)
class Actor:
    """One object. `x0` is its centre at time 0; it goes `pieces` along `sense` (+1 right), folded into [low, high].

    `vertical` names how its height above the ground comes about; `height` and `restitution` are what that needs.
    """

    noun: str
    role: str
    size: float
    feet: float
    x0: float
    sense: float
    low: float
    high: float
    pieces: tuple[Piece, ...]
    vertical: str = "ground"
    height: float = 0.0
    restitution: float = 0.0
    phase: float = 0.0
    spin: float = 0.0
    growth: tuple[float, float] = (1.0, 1.0)
    rolls: bool = False

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the drawn part at its nominal size."""
        picture = sprite(self.noun)
        return picture.width * self.size, picture.height * self.size

    @property
    def radius(self) -> float:
        """Half the drawn height: the rolling radius."""
        return 0.5 * self.extent[1]

    @property
    def mass(self) -> float:
        """Mass in arbitrary units: that of the noun, times the area."""
        return NOUNS[self.noun].mass * self.size**2


@dataclass(frozen=True)
class Camera:
    """`speed` in stage units per second until `until`, and the zoom at the start and after `ZOOM_DURATION`."""

    kind: str
    speed: float = 0.0
    until: float = float("inf")
    zoom: tuple[float, float] = (1.0, 1.0)

    def x(self, times: np.ndarray) -> np.ndarray:
        """How far the camera has gone to the right."""
        return self.speed * np.minimum(times, self.until)

    def zoom_at(self, times: np.ndarray) -> np.ndarray:
        """The magnification: it changes by equal factors in equal times."""
        return self.zoom[0] * (self.zoom[1] / self.zoom[0]) ** np.minimum(times / ZOOM_DURATION, 1.0)


@dataclass(frozen=True)
class Motion:
    """What one actor does at some times, seen by a camera that pans but does not zoom: all arrays `(f,)`, lengths in stage units."""

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    degrees: np.ndarray
    facing: np.ndarray
    height: np.ndarray
    world_x: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows, at any size, rate and length."""

    verb: str
    noun: str
    other: str | None
    count: int
    direction: str
    size: str
    aspect: float
    scenery: Scenery
    camera: Camera
    actors: tuple[Actor, ...]
    hit_time: float | None = None
    hit_restitution: float | None = None


def move(actor: Actor, camera: Camera, times: np.ndarray) -> Motion:
    """Where `actor` is at `times`."""
    distance, _ = physics.along(actor.pieces, times)
    # A hair wider, so that one who starts at the very edge has not turned already.
    x, forward = physics.reflect(actor.x0 + actor.sense * distance, actor.low - 1e-6, actor.high + 1e-6)
    facing = actor.sense * forward
    growth = actor.growth[0] + (actor.growth[1] - actor.growth[0]) * physics.eased(times, GROW_DURATION)
    size = actor.size * growth
    half = 0.5 * actor.extent[1] * growth
    world_x = x + camera.x(times)
    degrees = np.full_like(times, 0.0)
    clock = times + actor.phase
    if actor.vertical in ("bounce", "fall"):
        height = physics.drop(times, actor.height, actor.restitution)
    elif actor.vertical == "hop":
        height = physics.hops(clock, actor.height)
    elif actor.vertical == "walk":
        height = 0.05 * actor.size * np.abs(np.sin(2 * np.pi * clock))
        degrees = 5.0 * np.sin(2 * np.pi * clock)
    elif actor.vertical == "fly":
        height = actor.height + 0.025 * np.sin(np.pi * clock)
        degrees = 3.0 * np.sin(np.pi * clock + 1.0)
    elif actor.vertical == "rise":
        height = actor.height * physics.eased(times, RISE_DURATION)
    elif actor.vertical == "spin":
        height = np.full_like(times, actor.height)
        degrees = actor.spin * times
    else:
        height = np.zeros_like(times)
    if actor.rolls:
        degrees = np.rad2deg((world_x - actor.x0) / actor.radius)
    return Motion(x, actor.feet - half - height, size, degrees, facing, height, world_x)


def sample_scene(
    verb: str,
    noun: str,
    other: str | None,
    count: int,
    size: str,
    camera: str,
    scenery: Scenery,
    aspect: float,
    rng: random.Random,
) -> Scene:
    """The scene in which `count` of `noun` do `verb` (to `other`): every length, speed and place is drawn from `rng`."""
    unit = min(1.0, aspect)
    sense = rng.choice((-1.0, 1.0))
    direction = "right" if sense > 0 else "left"
    if verb in ("rise", "fall", "grow", "shrink"):
        direction = {"rise": "up", "fall": "down"}.get(verb, "none")
    elif verb == "spin":
        direction = "clockwise" if sense > 0 else "counterclockwise"
    view = _camera(camera, sense, aspect, verb)
    reach = aspect / ZOOM_NEAR if camera.startswith("zoom") else aspect
    edge = (aspect - reach) / 2
    make = {"pass": _pass, "knock": _knock, "chase": _chase}.get(verb)
    if make is not None and other is not None:
        return make(
            Scene(verb, noun, other, 1, direction, size, aspect, scenery, view, ()), sense, unit, edge, rng
        )
    length = BASE_SIZE[count] * SIZE_FACTOR[size] * rng.uniform(0.97, 1.03) * unit
    feet = rng.uniform(0.85, 0.92)
    actor = Actor(noun, "subject", length, feet, aspect / 2, sense, 0.0, aspect, physics.uniform(0.0))
    width, tall = actor.extent
    spread = 0.0 if count == 1 else min(0.85 * width, (aspect - width) * 0.5 / (count - 1))
    offsets = [spread * (i - (count - 1) / 2) for i in range(count)]
    half = 0.5 * max(width, tall if NOUNS[noun].locomotion == "roll" else 0.0) + offsets[-1] + 0.01
    low, high = edge + half, aspect - edge - half
    room = max(high - low, 0.02)
    top = 0.08 if camera.startswith("zoom") else 0.03
    ceiling = feet - tall - top
    actor = replace(
        actor, vertical=verb if verb in ("bounce", "fall", "hop", "walk", "fly", "rise", "spin") else "ground"
    )
    if verb == "bounce":
        actor = replace(
            actor, height=ceiling * rng.uniform(0.85, 1.0), restitution=rng.uniform(0.74, 0.86), rolls=True
        )
    elif verb == "fall":
        bouncy = "round" in NOUNS[noun].traits
        actor = replace(
            actor,
            height=ceiling * rng.uniform(0.92, 1.0),
            restitution=rng.uniform(0.4, 0.5) if bouncy else rng.uniform(0.15, 0.25),
        )
    elif verb == "hop":
        actor = replace(actor, height=min(rng.uniform(0.13, 0.19), ceiling))
    elif verb == "fly":
        actor = replace(actor, height=max(ceiling - 0.05, 0.05) * rng.uniform(0.75, 0.95))
    elif verb == "rise":
        actor = replace(actor, height=ceiling * rng.uniform(0.94, 1.0))
    elif verb == "spin":
        circle = 0.5 * float(np.hypot(width, tall))
        actor = replace(actor, height=max(0.0, circle * 0.94 - tall / 2), spin=sense * rng.uniform(110, 160))
    elif verb in ("grow", "shrink"):
        ends = (0.5, 1.12) if verb == "grow" else (1.12, 0.5)
        actor = replace(actor, growth=ends)
    elif verb == "roll":
        actor = replace(actor, rolls=True)
    if verb in HORIZONTAL:
        speed = min(rng.uniform(0.2, 0.245) * aspect, room / 2)
        if verb == "slide":
            first = min(rng.uniform(0.42, 0.5) * aspect, 0.97 * room)
            speed = first  # distance v**2 / (2 friction) with friction = v / 2 s
            actor = replace(actor, pieces=physics.braked(speed, speed / 2.0))
            slack = room - first
        elif camera == "follow":
            view = replace(view, speed=sense * rng.uniform(0.3, 0.38) * aspect)
            slack = room
        else:
            actor = replace(actor, pieces=physics.uniform(speed))
            slack = room - 2 * speed
            if rng.random() < 0.12:
                slack = room
        start = rng.uniform(0, max(slack, 0.0)) if camera != "follow" else room * rng.uniform(0.35, 0.65)
        x0 = low + start if sense > 0 else high - start
    else:
        x0 = aspect / 2 + (
            view.speed * PAN_DURATION / 2 if view.speed else rng.uniform(-0.5, 0.5) * room * 0.7
        )
        low, high = -10.0 * aspect, 10.0 * aspect
        if view.speed:
            # Standing in the world means moving against the camera in the frame, until the camera stops.
            actor = replace(actor, sense=-float(np.sign(view.speed)), pieces=_standing(view))
    actors = []
    depths = sorted(rng.sample([-0.04, -0.005, 0.03], count)) if count > 1 else [0.0]
    rng.shuffle(offsets)
    for index, (offset, depth) in enumerate(zip(offsets, depths, strict=True)):
        phase = 0.0 if index == 0 else rng.uniform(0.1, 0.9)
        one = replace(
            actor, x0=x0 + offset, low=low + offset, high=high + offset, feet=feet + depth, phase=phase
        )
        if verb in ("bounce", "fall") and index:
            one = replace(one, height=one.height * rng.uniform(0.75, 0.95))
        actors.append(one)
    return Scene(verb, noun, None, count, direction, size, aspect, scenery, view, tuple(actors))


def _standing(view: Camera) -> tuple[Piece, ...]:
    speed = abs(view.speed)
    return (0.0, 0.0, speed, 0.0), (view.until, speed * view.until, 0.0, 0.0)


def _camera(kind: str, sense: float, aspect: float, verb: str) -> Camera:
    moving = verb in HORIZONTAL or verb in PAIRED
    if kind in ("pan_left", "pan_right"):
        speed = 0.13 * aspect * (1.0 if kind == "pan_right" else -1.0)
        return Camera(kind, speed, float("inf") if moving else PAN_DURATION)
    if kind == "follow":
        return Camera(kind, sense * 0.34 * aspect)
    zoom = {"zoom_in": (ZOOM_FAR, ZOOM_NEAR), "zoom_out": (ZOOM_NEAR, ZOOM_FAR)}.get(kind, (1.0, 1.0))
    return Camera(kind, zoom=zoom)


def _gait(noun: str) -> tuple[str, float, bool]:
    verb = NOUNS[noun].locomotion
    vertical = verb if verb in ("walk", "hop", "fly") else "ground"
    return vertical, {"hop": 0.12, "fly": 0.3}.get(vertical, 0.0), verb == "roll"


def _mover(
    noun: str, size: float, feet: float, sense: float, aspect: float, edge: float, role: str = "subject"
) -> Actor:
    vertical, height, rolls = _gait(noun)
    actor = Actor(noun, role, size, feet, 0.0, sense, 0.0, aspect, (), vertical, height, rolls=rolls)
    half = max(actor.extent) / 2 if rolls else actor.extent[0] / 2
    return replace(actor, low=edge + half + 0.01, high=aspect - edge - half - 0.01)


def _from_start(actor: Actor, distance: float) -> float:
    return actor.low + distance if actor.sense > 0 else actor.high - distance


def _pass(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    aspect = scene.aspect
    actor = _mover(
        scene.noun, 0.29 * SIZE_FACTOR[scene.size] * unit, rng.uniform(0.79, 0.82), sense, aspect, edge
    )
    room = max(actor.high - actor.low, 0.02)
    actor = replace(
        actor,
        x0=_from_start(actor, 0.0),
        pieces=physics.uniform(room / (PASS_TIME * rng.uniform(1.02, 1.15))),
    )
    front = Actor(
        str(scene.other),
        "object",
        0.46 * unit,
        rng.uniform(0.92, 0.95),
        aspect * rng.uniform(0.46, 0.54),
        sense,
        -9.0,
        9.0,
        physics.uniform(0),
    )
    return replace(scene, actors=(actor, front))


def _knock(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    aspect, feet = scene.aspect, rng.uniform(0.85, 0.91)
    actor = _mover(scene.noun, 0.29 * SIZE_FACTOR[scene.size] * unit, feet, sense, aspect, edge)
    actor = replace(actor, x0=_from_start(actor, 0.0), vertical="ground", height=0.0)
    other = _mover(str(scene.other), 0.25 * unit, feet, sense, aspect, edge, "object")
    other = replace(other, vertical="ground", height=0.0, rolls="round" in NOUNS[other.noun].traits)
    touch = 0.48 * (actor.extent[0] + other.extent[0])
    room = abs((other.high if sense > 0 else other.low) - actor.x0)
    gap = max(0.16 * aspect, 0.42 * (room - touch))
    other = replace(other, x0=actor.x0 + sense * (touch + gap))
    speed = gap / rng.uniform(0.6, 0.75)
    hit_time = gap / speed
    restitution = rng.uniform(0.5, 0.7)
    after, pushed = physics.collide(actor.mass, other.mass, speed, restitution)
    friction = pushed**2 / (2 * max(0.92 * (room - touch - gap), 0.02))
    actor = replace(
        actor, pieces=((0.0, 0.0, speed, 0.0), *physics.braked(after, friction, start=hit_time, distance=gap))
    )
    other = replace(other, pieces=((0.0, 0.0, 0.0, 0.0), *physics.braked(pushed, friction, start=hit_time)))
    return replace(scene, actors=(other, actor), hit_time=hit_time, hit_restitution=restitution)


def _chase(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    aspect, feet = scene.aspect, rng.uniform(0.85, 0.9)
    size = 0.27 * unit
    hunter = _mover(scene.noun, size * SIZE_FACTOR[scene.size], feet, sense, aspect, edge)
    hunted = _mover(str(scene.other), size, feet + 0.03, sense, aspect, edge, "object")
    gap = 0.5 * (hunter.extent[0] + hunted.extent[0]) + 0.02
    x0 = _from_start(hunter, 0.0)
    room = max(abs((hunted.high if sense > 0 else hunted.low) - x0) - gap, 0.05 * aspect)
    if scene.camera.kind == "follow":
        x0, pieces = x0 + sense * 0.5 * room, physics.uniform(0.0)
    else:
        pieces = physics.uniform(room / rng.uniform(2.04, 2.2))
    hunter = replace(hunter, x0=x0, pieces=pieces)
    hunted = replace(hunted, x0=x0 + sense * gap, pieces=pieces, phase=0.37)
    return replace(scene, actors=(hunter, hunted))
