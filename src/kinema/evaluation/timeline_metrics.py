"""The numbers of one result of the timeline, from its frames: beside the true clip of a world, and against stated ideals.

Errors are mean absolute differences of frames, in levels of 255. The ideal of a join is that it does not show: its error is that
between other neighbouring frames. A picture that stands still has no visible joins either, so motion is measured beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from kinema.evaluation.physics import is_lawful
from kinema.evaluation.trust import is_said, noun_in
from kinema.generation.output.blend import BLENDED
from kinema.generation.output.quality import MOTION_FLOOR, neighbour_error
from kinema.models.oracle import Oracle
from kinema.worlds import Clip

SEEN = 0.5
"""Least share of an object inside the picture for its place to be compared."""


@dataclass(frozen=True)
class Numbers:
    """What is measured of one result. A number is None where the case does not ask for it."""

    MOST: ClassVar[Mapping[str, float]] = {}
    """The greatest value that each number may have in a good result."""
    LEAST: ClassVar[Mapping[str, float]] = {}
    """The least value; for a yes or no, 1 asks for yes."""

    @property
    def is_good(self) -> bool:
        """Whether every number that is limited is within its limits."""
        return all(within(self, name) for name in (*self.MOST, *self.LEAST))


def within(numbers: Numbers, name: str) -> bool:
    """Whether a number is within its limits, as one that is None is."""
    value = getattr(numbers, name)
    return value is None or numbers.LEAST.get(name, -np.inf) <= value <= numbers.MOST.get(name, np.inf)


@dataclass(frozen=True)
class Joined(Numbers):
    """How well one result that continues known frames does so."""

    MOST: ClassVar[Mapping[str, float]] = {"seam": 1.5}
    LEAST: ClassVar[Mapping[str, float]] = {"motion": 0.5, "kept": 1}
    seam: float
    """Error at the worst join over the median error of neighbouring frames of the result."""
    motion: float | None
    """Mean error of neighbouring frames in the new part, over that of the true frames there; None where those stand still."""
    motion_ceiling: float | None
    """The same of the true frames after the model's VAE: blur makes a video move less, and no model on top of it can know better."""
    kept: bool
    """Whether every frame that was to be kept came back bit for bit."""
    blend: float
    """The largest error from a kept frame through the blended ones beside it, over the same median."""
    truth: float | None
    """Mean error of the new frames to the true ones, over that of a picture held still: below 1 is better than freezing; None as above."""
    noun: bool
    """Whether the oracle reads the clip's noun in the new frames alone."""
    place: float | None
    """How far from its true place the oracle finds the object in the new frames, in heights of the picture."""
    verb: bool
    """Whether the oracle reads the clip's verb in the whole result."""
    direction: bool | None
    """The same of its direction, where it has one."""
    law: bool | None
    """Whether the whole result keeps the physical law of its verb (`kinema.evaluation.physics`), where it has one."""


@dataclass(frozen=True)
class Looped(Numbers):
    """How well one loop closes."""

    MOST: ClassVar[Mapping[str, float]] = {"seam": 1.5, "largest": 1.0}
    LEAST: ClassVar[Mapping[str, float]] = {"motion": 0.5}
    seam: float
    """Error from the last frame to the first over the median error of neighbouring frames."""
    largest: float
    """The same over the largest error of neighbouring frames."""
    motion: float
    """Mean error of neighbouring frames, over that of a video of the same words and seed that is no loop."""
    noun: bool
    """Whether the oracle reads the noun that was asked for."""


@dataclass(frozen=True)
class Edited(Numbers):
    """What one edit of a region did."""

    LEAST: ClassVar[Mapping[str, float]] = {"outside": 1, "inside": 1}
    outside: bool
    """Whether every pixel outside the region is the clip's, bit for bit."""
    inside: bool
    """Whether the oracle reads what was asked for, another noun or another ground, in the result."""
    noun: bool | None
    """The same, where a noun was asked for."""
    ground: bool | None
    """The same, where a ground was asked for."""
    change: float
    """Mean change inside the region, in levels."""


@dataclass(frozen=True)
class Lasting(Numbers):
    """What is left of a long video's beginning at its end, and of one that is extended from its decoded pixels."""

    LEAST: ClassVar[Mapping[str, float]] = {"noun": 1, "drift": 3.0}
    noun: bool | None
    """Whether the oracle reads the noun in the last two seconds; None where it did not in the first two."""
    plain_noun: bool | None
    """The same of the plain extension."""
    drift: float
    """Drift of the plain extension over ours, the median over the numbers of the drift report: 3 is three times slower drift."""


