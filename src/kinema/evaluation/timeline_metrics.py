"""Metrics of one timeline result, compared with the true clip of a world and with stated limits.

Errors are mean absolute differences of frames, in levels of 255. A good join is invisible: its error equals
that of other neighbouring frames. A frozen video has no visible joins either, so motion is measured too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from kinema.evaluation.physics import check_law
from kinema.evaluation.trust import noun_in
from kinema.generation.output.blend import MAX_BLENDED
from kinema.generation.output.quality import MOTION_FLOOR, neighbour_error
from kinema.models.oracle import Oracle
from kinema.shapes import UInt8
from kinema.worlds import Clip

MIN_VISIBLE = 0.5
"""Fraction of an object inside the frame from which on its position is compared."""
MIN_ERROR = 1e-3
"""Smallest divisor of a ratio of errors, in levels."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of one result. A metric that does not apply to the case is None."""

    MAX: ClassVar[Mapping[str, float]] = {}
    """Upper limits of a good result."""
    MIN: ClassVar[Mapping[str, float]] = {}
    """Lower limits of a good result; 1 requires a boolean to be True."""

    @property
    def is_good(self) -> bool:
        """Whether every metric is within its limits."""
        return all(is_within_limits(self, name) for name in (*self.MAX, *self.MIN))


def is_within_limits(metrics: Metrics, name: str) -> bool:
    """Whether the metric `name` is within its limits. None is."""
    value = getattr(metrics, name)
    return value is None or metrics.MIN.get(name, -np.inf) <= value <= metrics.MAX.get(name, np.inf)


@dataclass(frozen=True)
class JoinMetrics(Metrics):
    """Metrics of a result that continues known frames.

    Ratios to true frames are None where these do not move.
    """

    MAX: ClassVar[Mapping[str, float]] = {"seam": 1.5}
    MIN: ClassVar[Mapping[str, float]] = {"motion": 0.5, "kept": 1}
    seam: float
    """The error at the worst join, relative to the median error of neighbouring frames of the result."""
    motion: float | None
    """Mean error of neighbouring generated frames, relative to the true frames."""
    motion_ceiling: float | None
    """The same for the true frames after a VAE round trip, whose blur reduces motion: the model's best."""
    kept: bool
    """Whether every known frame is unchanged, bit for bit."""
    blend: float
    """Largest error from a known frame through the blended frames beside it, relative to the same median."""
    truth: float | None
    """Mean error of the generated frames to the true ones, relative to that of a frozen frame."""
    noun: bool
    """Whether the oracle reads the clip's noun in the generated frames alone."""
    place: float | None
    """Mean distance of the object from its true position in the generated frames, in frame heights.

    None if it is never visible.
    """
    verb: bool
    """Whether the oracle reads the clip's verb in the whole result."""
    direction: bool | None
    """Whether the oracle reads the clip's direction (None if it has none)."""
    law: bool | None
    """Whether the result keeps the physical law of its verb (None if it has none)."""


@dataclass(frozen=True)
class LoopMetrics(Metrics):
    """Metrics of one loop."""

    MAX: ClassVar[Mapping[str, float]] = {"seam": 1.5, "largest": 1.0}
    MIN: ClassVar[Mapping[str, float]] = {"motion": 0.5}
    seam: float
    """Error from the last frame to the first, relative to the median error of neighbouring frames."""
    largest: float
    """The same, relative to the largest error of neighbouring frames."""
    motion: float
    """Mean error of neighbouring frames, relative to a non-looping video of the same prompt and seed."""
    noun: bool
    """Whether the oracle reads the prompt's noun."""


@dataclass(frozen=True)
class EditMetrics(Metrics):
    """Metrics of one edit of a region."""

    MIN: ClassVar[Mapping[str, float]] = {"outside": 1, "inside": 1}
    outside: bool
    """Whether every pixel outside the region is unchanged, bit for bit."""
    inside: bool
    """Whether the oracle reads the requested noun or ground in the result."""
    noun: bool | None
    """The same if a noun was requested, else None."""
    ground: bool | None
    """The same if a ground was requested, else None."""
    change: float
    """Mean change inside the region, in levels."""


@dataclass(frozen=True)
class LongMetrics(Metrics):
    """Metrics of a long video, and of one that is made by extending decoded pixels (the plain extension)."""

    MIN: ClassVar[Mapping[str, float]] = {"noun": 1, "drift": 3.0}
    noun: bool | None
    """Whether the oracle reads the noun in the last frames. None if it does not read it in the first ones."""
    plain_noun: bool | None
    """The same for the plain extension."""
    drift: float
    """Drift of the plain extension relative to ours, the median over the slopes of the drift report."""


