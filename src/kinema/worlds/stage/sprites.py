"""The sprites of the nouns, cut from the shipped atlas, as mip pyramids with premultiplied alpha."""

import json
import math
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import cv2
import numpy as np

from kinema.worlds.stage.nouns import NOUNS

CELL = 64
COLUMNS = 26
LEVEL_RATIO = 2**0.5
ENLARGEMENT, ENLARGE_FROM = 4, 1.25
"""Factor of the enlarged level, and the size, relative to the finest level, from which it is used."""


@dataclass(frozen=True, eq=False)
class SpriteImage:
    """Premultiplied RGB (h, w, 3) in 0..255 and alpha (h, w) in 0..1, float32, with a transparent border.

    They are separate because OpenCV warps three and one channels in a quarter of the time of four.
    """

    rgb: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True, eq=False)
class Sprite:
    """Levels from fine to coarse, each `LEVEL_RATIO` smaller. Of `width` and `height` the longer is 1."""

    levels: tuple[SpriteImage, ...]
    width: float
    height: float

    @cached_property
    def enlarged(self) -> SpriteImage:
        """The finest level, `ENLARGEMENT` times as large, with a sharpened outline, for large frames."""
        rgb, alpha = (
            cv2.resize(plane, None, fx=ENLARGEMENT, fy=ENLARGEMENT, interpolation=cv2.INTER_CUBIC)
            for plane in self._finest
        )
        sharp = np.clip((alpha - 0.5) * ENLARGEMENT / 2 + 0.5, 0.0, 1.0)
        rgb = np.clip(rgb * (sharp / np.maximum(alpha, 1e-3))[..., None], 0.0, 255.0)
        edge = ENLARGEMENT - 1
        return SpriteImage(*(np.ascontiguousarray(plane[edge:-edge, edge:-edge]) for plane in (rgb, sharp)))

    @property
    def _finest(self) -> tuple[np.ndarray, np.ndarray]:
        return self.levels[0].rgb, self.levels[0].alpha

    def level(self, size_px: float) -> SpriteImage:
        """The coarsest level that is at least `size_px` long, else the finest or the enlarged one."""
        longest = max(self.levels[0].alpha.shape) - 2
        if size_px > ENLARGE_FROM * longest:
            return self.enlarged
        steps = math.log(longest / size_px) / math.log(LEVEL_RATIO) if size_px > 0 else len(self.levels)
        return self.levels[min(max(int(steps), 0), len(self.levels) - 1)]


@cache
def _atlas() -> tuple[np.ndarray, dict[str, int]]:
    assets = files("kinema.worlds.stage") / "assets"
    pixels = cv2.imdecode(
        np.frombuffer((assets / "sprites_fluent_682_64.png").read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert pixels is not None, "the atlas of sprites in the package is damaged"
    names = json.loads((assets / "sprites_fluent_682.json").read_text())
    return pixels, {name: index for index, name in enumerate(names)}


@cache
def sprite(noun: str) -> Sprite:
    """The sprite of the noun, upright and cropped to its drawn pixels."""
    row = NOUNS[noun]
    pixels, index = _atlas()
    y, x = divmod(index[row.sprite], COLUMNS)
    cell = pixels[y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL].astype(np.float32)
    alpha = cell[..., 3:] / 255.0
    picture = np.concatenate([cell[..., 2::-1] * alpha, alpha], axis=-1)
    if row.turn:
        pad = CELL // 4
        picture = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)))
        middle = (CELL / 2 + pad - 0.5,) * 2
        picture = cv2.warpAffine(
            picture,
            cv2.getRotationMatrix2D(middle, -row.turn, 1.0),
            picture.shape[1::-1],
            flags=cv2.INTER_CUBIC,
        )
        picture = np.clip(picture, 0.0, [255.0, 255.0, 255.0, 1.0]).astype(np.float32)
    drawn = picture[..., 3] > 0.1
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    h, w = picture.shape[:2]
    longest = max(h, w)
    levels, size = [], float(longest)
    while size >= 6:
        shape = max(1, round(w * size / longest)), max(1, round(h * size / longest))
        scaled = picture if size == longest else cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
        padded = np.pad(scaled, ((1, 1), (1, 1), (0, 0)))
        levels.append(
            SpriteImage(np.ascontiguousarray(padded[..., :3]), np.ascontiguousarray(padded[..., 3]))
        )
        size /= LEVEL_RATIO
    return Sprite(tuple(levels), w / longest, h / longest)


