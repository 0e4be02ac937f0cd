"""What is true of a clip, as plain JSON: its slots, and where everyone is in every frame and how much of them can be seen."""

from typing import Any

import numpy as np

from kinema.worlds.stage import physics
from kinema.worlds.stage.render import front_order, is_mirrored, on_screen
from kinema.worlds.stage.scene import RISE_DURATION, Motion, Scene
from kinema.worlds.stage.sprites import place, sprite

MASK_CELLS = 24
View = tuple[np.ndarray, np.ndarray, np.ndarray]


def truth_of(scene: Scene, motions: list[Motion], times: np.ndarray, seed: int, fps: float) -> dict[str, Any]:
    views = [on_screen(scene, motion, times) for motion in motions]
    contacts = _contacts(scene, motions, times)
    visible = _visible(scene, views, motions)
    camera = scene.camera
    objects = []
    for actor, motion, (x, y, size), shown in zip(scene.actors, motions, views, visible, strict=True):
        columns = {"x": x, "y": y, "size": size, "degrees": motion.degrees, "visible": shown}
        columns |= {"facing": motion.facing, "height": motion.height, "world_x": motion.world_x}
        objects.append(
            {
                "noun": actor.noun,
                "role": actor.role,
                "mass": round(actor.mass, 6),
                "radius": round(actor.radius, 6),
                "feet": round(actor.feet, 6),
                "drop_height": round(actor.height, 6) if actor.vertical in ("bounce", "fall") else None,
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
        "noun": scene.noun,
        "other": scene.other,
        "verb": scene.verb,
        "direction": scene.direction,
        "count": scene.count,
        "size": scene.size,
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


def _visible(scene: Scene, views: list[View], motions: list[Motion]) -> list[np.ndarray]:
    """The fraction of each actor that is inside the frame and not hidden by one in front, for every frame."""
    order = front_order(scene)
    shares = []
    for actor, (x, y, size), motion in zip(scene.actors, views, motions, strict=True):
        drawn = sprite(actor.noun)
        c, s = np.abs(np.cos(np.deg2rad(motion.degrees))), np.abs(np.sin(np.deg2rad(motion.degrees)))
        if actor.rolls:
            half_x, half_y = drawn.width * size / 2, drawn.height * size / 2
        else:
            half_x = (c * drawn.width + s * drawn.height) * size / 2
            half_y = (s * drawn.width + c * drawn.height) * size / 2
        inside_x = np.clip(np.minimum(x + half_x, scene.aspect) - np.maximum(x - half_x, 0), 0, None) / (
            2 * half_x
        )
        inside_y = np.clip(np.minimum(y + half_y, 1.0) - np.maximum(y - half_y, 0), 0, None) / (2 * half_y)
        shares.append(np.clip(inside_x * inside_y, 0, 1))
    for rank, index in enumerate(order):
        for above in order[rank + 1 :]:
            (xa, ya, sa), (xb, yb, sb) = views[index], views[above]
            near = (np.abs(xa - xb) < 0.6 * (sa + sb)) & (np.abs(ya - yb) < 0.6 * (sa + sb))
            for i in np.flatnonzero(near).tolist():
                own = _mask(scene, motions[index], index, views[index], i, (xa[i], ya[i], sa[i]))
                front = _mask(scene, motions[above], above, views[above], i, (xa[i], ya[i], sa[i]))
                shares[index][i] *= 1.0 - float((own * front).sum() / max(own.sum(), 1e-6))
    return shares


def _mask(
    scene: Scene, motion: Motion, index: int, view: View, i: int, window: tuple[float, float, float]
) -> np.ndarray:
    """Alpha of an actor in a small window around a place in the frame, at a resolution that no rendering size changes."""
    cells = MASK_CELLS
    scale = cells / (1.5 * window[2])
    mask = np.zeros((cells, cells), np.float32)
    noun = scene.actors[index].noun
    drawn = sprite(noun)
    size_px = float(view[2][i]) * scale
    extent = (
        drawn.width * size_px * (-1 if is_mirrored(noun, motion.facing[i]) else 1),
        drawn.height * size_px,
    )
    centre = (
        float(view[0][i] - window[0]) * scale + cells / 2,
        float(view[1][i] - window[1]) * scale + cells / 2,
    )
    alpha = drawn.level(size_px).alpha
    where = place(alpha.shape, mask.shape, centre, extent, float(motion.degrees[i]))
    if where is not None:
        mask[where.top : where.bottom, where.left : where.right] = where.warp(alpha)
    return mask


def _contacts(scene: Scene, motions: list[Motion], times: np.ndarray) -> list[dict[str, Any]]:
    """Impacts and turns until the last frame, in order of time."""
    end = float(times[-1])
    found: list[dict[str, Any]] = []
    for index, (actor, motion) in enumerate(zip(scene.actors, motions, strict=True)):
        if actor.vertical in ("bounce", "fall"):
            impacts = physics.impact_times(actor.height, actor.restitution)
            found += [
                {"time": round(t, 5), "kind": "ground", "objects": [index]} for t in impacts if t <= end
            ]
        found += [
            {"time": round(float(times[i + 1]), 5), "kind": "edge", "objects": [index]}
            for i in np.flatnonzero(np.diff(motion.facing))
        ]
    if scene.hit_time is not None and scene.hit_time <= end:
        found.append({"time": round(scene.hit_time, 5), "kind": "hit", "objects": [1, 0]})
    return sorted(found, key=lambda contact: contact["time"])


def _tail(scene: Scene, motions: list[Motion], contacts: list[dict[str, Any]], end: float) -> str | None:
    """What a long clip shows after the motion that the verb names."""
    if any(contact["kind"] == "edge" for contact in contacts):
        return "turns_back"
    actor = scene.actors[0]
    if scene.verb == "bounce" and physics.impact_times(actor.height, actor.restitution)[-1] + 0.5 < end:
        return "rolls_on"
    if scene.verb == "rise" and end > RISE_DURATION + 0.5:
        return "hovers"
    if scene.verb == "slide" and actor.path[-1].start + 0.5 < end:
        return "stops"
    return None
