"""Tasks: short functions from a request to a request that says what is known of its result.

Each takes the fields of `Request` that do not depend on the task (prompt, size, seed, sampler) and the clips, and returns the request to
run and its inputs. Nothing behind them, pipeline or sampler, knows of tasks. `fps` is the model's rate, at which clips are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kinema import config
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import Inputs, Place, TimedPrompt, content_hash
from kinema.generation.request import Request
from kinema.video import Video
from kinema.video.resize import Fit

Direction = Literal["forward", "backward", "both"]
Fields = Mapping[str, Any]
Task = tuple[Request, Inputs]


@dataclass(frozen=True)
class Shot:
    """What a storyboard has at one second: words, a picture or clip, or both."""

    at_s: float
    prompt: str | None = None
    clip: Video | None = None


def pictures(
    fields: Fields,
    *,
    first: Video | None = None,
    last: Video | None = None,
    keyframes: Sequence[tuple[float, Video]] = (),
    fit: Fit = "crop",
) -> Task:
    """A video that begins with the picture `first`, ends with `last` and shows each of `keyframes` at its second."""
    shown: list[tuple[float | None, Video]] = [] if first is None else [(0.0, first)]
    shown += [*keyframes, *([] if last is None else [(None, last)])]
    if not shown:
        raise RequestError("no picture was given: give the first, the last, or one for a second between them")
    for _, still in shown:
        if still.num_frames != 1:
            raise RequestError(
                f"a picture is wanted and a clip of {still.num_frames} frames was given: use extend, or one of its frames"
            )
    places = tuple(Place(content_hash(still), at_s=at_s, fit=fit) for at_s, still in shown)
    return _request(fields, places), {content_hash(still): still for _, still in shown}


def extend(
    fields: Fields,
    clip: Video,
    *,
    seconds: float,
    direction: Direction = "forward",
    fps: float,
    fit: Fit = "crop",
) -> Task:
    """The clip with `seconds` more behind it, before it, or on each side."""
    length, more = _length(clip, fps), _frames(seconds, fps)
    before = 0 if direction == "forward" else more
    total = length + more * (2 if direction == "both" else 1)
    place = Place(content_hash(clip), at_s=before / fps, seconds=length / fps, fit=fit)
    return _of_length(fields, total, (place,)), {place.media: clip}


def connect(
    fields: Fields, first: Video, second: Video, *, seconds: float, fps: float, fit: Fit = "crop"
) -> Task:
    """`first`, `seconds` that lead over, and `second`."""
    before, gap, after = _length(first, fps), _frames(seconds, fps), _length(second, fps)
    places = (
        Place(content_hash(first), at_s=0.0, seconds=before / fps, fit=fit),
        Place(content_hash(second), at_s=(before + gap) / fps, seconds=after / fps, fit=fit),
    )
    return _of_length(fields, before + gap + after, places), {places[0].media: first, places[1].media: second}


def loop(fields: Fields, clip: Video | None = None, *, fps: float, fit: Fit = "crop") -> Task:
    """A video without an end, of the request's length; with `clip`, one that begins with it and finds back to its beginning."""
    if clip is None:
        return _request({**fields, "loop": True}), {}
    place = Place(content_hash(clip), at_s=0.0, seconds=_length(clip, fps) / fps, fit=fit)
    return _request({**fields, "loop": True}, (place,)), {place.media: clip}


def edit(
    fields: Fields,
    clip: Video,
    *,
    strength: float,
    region: tuple[int, int, int, int] | None = None,
    mask: Video | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float,
    fit: Fit = "crop",
) -> Task:
    """The clip, made anew from the noise level `strength` on: from `start_s` to `end_s`, inside `region` or where `mask` is white."""
    if not 0 < strength <= 1:
        raise RequestError(
            f"strength={strength} changes nothing or is out of range: use more than 0, at most 1"
        )
    length = _length(clip, fps)
    first, stop = round(start_s * fps), length if end_s is None else round(end_s * fps)
    if not 0 <= first < stop <= length:
        raise RequestError(
            f"{start_s:g} to {stop / fps:g} s is not a span of this clip, which has {length / fps:g} s ({length} frames at {fps:g} fps)"
        )
    media, inputs = content_hash(clip), {content_hash(clip): clip}
    if mask is not None:
        inputs[content_hash(mask)] = mask
    kept = Place(media, at_s=0.0, seconds=length / fps, fit=fit)
    draft = Place(
        media,
        at_s=first / fps,
        seconds=(stop - first) / fps,
        first_s=first / fps,
        strength=strength,
        region=region,
        mask=content_hash(mask) if mask is not None else None,
        fit=fit,
    )
    return _of_length(fields, length, (kept, draft)), inputs


def storyboard(fields: Fields, shots: Sequence[Shot], *, fps: float, fit: Fit = "crop") -> Task:
    """One video of timed prompts, pictures and clips. What stands at 0 is the first prompt."""
    inputs: dict[str, Video] = {}
    places: list[Place] = []
    prompts: list[TimedPrompt] = []
    for shot in sorted(shots, key=lambda shot: shot.at_s):
        if shot.prompt is not None and shot.at_s == 0:
            fields = {**fields, "prompt": shot.prompt}
        elif shot.prompt is not None:
            prompts.append(TimedPrompt(shot.at_s, shot.prompt))
        if shot.clip is not None:
            media = content_hash(shot.clip)
            inputs[media] = shot.clip
            seconds = None if shot.clip.num_frames == 1 else _length(shot.clip, fps) / fps
            places.append(Place(media, at_s=shot.at_s, seconds=seconds, fit=fit))
    return _request(
        {**fields, "prompts": [config.to_dict(prompt) for prompt in prompts]}, tuple(places)
    ), inputs


def _length(clip: Video, fps: float) -> int:
    """Frames of the clip at the model's rate."""
    return clip.num_frames if clip.fps == fps else clip.resampled(fps).num_frames


def _frames(seconds: float, fps: float) -> int:
    """Frames of a duration. Raises `RequestError` for less than one."""
    if not seconds > 0 or round(seconds * fps) < 1:
        raise RequestError(
            f"seconds={seconds:g} adds nothing: use {1 / fps:g} or more (one frame at {fps:g} fps)"
        )
    if seconds > 10_000:
        raise RequestError(f"seconds={seconds:g} is out of range: use up to 10000")
    return round(seconds * fps)


def _of_length(fields: Fields, frames: int, places: tuple[Place, ...]) -> Request:
    """The request with these places and the length that follows from them. Raises `RequestError` when it asks for another."""
    if fields.get("seconds") is not None or fields.get("frames") not in (None, frames):
        raise RequestError(
            f"the length follows from the clips ({frames} frames): leave the result's own seconds and frames out"
        )
    return _request({**fields, "frames": frames}, places)


def _request(fields: Fields, places: tuple[Place, ...] = ()) -> Request:
    """The request of these fields and places. Raises `ConfigError` for a field that a request does not have."""
    return config.from_dict(
        Request, {"prompt": "", **fields, "places": [config.to_dict(place) for place in places]}
    )
