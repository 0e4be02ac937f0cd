"""How much of a picture is left: PSNR of all pixels and of the objects', edges relative to the renderer's,
and nouns that templates find.

Templates need no training: they are the pictures of a world's nouns, compared with frames under their own
masks. No decoded clip influenced them, so blur and wrong shapes count, which a trained oracle learns to
read through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kinema.errors import ConfigError, RequestError
from kinema.evaluation.samples import FIRST_SEED, ClipFormat
from kinema.shapes import Float
from kinema.worlds import HasObjectMasks, World
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.sprites import SpriteImage, place_sprite, sprite

MASK_MARGIN = 1
"""Pixels by which the mask of an object is grown before its PSNR is measured."""
FRAME_STEP = 4
"""Every so many frames of a clip are read."""
SIZE_STEPS = (0.94, 1.0, 1.06)
"""Sizes that are tried, relative to the true one: a stage draws each size class within 3 %."""
TURN_STEP = 15.0
"""Degrees between the angles that are tried for an object that turns."""


@dataclass(frozen=True)
class Allowed:
    """The sizes in pixels (of the longer side) and the angles in degrees, clockwise, at which templates are
    tried.
    """

    sizes: tuple[float, ...]
    angles: tuple[float, ...]


@dataclass(frozen=True)
class Match:
    """The noun whose template fits best, and the score of each noun's best fit: 0 for an equal picture, 1 for
    an unrelated one.
    """

    noun: str
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        """The winner's score."""
        return self.scores[self.noun]


def allowed_by(truth: Mapping[str, Any], height: int) -> Allowed:
    """What the truth of a clip of one object allows; `height` in pixels. An object that rolls or spins is
    tried at every angle.

    Raises `RequestError` for a truth of several objects: a template says nothing of which is meant.
    """
    if len(truth["objects"]) != 1:
        raise RequestError(
            f"the clip has {len(truth['objects'])} objects; templates are matched in clips of one"
        )
    tracks = truth["objects"][0]["tracks"]
    size = float(np.mean(tracks["size"])) * height
    tilt = float(np.abs(tracks["degrees"]).max())
    if tilt > TURN_STEP:
        return Allowed((size,), tuple(np.arange(0.0, 360.0, TURN_STEP).tolist()))
    sizes = tuple(round(factor * size, 1) for factor in SIZE_STEPS)
    return Allowed(sizes, (0.0,) if tilt < 1 else (-round(tilt, 1), 0.0, round(tilt, 1)))


def match(frames: np.ndarray, nouns: Sequence[str], allowed: Allowed) -> Match:
    """The noun in frames, uint8 (f, h, w, 3), of which every `FRAME_STEP`th is read.

    A template (weights m, colours T) has at a place in a frame I the score sqrt(sum m |I - T|^2 / (sum m |T -
    mean T|^2 + sum m |I - mean I|^2)), with means over pixels and channels. A noun has in a frame the least
    score of its templates, mirrored ones too, over all places where they lie wholly inside, and in a clip the
    mean over frames. Raises `RequestError` for a noun without a picture.
    """
    if missing := sorted(set(nouns) - set(NOUNS)):
        raise RequestError(
            f"no pictures of {', '.join(missing)}: templates exist for the nouns of the stage only"
        )
    images = _spectra(torch.from_numpy(frames[::FRAME_STEP]).movedim(-1, 1).float() / 255)
    height, width = frames.shape[1:3]
    scores = {
        noun: float(_best(images, noun, allowed, height, width).clamp_min(0).sqrt().mean()) for noun in nouns
    }
    return Match(min(scores, key=scores.__getitem__), scores)


@dataclass(frozen=True, eq=False)
class _Templates:
    """Templates of one noun: extents (h, w), numbers that belong to each, and the conjugate spectra of
    weights and weighted colours.
    """

    extents: tuple[tuple[int, int], ...]
    weight: Float[Tensor, "k"]
    energy: Float[Tensor, "k"]
    variation: Float[Tensor, "k"]
    weights: Tensor
    colours: Tensor


