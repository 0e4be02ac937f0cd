"""The truth of a clip as plain JSON: its slots, and the tracks and visible fractions of its objects."""

from typing import Any

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.render import ScreenTrack, front_order, is_mirrored, on_screen
from kinema.worlds.stage.scene import Actor, Motion, Scene
from kinema.worlds.stage.sprites import place_sprite, sprite
from kinema.worlds.stage.verbs import VERBS

MASK_CELLS = 24
"""Resolution of the masks that measure occlusion; it does not depend on the frame size."""


def truth_of(scene: Scene, motions: list[Motion], times: np.ndarray, seed: int, fps: float) -> dict[str, Any]:
    """The truth of a clip. Tracks have one value per frame, in stage units, degrees or fractions of 1."""
    views = [on_screen(scene, motion, times) for motion in motions]
    contacts = _contacts(scene, motions, times)
    visible = _visible(scene, views, motions)
    action, camera = scene.action, scene.camera
    objects = []
    for actor, motion, view, fraction in zip(scene.actors, motions, views, visible, strict=True):
        columns = {
            "x": view.x,
            "y": view.y,
            "size": view.size,
            "degrees": motion.degrees,
            "visible": fraction,
        }
        columns |= {"facing": motion.facing, "height": motion.height, "world_x": motion.world_x}
        drops = actor.vertical in ("bounce", "fall")
        objects.append(
            {
                "noun": actor.noun,
                "role": actor.role,
                "mass": round(actor.mass, 6),
                "radius": round(actor.radius, 6),
                "feet": round(actor.feet, 6),
                "drop_height": round(actor.height, 6) if drops else None,
                "restitution": actor.restitution or None,
                "tracks": {key: np.round(values, 5).tolist() for key, values in columns.items()},
            }
        )
    return {
        "world": "stage",
        "seed": seed,
        "aspect": scene.aspect,
        "fps": fps,
        "num_frames": len(times),
        "start_time": float(times[0]),
        "noun": action.noun,
        "other": action.other,
        "verb": action.verb,
        "direction": scene.direction,
        "count": action.count,
        "size": action.size,
        "ground": scene.scenery.ground,
        "sky": scene.scenery.sky,
        "camera": camera.kind,
        "camera_stops": bool(camera.speed and camera.until + 0.5 < times[-1]),
        "tail": _tail(scene, motions, contacts, float(times[-1])),
        "horizon": scene.scenery.horizon,
        "objects": objects,
        "contacts": contacts,
        "physics": {
            "gravity": physics.GRAVITY,
            "hit_restitution": scene.hit_restitution,
            "hit_time": scene.hit_time,
        },
        "camera_tracks": {
            "x": np.round(camera.x(times), 5).tolist(),
            "zoom": np.round(camera.zoom_at(times), 5).tolist(),
        },
    }


def _visible(scene: Scene, views: list[ScreenTrack], motions: list[Motion]) -> list[np.ndarray]:
    """Per actor and frame, the fraction that is inside the frame and not hidden by an actor in front."""
    order = front_order(scene)
    fractions = [
        _inside(actor, view, motion, scene.aspect)
        for actor, view, motion in zip(scene.actors, views, motions, strict=True)
    ]

    for rank, index in enumerate(order):
        for above in order[rank + 1 :]:
            back, front = views[index], views[above]
            reach = 0.6 * (back.size + front.size)
            is_near = (np.abs(back.x - front.x) < reach) & (np.abs(back.y - front.y) < reach)
            for i in np.flatnonzero(is_near).tolist():
                own = _mask(scene.actors[index], motions[index], back, i, back)
                other = _mask(scene.actors[above], motions[above], front, i, back)
                fractions[index][i] *= 1.0 - float((own * other).sum() / max(own.sum(), 1e-6))
    return fractions


def _inside(actor: Actor, view: ScreenTrack, motion: Motion, aspect: float) -> np.ndarray:
    """Per frame, the fraction of an actor's bounding box that is inside the frame."""
    x, y, size = view
    drawn = sprite(actor.noun)
    if actor.rolls:
        half_x, half_y = drawn.width * size / 2, drawn.height * size / 2
    else:
        c, s = np.abs(np.cos(np.deg2rad(motion.degrees))), np.abs(np.sin(np.deg2rad(motion.degrees)))
        half_x = (c * drawn.width + s * drawn.height) * size / 2
        half_y = (s * drawn.width + c * drawn.height) * size / 2

    width = np.clip(np.minimum(x + half_x, aspect) - np.maximum(x - half_x, 0), 0, None)
    height = np.clip(np.minimum(y + half_y, 1.0) - np.maximum(y - half_y, 0), 0, None)
    return np.clip((width / (2 * half_x)) * (height / (2 * half_y)), 0, 1)


def _mask(actor: Actor, motion: Motion, view: ScreenTrack, i: int, window: ScreenTrack) -> np.ndarray:
    """Alpha of an actor in frame `i`, in a window around the track `window` that is scaled with its size."""
    scale = MASK_CELLS / (1.5 * window.size[i])
    size_px = float(view.size[i]) * scale
    drawn = sprite(actor.noun)
    extent = (
        drawn.width * size_px * (-1 if is_mirrored(actor.noun, motion.facing[i]) else 1),
        drawn.height * size_px,
    )
    centre = (
        float(view.x[i] - window.x[i]) * scale + MASK_CELLS / 2,
        float(view.y[i] - window.y[i]) * scale + MASK_CELLS / 2,
    )

    mask = np.zeros((MASK_CELLS, MASK_CELLS), np.float32)
    alpha = drawn.level(size_px).alpha
    placement = place_sprite(alpha.shape, mask.shape, centre, extent, float(motion.degrees[i]))
    if placement is not None:
        placement.crop(mask)[:] = placement.warp(alpha)
    return mask


def _contacts(scene: Scene, motions: list[Motion], times: np.ndarray) -> list[dict[str, Any]]:
    """Impacts and turns until the last frame, ordered by time."""
    end = float(times[-1])
    contacts: list[dict[str, Any]] = []
    for index, (actor, motion) in enumerate(zip(scene.actors, motions, strict=True)):
        if actor.vertical in ("bounce", "fall"):
            impacts = physics.impact_times(actor.height, actor.restitution)
            contacts += [
                {"time": round(t, 5), "kind": "ground", "objects": [index]} for t in impacts if t <= end
            ]
        contacts += [
            {"time": round(float(times[i + 1]), 5), "kind": "edge", "objects": [index]}
            for i in np.flatnonzero(np.diff(motion.facing))
        ]
    if scene.hit_time is not None and scene.hit_time <= end:
        contacts.append({"time": round(scene.hit_time, 5), "kind": "hit", "objects": [1, 0]})
    return sorted(contacts, key=lambda contact: contact["time"])


def _tail(scene: Scene, motions: list[Motion], contacts: list[dict[str, Any]], end: float) -> str | None:
    """What follows in a long clip when the motion of the verb is over; None if nothing does."""
    if any(contact["kind"] == "edge" for contact in contacts):
        return "turns_back"
    verb = VERBS[scene.action.verb]
    return verb.tail if verb.end(scene.actors[0]) + 0.5 < end else None
