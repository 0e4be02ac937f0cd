"""Tasks as requests: each function describes one task by the clips that its result keeps or edits.

A task takes a request with the fields that do not depend on it (prompt, size, seed, sampler) and its clips,
and returns the request of the task with its inputs. Pipeline and samplers do not distinguish tasks. `fps` is
the model's rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from kinema.errors import RequestError
from kinema.generation.conditioning.clips import (
    MAX_SECONDS,
    ClipCondition,
    Inputs,
    TimedPrompt,
    content_hash,
)
from kinema.generation.request import Request
from kinema.video import Video
from kinema.video.resize import Fit

Direction = Literal["forward", "backward", "both"]


class TaskRequest(NamedTuple):
    """A request, and the clips and pictures that its conditions name."""

    request: Request
    inputs: Inputs


@dataclass(frozen=True)
class Shot:
    """An entry of a storyboard: a prompt, a picture or clip, or both, at one time."""

    at_s: float
    prompt: str | None = None
    clip: Video | None = None


def pictures(
    request: Request,
    *,
    first: Video | None = None,
    last: Video | None = None,
    keyframes: Sequence[tuple[float, Video]] = (),
    fit: Fit = "crop",
) -> TaskRequest:
    """A video that begins with the picture `first`, ends with `last`, and shows each of `keyframes` at its
    second.

    Raises `RequestError` without a picture, and for a clip in place of one.
    """
    stills: list[tuple[float | None, Video]] = [] if first is None else [(0.0, first)]
    stills += [*keyframes, *([] if last is None else [(None, last)])]
    if not stills:
        raise RequestError("no picture was given: give the first, the last, or a keyframe between them")

    inputs: dict[str, Video] = {}
    conditions = []
    for at_s, still in stills:
        if still.num_frames != 1:
            raise RequestError(
                f"a clip of {still.num_frames} frames was given in place of a picture: use extend, or one "
                "of its frames"
            )
        media = content_hash(still)
        inputs[media] = still
        conditions.append(ClipCondition(media, at_s=at_s, fit=fit))
    return TaskRequest(replace(request, conditions=tuple(conditions)), inputs)


def extend(
    request: Request,
    clip: Video,
    *,
    seconds: float,
    direction: Direction = "forward",
    fps: float,
    fit: Fit = "crop",
) -> TaskRequest:
    """The clip, made longer by `seconds` at its end, at its start, or at both."""
    length, added = _length(clip, fps), _frames(seconds, fps)
    before = 0 if direction == "forward" else added
    total = length + added * (2 if direction == "both" else 1)
    condition = ClipCondition(content_hash(clip), at_s=before / fps, seconds=length / fps, fit=fit)
    return TaskRequest(_with_length(request, total, [condition]), {condition.media: clip})


def connect(
    request: Request, first: Video, second: Video, *, seconds: float, fps: float, fit: Fit = "crop"
) -> TaskRequest:
    """`first`, a generated transition of `seconds`, and `second`."""
    before, gap, after = _length(first, fps), _frames(seconds, fps), _length(second, fps)
    conditions = (
        ClipCondition(content_hash(first), at_s=0.0, seconds=before / fps, fit=fit),
        ClipCondition(content_hash(second), at_s=(before + gap) / fps, seconds=after / fps, fit=fit),
    )
    inputs = {conditions[0].media: first, conditions[1].media: second}
    return TaskRequest(_with_length(request, before + gap + after, conditions), inputs)


def loop(request: Request, clip: Video | None = None, *, fps: float, fit: Fit = "crop") -> TaskRequest:
    """A loop of the request's length. With `clip`, it begins with the clip and returns to its first frame."""
    if clip is None:
        return TaskRequest(replace(request, loop=True), {})
    condition = ClipCondition(content_hash(clip), at_s=0.0, seconds=_length(clip, fps) / fps, fit=fit)
    return TaskRequest(replace(request, loop=True, conditions=(condition,)), {condition.media: clip})


def edit(
    request: Request,
    clip: Video,
    *,
    strength: float,
    region: tuple[int, int, int, int] | None = None,
    mask: Video | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float,
    fit: Fit = "crop",
) -> TaskRequest:
    """The clip, generated anew from the noise level `strength` on: from `start_s` to `end_s`, inside `region`
    or where `mask` is white.

    Raises `RequestError` for a strength that is 0 or out of range, and a time span outside the clip.
    """
    if not 0 < strength <= 1:
        raise RequestError(
            f"strength={strength} changes nothing or is out of range: use more than 0, at most 1"
        )
    length = _length(clip, fps)
    first, stop = round(start_s * fps), length if end_s is None else round(end_s * fps)
    if not 0 <= first < stop <= length:
        raise RequestError(
            f"{start_s:g} to {stop / fps:g} s is not a span of this clip: "
            f"use times from 0 to {length / fps:g} s ({length} frames at {fps:g} fps)"
        )

    media = content_hash(clip)
    inputs = {media: clip}
    mask_media = None
    if mask is not None:
        mask_media = content_hash(mask)
        inputs[mask_media] = mask

    kept = ClipCondition(media, at_s=0.0, seconds=length / fps, fit=fit)
    edited = ClipCondition(
        media,
        at_s=first / fps,
        seconds=(stop - first) / fps,
        first_s=first / fps,
        strength=strength,
        region=region,
        mask=mask_media,
        fit=fit,
    )
    return TaskRequest(_with_length(request, length, (kept, edited)), inputs)


def storyboard(request: Request, shots: Sequence[Shot], *, fps: float, fit: Fit = "crop") -> TaskRequest:
    """One video from timed prompts, pictures and clips. The prompt at 0 s is the first one."""
    inputs: dict[str, Video] = {}
    conditions: list[ClipCondition] = []
    prompts: list[TimedPrompt] = []
    for shot in sorted(shots, key=lambda shot: shot.at_s):
        if shot.prompt is not None and shot.at_s == 0:
            request = replace(request, prompt=shot.prompt)
        elif shot.prompt is not None:
            prompts.append(TimedPrompt(shot.at_s, shot.prompt))

        if shot.clip is not None:
            media = content_hash(shot.clip)
            inputs[media] = shot.clip
            seconds = None if shot.clip.num_frames == 1 else _length(shot.clip, fps) / fps
            conditions.append(ClipCondition(media, at_s=shot.at_s, seconds=seconds, fit=fit))
    return TaskRequest(replace(request, prompts=tuple(prompts), conditions=tuple(conditions)), inputs)


def _length(clip: Video, fps: float) -> int:
    """Frames of the clip at the model's rate."""
    return clip.num_frames if clip.fps == fps else clip.resampled(fps).num_frames


def _frames(seconds: float, fps: float) -> int:
    """Frames of a duration. Raises `RequestError` for less than one frame."""
    if not seconds > 0 or round(seconds * fps) < 1:
        raise RequestError(
            f"seconds={seconds:g} adds nothing: use {1 / fps:g} or more (one frame at {fps:g} fps)"
        )
    if seconds > MAX_SECONDS:
        raise RequestError(f"seconds={seconds:g} is out of range: use up to {MAX_SECONDS:g}")
    return round(seconds * fps)


def _with_length(request: Request, frames: int, conditions: Sequence[ClipCondition]) -> Request:
    """The request with the length that follows from its clips. Raises `RequestError` if it has another."""
    if request.seconds is not None or request.frames not in (None, frames):
        raise RequestError(
            f"the length follows from the clips ({frames} frames): remove seconds and frames from the request"
        )
    return replace(request, frames=frames, conditions=tuple(conditions))