def measure_join(
    frames: np.ndarray,
    clip: Clip,
    known: Sequence[slice],
    new: slice,
    oracle: Oracle,
    *,
    round_trip: np.ndarray,
) -> Joined:
    """The numbers of a result beside the true clip of the same length, of which it was given the frames `known`.

    `round_trip` is the true clip after the model's VAE.
    """
    truth = clip.frames
    errors = [neighbour_error(a, b) for a, b in pairwise(frames)]
    first, stop, _ = new.indices(len(frames))
    at_joins = [errors[index - 1] for index in (first, stop) if 0 < index < len(frames)]
    blended = errors[first - 1 : first + BLENDED] if first else []
    blended += errors[max(0, stop - 1 - BLENDED) : stop] if stop < len(frames) else []
    median = max(float(np.median(errors)), 1e-3)
    held = frames[first - 1] if first else frames[stop]
    error = float(np.mean([neighbour_error(a, b) for a, b in zip(frames[new], truth[new])]))
    frozen = float(np.mean([neighbour_error(held, b) for b in truth[new]]))
    true_motion = motion(truth[new])
    has_motion = true_motion >= MOTION_FLOOR
    (reading,) = oracle.read([frames], clip.fps)
    tracks = {name: np.array(values) for name, values in clip.truth["objects"][0]["tracks"].items()}
    seen = np.zeros(len(frames), bool)
    seen[new] = tracks["visible"][new] >= SEEN
    away = np.hypot(reading.x[:, 0] - tracks["x"], reading.y[:, 0] - tracks["y"])
    return Joined(
        seam=max(at_joins) / median,
        motion=motion(frames[new]) / true_motion if has_motion else None,
        motion_ceiling=motion(round_trip[new]) / true_motion if has_motion else None,
        kept=all(np.array_equal(frames[part], truth[part]) for part in known),
        blend=max(blended) / median,
        truth=error / max(frozen, 1e-3) if has_motion else None,
        noun=noun_in(oracle, frames[new]) == clip.truth["noun"],
        place=float(away[seen].mean()) if seen.any() else None,
        verb=reading.answers["verb"] == clip.truth["verb"],
        direction=reading.answers["direction"] == clip.truth["direction"]
        if is_said("direction", clip.truth)
        else None,
        law=is_lawful(oracle, frames, reading, clip.truth, clip.fps),
    )


def measure_loop(loop: np.ndarray, plain: np.ndarray, noun: str, oracle: Oracle) -> Looped:
    """The numbers of a loop, beside a video of the same words that is none."""
    errors = [neighbour_error(a, b) for a, b in pairwise(loop)]
    seam = neighbour_error(loop[-1], loop[0])
    return Looped(
        seam=seam / max(float(np.median(errors)), 1e-3),
        largest=seam / max(*errors, 1e-3),
        motion=motion(loop) / max(motion(plain), 1e-3),
        noun=noun_in(oracle, loop) == noun,
    )


def measure_edit(
    frames: np.ndarray,
    clip: Clip,
    region: tuple[int, int, int, int],
    slot: str,
    asked: str,
    oracle: Oracle,
    fps: float,
) -> Edited:
    """The numbers of a result in whose `region` (x, y, width, height) the clip was to have `asked` as its noun or ground."""
    x, y, w, h = region
    inside = np.zeros(clip.frames.shape[1:3], bool)
    inside[y : y + h, x : x + w] = True
    (reading,) = oracle.read([frames], fps)
    is_there = reading.answers[slot] == asked
    return Edited(
        outside=np.array_equal(frames[:, ~inside], clip.frames[:, ~inside]),
        inside=is_there,
        noun=is_there if slot == "noun" else None,
        ground=is_there if slot == "ground" else None,
        change=float(np.abs(frames[:, inside].astype(int) - clip.frames[:, inside]).mean()),
    )


def measure_lasting(
    ours: np.ndarray,
    plain: np.ndarray,
    slopes: Mapping[str, float],
    plain_slopes: Mapping[str, float],
    noun: str,
    oracle: Oracle,
    num_frames: int,
) -> Lasting:
    """The numbers of a long video, read in its first and last `num_frames`, and of a plain extension with its slopes."""

    def lasts(frames: np.ndarray) -> bool | None:
        return (
            noun_in(oracle, frames[-num_frames:]) == noun
            if noun_in(oracle, frames[:num_frames]) == noun
            else None
        )

    return Lasting(lasts(ours), lasts(plain), drift_ratio(slopes, plain_slopes))


def drift_ratio(slopes: Mapping[str, float], plain_slopes: Mapping[str, float]) -> float:
    """How many times as fast the second drifts, as the median over the numbers of both."""
    pairs = [(abs(plain_slopes[name]), abs(slope)) for name, slope in slopes.items() if name in plain_slopes]
    return float(np.median([plain / max(own, 1e-6) for plain, own in pairs]))


def motion(frames: np.ndarray) -> float:
    """The mean error between neighbouring frames."""
    return float(np.mean([neighbour_error(a, b) for a, b in pairwise(frames)]))


def row(results: Sequence[Numbers]) -> dict[str, Any]:
    """The figures of one task, plain JSON: of numbers the median, of a yes or no the share, and the shares within the limits."""
    kind = results[0]
    found: dict[str, Any] = {
        "cases": len(results),
        "good": float(np.mean([result.is_good for result in results])),
    }
    for field in fields(kind):
        known = [float(value) for result in results if (value := asdict(result)[field.name]) is not None]
        is_share = any(isinstance(getattr(result, field.name), bool) for result in results)
        figures: dict[str, Any] = {"num": len(known)}
        if known:
            figures["share" if is_share else "median"] = float(
                np.mean(known) if is_share else np.median(known)
            )
        if not is_share and (field.name in kind.MOST or field.name in kind.LEAST):
            figures["within"] = float(np.mean([within(result, field.name) for result in results]))
        found[field.name] = figures
    return found
