"""Sampling of a scene from a seed: start, path and vertical motion of actors, in stage units and seconds."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import PathSegment
from kinema.worlds.stage.scene import (
    HORIZONTAL,
    PAIRED,
    PAN_DURATION,
    ZOOM_FAR,
    ZOOM_NEAR,
    Action,
    Actor,
    Camera,
    Scene,
)
from kinema.worlds.stage.scenery import Scenery

BASE_SIZE = {1: 0.41, 2: 0.33, 3: 0.27}
SIZE_FACTOR = {"small": 0.82, "regular": 1.0, "large": 1.2}
DIRECTION_OF = {"rise": "up", "fall": "down", "grow": "none", "shrink": "none"}
"""Directions that the verb implies."""
PASS_TIME = 2.0


def sample_scene(action: Action, scenery: Scenery, aspect: float, rng: random.Random) -> Scene:
    """The scene of an action. All lengths, speeds and positions are drawn from `rng`."""
    unit = min(1.0, aspect)
    sense = rng.choice((-1.0, 1.0))
    camera = _camera(action.camera, sense, aspect, action.verb)
    scene = Scene(
        action.verb,
        action.noun,
        action.other,
        action.count,
        _direction(action.verb, sense),
        action.size,
        aspect,
        scenery,
        camera,
        (),
    )
    is_zooming = action.camera.startswith("zoom")
    reach = aspect / ZOOM_NEAR if is_zooming else aspect
    edge = (aspect - reach) / 2
    if action.other is not None:
        return PAIRED_SCENES[action.verb](scene, sense, unit, edge, rng)

    length = BASE_SIZE[action.count] * SIZE_FACTOR[action.size] * rng.uniform(0.97, 1.03) * unit
    feet = rng.uniform(0.85, 0.92)
    actor = Actor(action.noun, "subject", length, feet, aspect / 2, sense, 0.0, aspect, physics.uniform(0.0))

    ceiling = feet - actor.extent[1] - (0.08 if is_zooming else 0.03)
    actor = VERTICAL_MOTIONS[action.verb](actor, ceiling, rng)

    offsets = _offsets(actor, action.count, aspect)
    actor = _bounded(actor, edge, offsets[-1])
    set_course = _travel if action.verb in HORIZONTAL else _stand
    actor, camera = set_course(actor, action, camera, aspect, rng)
    return replace(scene, camera=camera, actors=_actors(actor, action.verb, offsets, rng))


def _direction(verb: str, sense: float) -> str:
    if verb in DIRECTION_OF:
        return DIRECTION_OF[verb]
    forward, backward = ("clockwise", "counterclockwise") if verb == "spin" else ("right", "left")
    return forward if sense > 0 else backward


def _on_ground(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="ground")


def _roll(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="ground", rolls=True)


def _bounce(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    height = ceiling * rng.uniform(0.85, 1.0)
    restitution = rng.uniform(0.74, 0.86)
    return replace(actor, vertical="bounce", height=height, restitution=restitution, rolls=True)


def _fall(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    height = ceiling * rng.uniform(0.92, 1.0)
    is_round = "round" in NOUNS[actor.noun].traits
    restitution = rng.uniform(0.4, 0.5) if is_round else rng.uniform(0.15, 0.25)
    return replace(actor, vertical="fall", height=height, restitution=restitution)


def _walk(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="walk")


def _hop(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="hop", height=min(rng.uniform(0.13, 0.19), ceiling))


def _fly(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="fly", height=max(ceiling - 0.05, 0.05) * rng.uniform(0.75, 0.95))


def _rise(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="rise", height=ceiling * rng.uniform(0.94, 1.0))


def _spin(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    width, tall = actor.extent
    circle = 0.5 * float(np.hypot(width, tall))
    height = max(0.0, circle * 0.94 - tall / 2)
    return replace(actor, vertical="spin", height=height, spin=actor.sense * rng.uniform(110, 160))


def _grow(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="ground", growth=(0.5, 1.12))


def _shrink(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    return replace(actor, vertical="ground", growth=(1.12, 0.5))


VERTICAL_MOTIONS: dict[str, Callable[[Actor, float, random.Random], Actor]] = {
    "roll": _roll,
    "bounce": _bounce,
    "fall": _fall,
    "drive": _on_ground,
    "walk": _walk,
    "hop": _hop,
    "fly": _fly,
    "rise": _rise,
    "spin": _spin,
    "grow": _grow,
    "shrink": _shrink,
    "slide": _on_ground,
}
"""Set the motion of an actor apart from its path. At the height `ceiling` it touches the top of the frame."""


def _offsets(actor: Actor, count: int, aspect: float) -> list[float]:
    """The positions of `count` actors relative to their middle, from left to right."""
    width, _ = actor.extent
    spread = 0.0 if count == 1 else min(0.85 * width, (aspect - width) * 0.5 / (count - 1))
    return [spread * (i - (count - 1) / 2) for i in range(count)]


def _bounded(actor: Actor, edge: float, offset: float) -> Actor:
    """The actor with the limits within which it and others `offset` away stay inside the frame."""
    width, tall = actor.extent
    half = 0.5 * max(width, tall if NOUNS[actor.noun].locomotion == "roll" else 0.0) + offset + 0.01
    return replace(actor, low=edge + half, high=actor.high - edge - half)


def _travel(
    actor: Actor, action: Action, camera: Camera, aspect: float, rng: random.Random
) -> tuple[Actor, Camera]:
    """The actor with its start and path along the ground, and the camera, which may follow it."""
    room = max(actor.high - actor.low, 0.02)
    speed = min(rng.uniform(0.2, 0.245) * aspect, room / 2)

    if action.verb == "slide":
        speed = min(rng.uniform(0.42, 0.5) * aspect, 0.97 * room)
        # The distance is speed**2 / (2 friction), which equals the speed for friction = speed / 2 s.
        actor = replace(actor, path=physics.braked(speed, speed / 2.0))
        slack = room - speed
    elif camera.kind == "follow":
        camera = replace(camera, speed=actor.sense * rng.uniform(0.3, 0.38) * aspect)
        slack = room
    else:
        actor = replace(actor, path=physics.uniform(speed))
        slack = room - 2 * speed
        if rng.random() < 0.12:
            slack = room

    is_followed = camera.kind == "follow"
    start = room * rng.uniform(0.35, 0.65) if is_followed else rng.uniform(0, max(slack, 0.0))
    return replace(actor, x0=_from_start(actor, start)), camera


def _stand(
    actor: Actor, action: Action, camera: Camera, aspect: float, rng: random.Random
) -> tuple[Actor, Camera]:
    """The actor at a fixed position of the world, and the unchanged camera."""
    room = max(actor.high - actor.low, 0.02)
    actor = replace(actor, low=-10.0 * aspect, high=10.0 * aspect)
    if not camera.speed:
        return replace(actor, x0=aspect / 2 + rng.uniform(-0.5, 0.5) * room * 0.7), camera

    # In the frame, a standing actor moves against the camera until the camera stops.
    speed = abs(camera.speed)
    path = (
        PathSegment(0.0, 0.0, speed, 0.0),
        PathSegment(camera.until, speed * camera.until, 0.0, 0.0),
    )
    x0 = aspect / 2 + camera.speed * PAN_DURATION / 2
    return replace(actor, x0=x0, sense=-float(np.sign(camera.speed)), path=path), camera


def _actors(actor: Actor, verb: str, offsets: list[float], rng: random.Random) -> tuple[Actor, ...]:
    """Copies of `actor` side by side, at different depths and phases."""
    count = len(offsets)
    depths = sorted(rng.sample([-0.04, -0.005, 0.03], count)) if count > 1 else [0.0]
    shuffled = list(offsets)
    rng.shuffle(shuffled)

    actors = []
    for index, (offset, depth) in enumerate(zip(shuffled, depths, strict=True)):
        phase = 0.0 if index == 0 else rng.uniform(0.1, 0.9)
        height = actor.height
        if verb in ("bounce", "fall") and index:
            height *= rng.uniform(0.75, 0.95)
        actors.append(
            replace(
                actor,
                x0=actor.x0 + offset,
                low=actor.low + offset,
                high=actor.high + offset,
                feet=actor.feet + depth,
                phase=phase,
                height=height,
            )
        )
    return tuple(actors)


def _camera(kind: str, sense: float, aspect: float, verb: str) -> Camera:
    moving = verb in HORIZONTAL or verb in PAIRED
    if kind in ("pan_left", "pan_right"):
        speed = 0.13 * aspect * (1.0 if kind == "pan_right" else -1.0)
        return Camera(kind, speed, float("inf") if moving else PAN_DURATION)
    if kind == "follow":
        return Camera(kind, sense * 0.34 * aspect)
    zoom = {"zoom_in": (ZOOM_FAR, ZOOM_NEAR), "zoom_out": (ZOOM_NEAR, ZOOM_FAR)}.get(kind, (1.0, 1.0))
    return Camera(kind, zoom=zoom)


def _mover(
    noun: str, size: float, feet: float, sense: float, aspect: float, edge: float, role: str = "subject"
) -> Actor:
    """An actor that moves by its noun's locomotion and stays inside the frame. Start and path are not set."""
    locomotion = NOUNS[noun].locomotion
    rolls = locomotion == "roll"
    vertical = locomotion if locomotion in ("walk", "hop", "fly") else "ground"
    height = {"hop": 0.12, "fly": 0.3}.get(vertical, 0.0)
    actor = Actor(noun, role, size, feet, 0.0, sense, 0.0, aspect, (), vertical, height, rolls=rolls)
    half = max(actor.extent) / 2 if rolls else actor.extent[0] / 2
    return replace(actor, low=edge + half + 0.01, high=aspect - edge - half - 0.01)