def _spectra(frames: Float[Tensor, "f 3 h w"]) -> tuple[Tensor, Tensor]:
    """Spectra of the frames (f, 3, h, w // 2 + 1), and of the sum of their squared channels."""
    return torch.fft.rfft2(frames), torch.fft.rfft2(frames.square().sum(dim=1))


def _best(
    images: tuple[Tensor, Tensor], noun: str, allowed: Allowed, height: int, width: int
) -> Float[Tensor, "f"]:
    """The least squared score of the noun's templates in each frame; infinite where none lies inside."""
    templates = _templates(noun, allowed, height, width)
    colours, squares = images

    # Correlations at all places at once. They wrap around; only places where a template lies inside are read.
    def at_places(spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum, s=(height, width))

    product = at_places(torch.einsum("fchw,kchw->fkhw", colours, templates.colours))
    square = at_places(torch.einsum("fhw,khw->fkhw", squares, templates.weights))
    total = at_places(torch.einsum("fchw,khw->fkhw", colours, templates.weights))

    per_template = (1, -1, 1, 1)
    error = square - 2 * product + templates.energy.view(per_template)
    variation = square - total.square() / (3 * templates.weight.view(per_template))
    score = error / (variation.clamp_min(0) + templates.variation.view(per_template))
    best = torch.full((score.shape[0],), float("inf"))
    for k, (h, w) in enumerate(templates.extents):
        if h <= height and w <= width:
            best = torch.minimum(best, score[:, k, : height - h + 1, : width - w + 1].amin(dim=(1, 2)))
    return best


@lru_cache(maxsize=32)
def _templates(noun: str, allowed: Allowed, height: int, width: int) -> _Templates:
    drawn = []
    for size in allowed.sizes:
        for degrees in allowed.angles:
            drawn += [_draw(noun, size, degrees, mirrored) for mirrored in (False, True)]
    fitting = [
        picture for picture in drawn if picture.alpha.shape[0] <= height and picture.alpha.shape[1] <= width
    ]
    weights = torch.zeros(len(fitting), height, width)
    colours = torch.zeros(len(fitting), 3, height, width)
    energy, variation = torch.zeros(len(fitting)), torch.zeros(len(fitting))
    for k, picture in enumerate(fitting):
        h, w = picture.alpha.shape
        weights[k, :h, :w] = torch.from_numpy(picture.alpha)
        colours[k, :, :h, :w] = torch.from_numpy(picture.rgb).movedim(-1, 0) / 255
        energy[k] = (colours[k].square().sum(dim=0) / weights[k].clamp_min(1e-6)).sum()
        variation[k] = energy[k] - colours[k].sum().square() / (3 * weights[k].sum())
    spectra = (torch.fft.rfft2(planes).conj() for planes in (weights, colours))
    return _Templates(
        tuple(p.alpha.shape for p in fitting), weights.sum(dim=(1, 2)), energy, variation, *spectra
    )


