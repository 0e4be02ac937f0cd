"""The tasks of the timeline, measured: on clips of a world, whose true continuation is known, and against stated ideals.

Errors are mean absolute differences of frames, in levels of 255. The ideal of a join is that it does not show: its error is that
between other neighbouring frames. A picture that stands still has no visible joins either, so motion is measured beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from kinema.generate import tasks
from kinema.generate.drift import neighbour_error
from kinema.generate.pipeline import Pipeline, Result
from kinema.generate.request import Request
from kinema.generate.tasks import Direction
from kinema.video import Video
from kinema.worlds.clip import Clip

SEAM_LIMIT = 1.5
"""Most that a join's error may be, in median errors between neighbouring frames, for the join to count as closed."""
MOTION_LIMIT = 0.5
"""Least motion, as a share of the true one, for a result not to count as frozen."""


@dataclass(frozen=True)
class Joined:
    """How well one result that continues known frames does so."""

    seam: float
    """Error at the worst join over the median error of neighbouring frames of the result."""
    motion: float
    """Mean error of neighbouring frames in the new part, over that of the true frames there."""
    truth: float
    """Mean error of the new frames to the true ones, over that of a picture held still: below 1 is better than freezing."""
    kept: bool
    """Whether every frame that was to be kept came back bit for bit."""

    @property
    def is_good(self) -> bool:
        """Whether the join is closed and something moves."""
        return self.seam <= SEAM_LIMIT and self.motion >= MOTION_LIMIT and self.kept


@dataclass(frozen=True)
class Looped:
    """How well one loop closes."""

    seam: float
    """Error from the last frame to the first over the median error of neighbouring frames."""
    largest: float
    """The same over the largest error of neighbouring frames."""
    motion: float
    """Mean error of neighbouring frames, over that of a video of the same words and seed that is no loop."""

    @property
    def is_good(self) -> bool:
        """Whether it closes without a jump, and moves."""
        return self.seam <= SEAM_LIMIT and self.largest <= 1 and self.motion >= MOTION_LIMIT


@dataclass(frozen=True)
class Edited:
    """What one edit of a region did."""

    outside: bool
    """Whether every pixel outside the region is the clip's, bit for bit."""
    inside: float
    """Mean change inside, in levels."""
    similarity: float
    """How much nearer the region is to the words that were asked for than it was, by the model's CLIP."""

    @property
    def is_good(self) -> bool:
        """Whether the rest is kept and the region has come nearer to the words."""
        return self.outside and self.similarity > 0


@dataclass(frozen=True)
class Drifted:
    """How fast a long video drifts, and how fast one does that is extended from its decoded pixels."""

    slopes: dict[str, float]
    plain_slopes: dict[str, float]

    @property
    def ratio(self) -> float:
        """Drift of plain extension over ours, as the median over the numbers of the report: 3 is three times slower drift."""
        pairs = [(abs(self.plain_slopes[name]), abs(slope)) for name, slope in self.slopes.items() if name in self.plain_slopes]
        return float(np.median([plain / max(own, 1e-6) for plain, own in pairs]))


def measure_extension(pipeline: Pipeline, clip: Clip, *, num_known: int, direction: Direction, **options: Any) -> Joined:
    """How `direction` "forward" or "backward" is continued from `num_known` frames of a world's clip, whose other frames are the truth."""
    num_new = len(clip.frames) - num_known
    known = slice(0, num_known) if direction == "forward" else slice(num_new, None)
    new = slice(num_known, None) if direction == "forward" else slice(0, num_new)
    video, seconds = Video(clip.frames[known], clip.fps), num_new / clip.fps
    request, inputs = tasks.extend(_fields(clip, options), video, seconds=seconds, direction=direction, fps=pipeline.manifest.fps)
    frames = pipeline.run(request, inputs=inputs).video.frames
    return _joined(frames, clip.frames, [known], new)


def measure_connection(pipeline: Pipeline, clip: Clip, *, num_known: int, **options: Any) -> Joined:
    """How the middle of a world's clip is made from its first and last `num_known` frames."""
    num_new = len(clip.frames) - 2 * num_known
    ends = slice(0, num_known), slice(len(clip.frames) - num_known, None)
    first, second = (Video(clip.frames[end], clip.fps) for end in ends)
    request, inputs = tasks.connect(_fields(clip, options), first, second, seconds=num_new / clip.fps, fps=pipeline.manifest.fps)
    frames = pipeline.run(request, inputs=inputs).video.frames
    return _joined(frames, clip.frames, list(ends), slice(num_known, num_known + num_new))


