"""How the actors of each verb move, and when the motion is over. In stage units and seconds."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.scene import Actor, Scene

SIZE_FACTOR = {"small": 0.82, "regular": 1.0, "large": 1.2}
PASS_TIME = 2.0

Motion = Callable[[Actor, float, random.Random], Actor]
"""The motion of an actor apart from its path. At the height of the second argument it touches the top."""


def with_fields(**fields: Any) -> Motion:
    """The motion that these fields of the actor describe."""
    return lambda actor, ceiling, rng: replace(actor, **fields)


def bounce(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor dropped from near the ceiling; every bounce is lower."""
    height = ceiling * rng.uniform(0.85, 1.0)
    restitution = rng.uniform(0.74, 0.86)
    return replace(actor, vertical="bounce", height=height, restitution=restitution, rolls=True)


def fall(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor dropped from near the ceiling; round nouns bounce more."""
    height = ceiling * rng.uniform(0.92, 1.0)
    is_round = "round" in NOUNS[actor.noun].traits
    restitution = rng.uniform(0.4, 0.5) if is_round else rng.uniform(0.15, 0.25)
    return replace(actor, vertical="fall", height=height, restitution=restitution)


def hop(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor in equal hops."""
    return replace(actor, vertical="hop", height=min(rng.uniform(0.13, 0.19), ceiling))


def fly(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor high above the ground."""
    return replace(actor, vertical="fly", height=max(ceiling - 0.05, 0.05) * rng.uniform(0.75, 0.95))


def rise(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor going up to near the ceiling."""
    return replace(actor, vertical="rise", height=ceiling * rng.uniform(0.94, 1.0))


def spin(actor: Actor, ceiling: float, rng: random.Random) -> Actor:
    """The actor turning in place, high enough that its circle touches the ground."""
    width, tall = actor.extent
    circle = 0.5 * float(np.hypot(width, tall))
    height = max(0.0, circle * 0.94 - tall / 2)
    return replace(actor, vertical="spin", height=height, spin=actor.sense * rng.uniform(110, 160))


def bounce_end(actor: Actor) -> float:
    """The last impact, after which the actor rolls on."""
    return physics.impact_times(actor.height, actor.restitution)[-1]


def slide_end(actor: Actor) -> float:
    """The time at which friction has stopped the actor."""
    return actor.path[-1].start


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


def from_start(actor: Actor, distance: float) -> float:
    """The position `distance` ahead of the side from which the actor comes."""
    return actor.low + distance if actor.sense > 0 else actor.high - distance


def pass_behind(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject passes behind a large object that stands near the middle."""
    action, aspect = scene.action, scene.aspect
    size = 0.29 * SIZE_FACTOR[action.size] * unit
    actor = _mover(action.noun, size, rng.uniform(0.79, 0.82), sense, aspect, edge)
    room = max(actor.high - actor.low, 0.02)
    speed = room / (PASS_TIME * rng.uniform(1.02, 1.15))
    actor = replace(actor, x0=from_start(actor, 0.0), path=physics.uniform(speed))

    feet, x0 = rng.uniform(0.92, 0.95), aspect * rng.uniform(0.46, 0.54)
    front = Actor(str(action.other), "object", 0.46 * unit, feet, x0, sense, -9.0, 9.0, physics.uniform(0.0))
    return replace(scene, actors=(actor, front))


def knock(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject hits a resting object, which slides or rolls away; friction brings both to rest."""
    action, aspect, feet = scene.action, scene.aspect, rng.uniform(0.85, 0.91)
    actor = _mover(action.noun, 0.29 * SIZE_FACTOR[action.size] * unit, feet, sense, aspect, edge)
    actor = replace(actor, x0=from_start(actor, 0.0), vertical="ground", height=0.0)
    other = _mover(str(action.other), 0.25 * unit, feet, sense, aspect, edge, "object")
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


def chase(scene: Scene, sense: float, unit: float, edge: float, rng: random.Random) -> Scene:
    """The subject runs behind an object at the same speed."""
    action, aspect, feet = scene.action, scene.aspect, rng.uniform(0.85, 0.9)
    size = 0.27 * unit
    hunter = _mover(action.noun, size * SIZE_FACTOR[action.size], feet, sense, aspect, edge)
    hunted = _mover(str(action.other), size, feet + 0.03, sense, aspect, edge, "object")

    gap = 0.5 * (hunter.extent[0] + hunted.extent[0]) + 0.02
    x0 = from_start(hunter, 0.0)
    room = max(abs((hunted.high if sense > 0 else hunted.low) - x0) - gap, 0.05 * aspect)

    if scene.camera.kind == "follow":
        x0 += sense * 0.5 * room
        path = physics.uniform(0.0)
    else:
        path = physics.uniform(room / rng.uniform(2.04, 2.2))

    hunter = replace(hunter, x0=x0, path=path)
    hunted = replace(hunted, x0=x0 + sense * gap, path=path, phase=0.37)
    return replace(scene, actors=(hunter, hunted))