def _draw(noun: str, size: float, degrees: float, mirrored: bool) -> SpriteImage:
    """The picture of `noun` at this size in pixels and angle, cut to what is drawn."""
    drawn = sprite(noun)
    side = 2 * ceil(0.75 * size) + 4
    extent = (drawn.width * size * (-1 if mirrored else 1), drawn.height * size)
    level = drawn.level(size)
    where = place_sprite(level.alpha.shape, (side, side), (side / 2, side / 2), extent, degrees)
    assert where is not None, "the middle of a canvas is inside"
    alpha, rgb = where.warp(level.alpha), where.warp(level.rgb)
    rows, columns = np.flatnonzero((alpha > 0.02).any(1)), np.flatnonzero((alpha > 0.02).any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return SpriteImage(np.clip(rgb[box], 0, 255), np.clip(alpha[box], 0, 1))


@dataclass(frozen=True, eq=False)
class Reference:
    """A clip of the renderer, uint8 (f, h, w, 3), with the mask of its objects (f, h, w) and its truth."""

    frames: np.ndarray
    mask: np.ndarray
    truth: dict[str, Any]


@dataclass(frozen=True)
class Fidelity:
    """Figures of some clips; PSNRs in dB are of pooled squared errors, and None for clips that are not copies
    of others.

    `edge` is the mean edge energy and `edge_ratio` its ratio to that of the references. `found` of `num_read`
    clips have the right noun as the best template, whose mean score is `score` (0 perfect, 1 unrelated).
    """

    num: int
    psnr_db: float | None
    object_psnr_db: float | None
    edge: float
    edge_ratio: float
    found: int
    num_read: int
    score: float


def reference_clips(
    world: World, clip_format: ClipFormat, count: int, first_seed: int = FIRST_SEED["held_out"]
) -> list[Reference]:
    """The renderer's clips of `count` seeds from `first_seed` on.

    Raises `ConfigError` for a world without object masks.
    """
    if not isinstance(world, HasObjectMasks):
        raise ConfigError(f"the world '{world.name}' has no object masks, by which pictures are compared")
    size: dict[str, Any] = {
        "height": clip_format.height,
        "width": clip_format.width,
        "num_frames": clip_format.num_frames,
        "fps": clip_format.fps,
    }
    clips = []
    for seed in range(first_seed, first_seed + count):
        clip = world.clip(seed, **size)
        clips.append(Reference(clip.frames, world.object_mask(clip, **size), clip.truth))
    return clips


def edge_energy(frames: np.ndarray) -> float:
    """Standard deviation of the 4-neighbour Laplacian of the grey frames, uint8 (f, h, w, 3): the mean of
    every `FRAME_STEP`th frame.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[::FRAME_STEP]]
    return float(np.mean([cv2.Laplacian(frame, cv2.CV_32F, ksize=1).std() for frame in grey]))


@dataclass
class _Errors:
    """Sums of squared errors and the numbers that they are of."""

    total: float = 0.0
    count: int = 0

    def add(self, errors: np.ndarray) -> None:
        self.total += float(errors.sum())
        self.count += errors.size

    def psnr(self) -> float:
        return float(10 * np.log10(255**2 / max(self.total / max(self.count, 1), 1e-6)))


@dataclass
class FidelityMeter:
    """Collects clips beside their references. Raises `RequestError` from `add` when a noun has no picture.

    `are_copies` says that each clip shows what its reference shows, pixel by pixel. Templates are matched in
    the first `num_read` clips of one object, because that takes a second or more a clip; `nouns` are those
    that are told apart.
    """

    nouns: Sequence[str]
    are_copies: bool = True
    num_read: int = 24
    edges: list[tuple[float, float]] = field(default_factory=list)
    scores: list[tuple[bool, float]] = field(default_factory=list)
    all_errors: _Errors = field(default_factory=_Errors)
    object_errors: _Errors = field(default_factory=_Errors)

    def add(self, frames: np.ndarray, reference: Reference) -> None:
        """Measure one clip, uint8 (f, h, w, 3)."""
        self.edges.append((edge_energy(frames), edge_energy(reference.frames)))
        if self.are_copies:
            errors = np.square(frames.astype(np.float32) - reference.frames)
            side = 2 * MASK_MARGIN + 1
            grown = (
                np.stack(
                    [
                        cv2.dilate(plane.astype(np.uint8), np.ones((side, side), np.uint8))
                        for plane in reference.mask
                    ]
                )
                > 0
            )
            self.all_errors.add(errors)
            self.object_errors.add(errors[grown])
        if len(self.scores) < self.num_read and len(reference.truth["objects"]) == 1:
            found = match(frames, self.nouns, allowed_by(reference.truth, frames.shape[1]))
            self.scores.append((found.noun == reference.truth["noun"], found.score))

    def result(self) -> Fidelity:
        """The figures of the clips so far, of which there must be one or more."""
        assert self.edges, "clips are added before figures are read"
        edge, theirs = np.mean(self.edges, axis=0)
        return Fidelity(
            num=len(self.edges),
            psnr_db=self.all_errors.psnr() if self.are_copies else None,
            object_psnr_db=self.object_errors.psnr() if self.are_copies else None,
            edge=float(edge),
            edge_ratio=float(edge / theirs),
            found=sum(is_right for is_right, _ in self.scores),
            num_read=len(self.scores),
            score=float(np.mean([score for _, score in self.scores])) if self.scores else float("nan"),
        )