@dataclass(frozen=True)
class Placement:
    """The pixels of an image that a sprite covers, and the matrix that maps the sprite to them."""

    left: int
    right: int
    top: int
    bottom: int
    matrix: np.ndarray
    flags: int

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The view of those pixels."""
        return image[self.top : self.bottom, self.left : self.right]

    def warp(self, plane: np.ndarray) -> np.ndarray:
        """The sprite's colours or alpha, mapped to those pixels."""
        return cv2.warpAffine(
            plane, self.matrix, (self.right - self.left, self.bottom - self.top), flags=self.flags
        )


def place_sprite(
    shape: tuple[int, ...],
    image_shape: tuple[int, ...],
    centre: tuple[float, float],
    extent: tuple[float, float],
    degrees: float,
) -> Placement | None:
    """The placement of a sprite of `shape` in an image of `image_shape`, or None if it is entirely outside.

    `centre` and `extent` (width, height) are in pixels, `degrees` are clockwise. A negative width mirrors the
    sprite.
    """
    sx, sy = extent[0] / (shape[1] - 2), extent[1] / (shape[0] - 2)
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    half_x = 0.5 * (abs(c * extent[0]) + abs(s * extent[1])) + 1.5
    half_y = 0.5 * (abs(s * extent[0]) + abs(c * extent[1])) + 1.5
    left, right = max(0, int(centre[0] - half_x)), min(image_shape[1], int(centre[0] + half_x) + 2)
    top, bottom = max(0, int(centre[1] - half_y)), min(image_shape[0], int(centre[1] + half_y) + 2)
    if left >= right or top >= bottom:
        return None
    a, b, d, e = c * sx, -s * sy, s * sx, c * sy
    middle_x, middle_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    matrix = np.array(
        (
            (a, b, centre[0] - left - 0.5 - a * middle_x - b * middle_y),
            (d, e, centre[1] - top - 0.5 - d * middle_x - e * middle_y),
        )
    )
    return Placement(left, right, top, bottom, matrix, cv2.INTER_CUBIC if sy > 1.05 else cv2.INTER_LINEAR)


def composite(
    image: np.ndarray,
    drawn: SpriteImage,
    centre: tuple[float, float],
    extent: tuple[float, float],
    degrees: float,
) -> None:
    """Draw a sprite onto `image` (float32 (h, w, 3), 0 to 255) in place. Only its bounding box is touched."""
    placement = place_sprite(drawn.alpha.shape, image.shape, centre, extent, degrees)
    if placement is not None:
        box = placement.crop(image)
        _attenuate(box, placement.warp(drawn.alpha))
        cv2.add(box, placement.warp(drawn.rgb), dst=box)


def darken(
    image: np.ndarray,
    blob: np.ndarray,
    strength: float,
    centre: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    """Darken `image` in place under a soft `blob` (alpha with a transparent border)."""
    placement = place_sprite(blob.shape, image.shape, centre, extent, 0.0)
    if placement is not None:
        _attenuate(placement.crop(image), strength * placement.warp(blob))


def _attenuate(box: np.ndarray, alpha: np.ndarray) -> None:
    clear = np.maximum(1.0 - alpha, 0.0)
    cv2.multiply(box, cv2.cvtColor(clear, cv2.COLOR_GRAY2RGB), dst=box)
