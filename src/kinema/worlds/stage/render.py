"""Rendering of a scene: the scenery, soft shadows on the ground, and the sprites from far to near."""

from functools import cache
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np

from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.scene import ZOOM_LEVEL, Motion, Scene
from kinema.worlds.stage.scenery import paint_far, paint_near
from kinema.worlds.stage.sprites import composite, darken, sprite

FAR_SHARE = 0.35
"""Speed of the far layer relative to the near one when the camera pans."""


class ScreenTrack(NamedTuple):
    """Centre and size of an actor in the frame, after the zoom, in stage units: arrays (f,)."""

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray


def on_screen(scene: Scene, motion: Motion, times: np.ndarray) -> ScreenTrack:
    """The track of an actor in the frame."""
    zoom = scene.camera.zoom_at(times)
    middle = scene.aspect / 2
    return ScreenTrack(
        (motion.x - middle) * zoom + middle,
        (motion.y - ZOOM_LEVEL) * zoom + ZOOM_LEVEL,
        motion.size * zoom,
    )


def is_mirrored(noun: str, facing: float) -> bool:
    """Whether the sprite of `noun` must be mirrored to face right (`facing` +1) or left (-1)."""
    side = NOUNS[noun].facing
    return (side == "left" and facing > 0) or (side == "right" and facing < 0)


def front_order(scene: Scene) -> list[int]:
    """The indices of the actors, the farthest first."""
    return sorted(range(len(scene.actors)), key=lambda index: scene.actors[index].feet)


@cache
def _shadow() -> np.ndarray:
    axis = np.linspace(-1, 1, 34)
    return (np.clip(1 - np.hypot(axis[:, None], axis[None, :]), 0, 1) ** 0.7).astype(np.float32)


def render(scene: Scene, motions: list[Motion], times: np.ndarray, height: int, width: int) -> np.ndarray:
    """The frames of `scene` at `times`, uint8 (f, height, width, 3).

    `motions` are its actors' at the same times.
    """
    out = np.empty((len(times), height, width, 3), np.uint8)
    frame = np.empty((height, width, 3), np.float32)
    backdrop = _Backdrop(scene, height, width)
    zoom, pan = scene.camera.zoom_at(times), scene.camera.x(times)
    views = []
    for index in front_order(scene):
        actor, motion = scene.actors[index], motions[index]
        x, y, size = (values * height for values in on_screen(scene, motion, times))
        feet = ((actor.feet - ZOOM_LEVEL) * zoom + ZOOM_LEVEL - 0.005) * height
        near = 1.0 / (1.0 + 3.0 * motion.height)
        drawn = sprite(actor.noun)
        across = drawn.width * size * (0.62 + 0.38 * near)
        columns = (x, y, size, motion.degrees, motion.facing, feet, across, 0.5 * near)
        views.append((actor.noun, drawn, [values.tolist() for values in columns]))
    shadow = _shadow()
    for i, (shift, scale) in enumerate(zip(pan.tolist(), zoom.tolist(), strict=True)):
        backdrop.draw(frame, shift, scale)
        for _, _, (x, _, _, _, _, feet, across, strength) in views:
            darken(frame, shadow, strength[i], (x[i], feet[i]), (across[i], 0.2 * across[i]))
        for noun, drawn, (x, y, size, degrees, facing, _, _, _) in views:
            extent = (
                (-drawn.width if is_mirrored(noun, facing[i]) else drawn.width) * size[i],
                drawn.height * size[i],
            )
            composite(frame, drawn.level(size[i]), (x[i], y[i]), extent, degrees[i])
        cv2.convertScaleAbs(frame, dst=out[i])
    return out


class _Backdrop:
    """The scenery of one clip: painted once, then shifted (the far layer slower) or scaled per frame."""

    def __init__(self, scene: Scene, height: int, width: int):
        scenery, camera = scene.scenery, scene.camera
        self.height, self.width = height, width
        self.moves, self.zooms = camera.speed != 0, camera.zoom != (1.0, 1.0)

        scale = max(camera.zoom)
        self.density = height * scale
        wide, low = scene.aspect, min(camera.zoom)
        self.left = wide / 2 - wide / 2 / low
        self.top = ZOOM_LEVEL - ZOOM_LEVEL / low
        columns, rows = round(width * scale / low) + 1, round(height * scale / low) + 1
        if self.moves:
            self.period = round(scenery.period * self.density)
            columns, rows = self.period + width + 2, height
        elif not self.zooms:
            columns, rows = width, height
        xs = (self.left + (np.arange(columns, dtype=np.float32) + 0.5) / self.density).astype(np.float32)
        ys = (self.top + (np.arange(rows, dtype=np.float32) + 0.5) / self.density).astype(np.float32)
        if self.moves:
            xs = xs * np.float32(scenery.period * self.density / self.period)
        self.split = ceil((scenery.horizon - self.top) * self.density - 0.5)
        self.far = np.ascontiguousarray(paint_far(scenery, xs, ys[: self.split], self.density))
        self.near = np.ascontiguousarray(paint_near(scenery, xs, ys[self.split :], self.density))
        if not self.moves:
            self.whole = np.concatenate([self.far, self.near]).astype(np.float32)

    def draw(self, frame: np.ndarray, pan: float, zoom: float) -> None:
        """Draw the scenery onto `frame`, float32 (h, w, 3). `pan` is in stage units."""
        if self.moves:
            self._shift(frame[: self.split], self.far, pan * FAR_SHARE)
            self._shift(frame[self.split :], self.near, pan * 1.0)
        elif self.zooms:
            s = zoom * self.height / self.density
            middle_x, middle_y = self.width / 2, ZOOM_LEVEL * self.height
            world_x, world_y = self.width / self.height / 2, ZOOM_LEVEL
            matrix = np.array(
                [
                    [s, 0.0, middle_x - (world_x - self.left) * self.density * s + 0.5 * s - 0.5],
                    [0.0, s, middle_y - (world_y - self.top) * self.density * s + 0.5 * s - 0.5],
                ]
            )
            frame[:] = cv2.warpAffine(
                self.whole, matrix, (self.width, self.height), borderMode=cv2.BORDER_REPLICATE
            )
        else:
            frame[:] = self.whole

    def _shift(self, rows: np.ndarray, layer: np.ndarray, distance: float) -> None:
        """Draw a layer shifted by `distance` stage units, interpolated between pixels."""
        shift = (distance * self.density) % self.period
        whole = int(shift)
        left = layer[:, whole : whole + self.width]
        right = layer[:, whole + 1 : whole + 1 + self.width]
        rows[:] = cv2.addWeighted(left, 1.0 - (shift - whole), right, shift - whole, 0.0)