def measure_loop(pipeline: Pipeline, prompt: str, *, frames: int, **options: Any) -> Looped:
    """How a loop of those words closes."""
    request, _ = tasks.loop({"prompt": prompt, "frames": frames, **options}, fps=pipeline.manifest.fps)
    loop = pipeline.run(request).report["loop"]
    plain = pipeline.run(Request(prompt, frames=frames, **options)).video.frames
    return Looped(
        seam=loop["seam"] / max(loop["median"], 1e-3),
        largest=loop["seam"] / max(loop["largest"], 1e-3),
        motion=loop["motion"] / max(_motion(plain), 1e-3),
    )


def measure_region_edit(pipeline: Pipeline, clip: Clip, prompt: str, *, region: tuple[int, int, int, int], **options: Any) -> Edited:
    """What an edit of `region` to `prompt` did to a world's clip."""
    fields_ = {**_fields(clip, options), "prompt": prompt}
    video = Video(clip.frames, clip.fps)
    request, inputs = tasks.edit(fields_, video, strength=1.0, region=region, fps=pipeline.manifest.fps)
    frames = pipeline.run(request, inputs=inputs).video.frames
    x, y, w, h = region
    inside = np.zeros(clip.frames.shape[1:3], bool)
    inside[y : y + h, x : x + w] = True
    judge = pipeline.judges["clip_similarity"]
    before, after = (np.ascontiguousarray(shown[:, y : y + h, x : x + w]) for shown in (clip.frames, frames))
    return Edited(
        outside=np.array_equal(frames[:, ~inside], clip.frames[:, ~inside]),
        inside=float(np.abs(frames[:, inside].astype(int) - clip.frames[:, inside]).mean()),
        similarity=judge(after, prompt) - judge(before, prompt),
    )


def measure_drift(pipeline: Pipeline, prompt: str, *, seconds: float, **options: Any) -> Drifted:
    """How a long video drifts, beside one whose decoded end is encoded again for every stretch."""
    fps = pipeline.manifest.fps
    ours = pipeline.run(Request(prompt, seconds=seconds, **options))
    window = pipeline.manifest.frames[1]
    history, total = window // 2 // 4 * 4 + 1, ours.plan.frames
    frames = pipeline.run(Request(prompt, frames=window, **options)).video.frames
    while len(frames) < total:
        # Written to a file and read again in practice; here the tail is what the decoder gave, in uint8.
        tail = Video(frames[-history:].copy(), fps)
        request, inputs = tasks.extend({"prompt": prompt, **options}, tail, seconds=(window - history) / fps, fps=fps)
        frames = np.concatenate([frames, pipeline.run(request, inputs=inputs).video.frames[history:]])
    return Drifted(ours.report["slopes"], _slopes(ours, frames[:total], pipeline))


def rows(results: Sequence[Joined | Looped | Edited]) -> dict[str, float]:
    """The medians of the numbers of one task's cases, and the share of good cases."""
    values = {field.name: [float(asdict(result)[field.name]) for result in results] for field in fields(results[0])}
    row = {name: float(np.median(column)) for name, column in values.items()}
    return row | {"good": float(np.mean([result.is_good for result in results])), "cases": float(len(results))}


def _fields(clip: Clip, options: dict[str, Any]) -> dict[str, Any]:
    height, width = clip.frames.shape[1:3]
    return {"prompt": clip.captions["medium"], "width": width, "height": height, **options}


def _joined(frames: np.ndarray, truth: np.ndarray, known: Sequence[slice], new: slice) -> Joined:
    """The numbers of a result beside the truth of the same length."""
    errors = [neighbour_error(a, b) for a, b in pairwise(frames)]
    joins = [index for index in (new.start, new.stop if new.stop is not None else len(frames)) if 0 < index < len(frames)]
    at_joins = [errors[index - 1] for index in joins]
    held = frames[new.start - 1] if new.start else frames[new.stop]
    error = float(np.mean([neighbour_error(a, b) for a, b in zip(frames[new], truth[new])]))
    frozen = float(np.mean([neighbour_error(held, b) for b in truth[new]]))
    return Joined(
        seam=max(at_joins) / max(float(np.median(errors)), 1e-3),
        motion=_motion(frames[new]) / max(_motion(truth[new]), 1e-3),
        truth=error / max(frozen, 1e-3),
        kept=all(np.array_equal(frames[part], truth[part]) for part in known),
    )


def _motion(frames: np.ndarray) -> float:
    return float(np.mean([neighbour_error(a, b) for a, b in pairwise(frames)]))


def _slopes(ours: Result, frames: np.ndarray, pipeline: Pipeline) -> dict[str, float]:
    """The slopes of a drift report over the windows of `ours`, for other frames."""
    from kinema.generate.drift import Watch

    judges: dict[str, Callable[[np.ndarray, str], float]] = pipeline.judges
    watch = Watch(ours.plan, {}, judges)
    for _ in watch.over(iter(frames)):
        pass
    slopes: dict[str, float] = watch.report["slopes"]
    return slopes