def _from_start(actor: Actor, distance: float) -> float:
    """The position `distance` ahead of the side from which the actor comes."""
    return actor.low + distance if actor.sense > 0 else actor.high - distance


def _pass(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject passes behind a large object that stands near the middle."""
    aspect, size = scene.aspect, 0.29 * SIZE_FACTOR[scene.size] * unit
    actor = _mover(scene.noun, size, rng.uniform(0.79, 0.82), sense, aspect, edge)
    room = max(actor.high - actor.low, 0.02)
    speed = room / (PASS_TIME * rng.uniform(1.02, 1.15))
    actor = replace(actor, x0=_from_start(actor, 0.0), path=physics.uniform(speed))

    feet, x0 = rng.uniform(0.92, 0.95), aspect * rng.uniform(0.46, 0.54)
    front = Actor(str(scene.other), "object", 0.46 * unit, feet, x0, sense, -9.0, 9.0, physics.uniform(0.0))
    return replace(scene, actors=(actor, front))


def _knock(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject hits a resting object, which slides or rolls away; friction brings both to rest."""
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

    until_hit = physics.uniform(speed)
    actor = replace(actor, path=(*until_hit, *physics.braked(after, friction, start=hit_time, distance=gap)))
    other = replace(other, path=(*physics.uniform(0.0), *physics.braked(pushed, friction, start=hit_time)))
    return replace(scene, actors=(other, actor), hit_time=hit_time, hit_restitution=restitution)


def _chase(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject runs behind an object at the same speed."""
    aspect, feet = scene.aspect, rng.uniform(0.85, 0.9)
    size = 0.27 * unit
    hunter = _mover(scene.noun, size * SIZE_FACTOR[scene.size], feet, sense, aspect, edge)
    hunted = _mover(str(scene.other), size, feet + 0.03, sense, aspect, edge, "object")

    gap = 0.5 * (hunter.extent[0] + hunted.extent[0]) + 0.02
    x0 = _from_start(hunter, 0.0)
    room = max(abs((hunted.high if sense > 0 else hunted.low) - x0) - gap, 0.05 * aspect)

    if scene.camera.kind == "follow":
        x0 += sense * 0.5 * room
        path = physics.uniform(0.0)
    else:
        path = physics.uniform(room / rng.uniform(2.04, 2.2))

    hunter = replace(hunter, x0=x0, path=path)
    hunted = replace(hunted, x0=x0 + sense * gap, path=path, phase=0.37)
    return replace(scene, actors=(hunter, hunted))


PAIRED_SCENES: dict[str, Callable[[Scene, float, float, float, random.Random], Scene]] = {
    "pass": _pass,
    "knock": _knock,
    "chase": _chase,
}
"""Complete a scene of two actors, given the direction (+1 right), the unit of size and the margin."""
