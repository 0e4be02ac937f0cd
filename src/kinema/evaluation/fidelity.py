"""How much of a picture is left: PSNR of all pixels and of the objects', edges relative to the renderer's,
and nouns that templates find.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from kinema.errors import ConfigError
from kinema.evaluation.samples import FIRST_SEED, ClipFormat
from kinema.evaluation.templates import FRAME_STEP, allowed_by, match
from kinema.worlds import HasObjectMasks, World

MASK_MARGIN = 1
"""Pixels by which the mask of an object is grown before its PSNR is measured."""


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