def measure_join(
    frames: UInt8[np.ndarray, "f h w 3"],
    clip: Clip,
    known: Sequence[slice],
    new: slice,
    oracle: Oracle,
    *,
    asked: Mapping[str, str],
    round_trip: UInt8[np.ndarray, "f h w 3"],
) -> JoinMetrics:
    """Metrics of a result that was given the frames `known` of `clip` and generated the frames `new`.

    `asked` has the slots that the prompt determines, and `round_trip` is the true clip after encoding and
    decoding by the model's VAE.
    """
    truth = clip.frames
    first, stop, _ = new.indices(len(frames))
    errors = [neighbour_error(a, b) for a, b in pairwise(frames)]
    median = max(float(np.median(errors)), MIN_ERROR)

    at_joins = [errors[index - 1] for index in (first, stop) if 0 < index < len(frames)]
    blended = errors[first - 1 : first + MAX_BLENDED] if first else []
    blended += errors[max(0, stop - 1 - MAX_BLENDED) : stop] if stop < len(frames) else []

    true_motion = motion(truth[new])
    has_motion = true_motion >= MOTION_FLOOR
    frozen = frames[first - 1] if first else frames[stop]
    error = float(np.mean([neighbour_error(a, b) for a, b in zip(frames[new], truth[new])]))
    frozen_error = float(np.mean([neighbour_error(frozen, b) for b in truth[new]]))

    (reading,) = oracle.read([frames], clip.fps)
    tracks = {name: np.array(values) for name, values in clip.truth["objects"][0]["tracks"].items()}
    is_visible = np.zeros(len(frames), bool)
    is_visible[new] = tracks["visible"][new] >= MIN_VISIBLE
    distance = np.hypot(reading.x[:, 0] - tracks["x"], reading.y[:, 0] - tracks["y"])

    law = check_law(oracle, frames, reading, clip.truth, clip.fps)
    return JoinMetrics(
        seam=max(at_joins) / median,
        motion=motion(frames[new]) / true_motion if has_motion else None,
        motion_ceiling=motion(round_trip[new]) / true_motion if has_motion else None,
        kept=all(np.array_equal(frames[span], truth[span]) for span in known),
        blend=max(blended) / median,
        truth=error / max(frozen_error, MIN_ERROR) if has_motion else None,
        noun=noun_in(oracle, frames[new]) == asked["noun"],
        place=float(distance[is_visible].mean()) if is_visible.any() else None,
        verb=reading.answers["verb"] == asked["verb"],
        direction=reading.answers["direction"] == asked["direction"] if "direction" in asked else None,
        law=None if law is None else law.is_kept,
    )


def measure_loop(
    loop: UInt8[np.ndarray, "f h w 3"], plain: UInt8[np.ndarray, "n h w 3"], noun: str, oracle: Oracle
) -> LoopMetrics:
    """Metrics of a loop, compared with a non-looping video of the same prompt."""
    errors = [neighbour_error(a, b) for a, b in pairwise(loop)]
    seam = neighbour_error(loop[-1], loop[0])
    return LoopMetrics(
        seam=seam / max(float(np.median(errors)), MIN_ERROR),
        largest=seam / max(*errors, MIN_ERROR),
        motion=motion(loop) / max(motion(plain), MIN_ERROR),
        noun=noun_in(oracle, loop) == noun,
    )


def measure_edit(
    frames: UInt8[np.ndarray, "f h w 3"],
    clip: Clip,
    region: tuple[int, int, int, int],
    slot: str,
    value: str,
    oracle: Oracle,
    fps: float,
) -> EditMetrics:
    """Metrics of an edit that requested `value` for `slot` (noun or ground) inside `region`.

    The region is x, y, width and height in pixels."""
    x, y, w, h = region
    inside = np.zeros(clip.frames.shape[1:3], bool)
    inside[y : y + h, x : x + w] = True

    (reading,) = oracle.read([frames], fps)
    is_shown = reading.answers[slot] == value
    return EditMetrics(
        outside=np.array_equal(frames[:, ~inside], clip.frames[:, ~inside]),
        inside=is_shown,
        noun=is_shown if slot == "noun" else None,
        ground=is_shown if slot == "ground" else None,
        change=float(np.abs(frames[:, inside].astype(int) - clip.frames[:, inside]).mean()),
    )


def measure_long(
    ours: UInt8[np.ndarray, "f h w 3"],
    plain: UInt8[np.ndarray, "f h w 3"],
    slopes: Mapping[str, float],
    plain_slopes: Mapping[str, float],
    noun: str,
    oracle: Oracle,
    num_frames: int,
) -> LongMetrics:
    """Metrics of a long video and a plain extension. The noun is read in the first and last `num_frames`."""

    def keeps_noun(frames: np.ndarray) -> bool | None:
        if noun_in(oracle, frames[:num_frames]) != noun:
            return None
        return noun_in(oracle, frames[-num_frames:]) == noun

    return LongMetrics(keeps_noun(ours), keeps_noun(plain), drift_ratio(slopes, plain_slopes))


def drift_ratio(slopes: Mapping[str, float], plain_slopes: Mapping[str, float]) -> float:
    """The slopes of the plain extension relative to ours: the median over the names that both have."""
    pairs = [(abs(plain_slopes[name]), abs(slope)) for name, slope in slopes.items() if name in plain_slopes]
    return float(np.median([plain / max(own, 1e-6) for plain, own in pairs]))


def motion(frames: UInt8[np.ndarray, "f h w 3"]) -> float:
    """The mean error between neighbouring frames."""
    return float(np.mean([neighbour_error(a, b) for a, b in pairwise(frames)]))


def summarize(results: Sequence[Metrics]) -> dict[str, Any]:
    """Scores of one task as plain JSON: `cases`, `good` (share within all limits), and an object per metric.

    A metric has `num` cases to which it applies, the `median` of numbers or the `share` of True, and, for a
    number with a limit, the share of cases `within` it.
    """
    kind = type(results[0])
    summary: dict[str, Any] = {
        "cases": len(results),
        "good": float(np.mean([result.is_good for result in results])),
    }
    for field in fields(kind):
        values = [asdict(result)[field.name] for result in results]
        known = [float(value) for value in values if value is not None]
        is_boolean = any(isinstance(value, bool) for value in values)

        scores: dict[str, Any] = {"num": len(known)}
        if known and is_boolean:
            scores["share"] = float(np.mean(known))
        elif known:
            scores["median"] = float(np.median(known))
        if not is_boolean and (field.name in kind.MAX or field.name in kind.MIN):
            scores["within"] = float(np.mean([is_within_limits(result, field.name) for result in results]))
        summary[field.name] = scores
    return summary
