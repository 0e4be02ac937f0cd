"""Sampling of a scene from a seed: start, path and vertical motion of actors, in stage units and seconds."""

import random
from dataclasses import replace

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.motions import SIZE_FACTOR, from_start
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.physics import PathSegment
from kinema.worlds.stage.scene import PAN_DURATION, ZOOM_FAR, ZOOM_NEAR, Action, Actor, Camera, Scene
from kinema.worlds.stage.scenery import Scenery
from kinema.worlds.stage.verbs import VERBS, Verb

BASE_SIZE = {1: 0.41, 2: 0.33, 3: 0.27}


def sample_scene(action: Action, scenery: Scenery, aspect: float, rng: random.Random) -> Scene:
    """The scene of an action. All lengths, speeds and positions are drawn from `rng`."""
    unit = min(1.0, aspect)
    sense = rng.choice((-1.0, 1.0))
    verb = VERBS[action.verb]
    camera = _camera(action.camera, sense, aspect, verb)
    scene = Scene(action, verb.directions[0 if sense > 0 else 1], aspect, scenery, camera, ())
    is_zooming = action.camera.startswith("zoom")
    reach = aspect / ZOOM_NEAR if is_zooming else aspect
    edge = (aspect - reach) / 2
    if verb.pair is not None:
        return verb.pair(scene, sense, unit, edge, rng)

    length = BASE_SIZE[action.count] * SIZE_FACTOR[action.size] * rng.uniform(0.97, 1.03) * unit
    feet = rng.uniform(0.85, 0.92)
    actor = Actor(action.noun, "subject", length, feet, aspect / 2, sense, 0.0, aspect, physics.uniform(0.0))

    ceiling = feet - actor.extent[1] - (0.08 if is_zooming else 0.03)
    actor = verb.motion(actor, ceiling, rng)

    offsets = _offsets(actor, action.count, aspect)
    actor = _bounded(actor, edge, offsets[-1])
    set_course = _travel if verb.kind == "moving" else _stand
    actor, camera = set_course(actor, verb, camera, aspect, rng)
    return replace(scene, camera=camera, actors=_actors(actor, offsets, rng))


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
    actor: Actor, verb: Verb, camera: Camera, aspect: float, rng: random.Random
) -> tuple[Actor, Camera]:
    """The actor with its start and path along the ground, and the camera, which may follow it."""
    room = max(actor.high - actor.low, 0.02)
    speed = min(rng.uniform(0.2, 0.245) * aspect, room / 2)

    if verb.is_braked:
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
    return replace(actor, x0=from_start(actor, start)), camera


def _stand(
    actor: Actor, verb: Verb, camera: Camera, aspect: float, rng: random.Random
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


def _actors(actor: Actor, offsets: list[float], rng: random.Random) -> tuple[Actor, ...]:
    """Copies of `actor` side by side, at different depths and phases."""
    count = len(offsets)
    depths = sorted(rng.sample([-0.04, -0.005, 0.03], count)) if count > 1 else [0.0]
    shuffled = list(offsets)
    rng.shuffle(shuffled)

    actors = []
    for index, (offset, depth) in enumerate(zip(shuffled, depths, strict=True)):
        phase = 0.0 if index == 0 else rng.uniform(0.1, 0.9)
        height = actor.height
        if actor.restitution and index:
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


def _camera(kind: str, sense: float, aspect: float, verb: Verb) -> Camera:
    if kind in ("pan_left", "pan_right"):
        speed = 0.13 * aspect * (1.0 if kind == "pan_right" else -1.0)
        return Camera(kind, speed, PAN_DURATION if verb.kind in ("standing", "turning") else float("inf"))
    if kind == "follow":
        return Camera(kind, sense * 0.34 * aspect)
    zoom = {"zoom_in": (ZOOM_FAR, ZOOM_NEAR), "zoom_out": (ZOOM_NEAR, ZOOM_FAR)}.get(kind, (1.0, 1.0))
    return Camera(kind, zoom=zoom)
