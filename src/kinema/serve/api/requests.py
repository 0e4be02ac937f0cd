"""From the fields of a request to a task: sizes and lengths that fit the model, files by their role."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from kinema.checkpoints.manifest import Manifest
from kinema.generation.plan import nearest_size
from kinema.serve.api.bodies import json_object
from kinema.serve.api.errors import ApiError
from kinema.serve.api.schemas import ALIASES, IGNORED, CreateVideo, EditVideo, ExtendVideo, Sampling
from kinema.serve.intake import Intake
from kinema.serve.models import ServedModel
from kinema.serve.settings import Unsupported

B = TypeVar("B", bound=BaseModel)

REQUEST_FIELDS = (
    *("prompt", "seed", "negative_prompt", "steps", "guidance", "guidance_interval", "shift", "sampler"),
    *("window", "anchor", "cache", "beyond_trained"),
)
"""Fields of a body that are fields of a `Request` of the same name."""


@dataclass
class Draft:
    """A task before its files are read."""

    intake: Intake
    media: Mapping[str, Any] = field(default_factory=dict)
    """For each role what the body gave: a file, or a reference."""
    adjusted: list[str] = field(default_factory=list)
    task: str = "generate"


def parsed(schema: type[B], body: Mapping[str, Any]) -> B:
    """The body as its schema has it, with other servers' names accepted. Raises `ValidationError`."""
    values = dict(body)
    if isinstance(values.get("extra_params"), str):
        values |= {**json_object(values.pop("extra_params").encode()), **values}
    for alias, name in ALIASES.items():
        if alias in values and alias not in schema.model_fields:
            values.setdefault(name, values.pop(alias))
    for name in IGNORED - set(schema.model_fields):
        if name == "n" and str(values.get("n", "1")) != "1":
            raise ApiError(
                400, "Use one request for each video: n must be 1.", param="n", code="invalid_value"
            )
        values.pop(name, None)
    return schema.model_validate({name: value for name, value in values.items() if value is not None})


def of_create(body: CreateVideo, model: ServedModel, unsupported: Unsupported, max_seconds: float) -> Draft:
    """The task of `POST /videos`. Raises `ApiError` for fields that exclude each other."""
    fields, adjusted = _fields(body), list[str]()
    _set_size(fields, body, model.manifest, unsupported, adjusted)
    _set_length(fields, body, model.manifest, unsupported, max_seconds, adjusted)
    if body.fps is not None and abs(body.fps - model.manifest.fps) > 1e-6:
        if unsupported == "reject":
            message = f"{model.name} makes {model.manifest.fps:g} frames a second."
            raise ApiError(400, message, param="fps", code="invalid_value")
        adjusted.append(f"fps {body.fps:g} -> {model.manifest.fps:g}")

    tasks = {
        "loop": body.loop,
        "connect": body.connect is not None,
        "storyboard": body.storyboard is not None,
    }
    chosen = [name for name, is_chosen in tasks.items() if is_chosen]
    if len(chosen) > 1:
        message = f"Use one of {' and '.join(chosen)} in a request."
        raise ApiError(400, message, param=chosen[1], code="invalid_value")
    if body.video is not None and not body.loop:
        message = "A clip is extended by /v1/videos/extensions and edited by /v1/videos/edits."
        raise ApiError(400, message, param="video", code="invalid_value")

    kind = chosen[0] if chosen else "generate"
    pictures = _pictures(body)
    if chosen and pictures:
        message = f"A {kind} takes no pictures beside its own."
        raise ApiError(400, message, param="input_reference", code="invalid_value")
    params, media = _task(body, kind, pictures, fields, model.manifest)
    if (kind == "generate" and media) or kind != "generate":
        params["fit"] = body.fit
    if kind in ("generate", "storyboard", "loop") and not media and not body.prompt.strip():
        _need_prompt(body)
    task = "image" if kind == "generate" and media else kind
    return Draft(Intake(kind, fields, params), media, adjusted, task)


def _need_prompt(body: CreateVideo) -> None:
    if body.storyboard and any(shot.prompt for shot in body.storyboard):
        return
    message = "Missing required parameter: 'prompt'."
    raise ApiError(400, message, param="prompt", code="missing_required_parameter")


def _task(
    body: CreateVideo, kind: str, pictures: dict[str, Any], fields: dict[str, Any], manifest: Manifest
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What only this task has, and its files."""
    if kind == "loop":
        return {}, {} if body.video is None else {"clip": body.video}
    if kind == "connect":
        assert body.connect is not None
        seconds = fields.pop("seconds", None)
        frames = fields.pop("frames", None)
        seconds = seconds or (frames / manifest.fps if frames else 1.0)
        return {"seconds": seconds}, {"first": body.connect.first, "second": body.connect.second}
    if kind == "storyboard":
        shots = body.storyboard or []
        entries = [(i, {"at": shot.at, "prompt": shot.prompt}) for i, shot in enumerate(shots)]
        media = {f"shot {i}": shot.clip for i, shot in enumerate(shots) if shot.clip is not None}
        return {"shots": entries}, media
    return {}, pictures


def _pictures(body: CreateVideo) -> dict[str, Any]:
    """The pictures of a new video by their role. A character gives the first one, if no other does."""
    media: dict[str, Any] = {}
    if body.input_reference is not None:
        media["first"] = body.input_reference
    elif body.characters:
        media["first"] = {"id": body.characters[0].id}
    if len(body.characters) > 1:
        message = "Models of this server take one character."
        raise ApiError(400, message, param="characters", code="invalid_value")
    if body.last_frame is not None:
        media["last"] = body.last_frame
    return media | {f"at {keyframe.at}": keyframe.image for keyframe in body.keyframes}


def of_edit(body: EditVideo) -> Draft:
    """The task of `POST /videos/edits`."""
    params: dict[str, Any] = {"strength": body.strength, "start_s": body.start, "fit": body.fit}
    if body.end is not None:
        params["end_s"] = body.end
    if body.region is not None:
        params["region"] = body.region
    media = {"clip": body.video} | ({} if body.mask is None else {"mask": body.mask})
    return Draft(Intake("edit", _fields(body), params), media, task="edit")


def of_extend(body: ExtendVideo, max_seconds: float) -> Draft:
    """The task of `POST /videos/extensions`."""
    seconds = number(body.seconds, "seconds")
    if seconds > max_seconds:
        raise ApiError(400, f"Use at most {max_seconds:g} seconds.", param="seconds", code="invalid_value")
    params = {"seconds": seconds, "direction": body.direction, "fit": body.fit}
    return Draft(Intake("extend", _fields(body), params), {"clip": body.video}, task="extend")


def _fields(body: Sampling) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in REQUEST_FIELDS}
    return {name: value for name, value in given.items() if value is not None}


def number(text: str, name: str) -> float:
    """A number in text. Raises `ApiError`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:  # also rejects NaN
        raise ApiError(
            400, f"Invalid '{name}': {text[:40]!r} is not a length.", param=name, code="invalid_value"
        )
    return value


def _set_size(
    fields: dict[str, Any],
    body: CreateVideo,
    manifest: Manifest,
    unsupported: Unsupported,
    adjusted: list[str],
) -> None:
    """Set width and height, mapped to the nearest trained size if the operator wants that."""
    if body.width is not None and body.height is not None:
        width, height = body.width, body.height
    elif body.size not in (None, "", "auto"):
        sides = str(body.size).lower().replace("*", "x").split("x")
        if len(sides) != 2 or not all(side.strip().isdecimal() and len(side) < 6 for side in sides):
            message = f"Invalid 'size': {str(body.size)[:40]!r} is not WIDTHxHEIGHT."
            raise ApiError(400, message, param="size", code="invalid_value")
        width, height = int(sides[0]), int(sides[1])
    else:
        return
    if min(width, height) < 1:
        raise ApiError(400, "Invalid 'size': a side of 0.", param="size", code="invalid_value")

    low, high = manifest.min_side, manifest.max_side
    is_trained = low <= min(width, height) and max(width, height) <= high
    if not is_trained and not body.beyond_trained and unsupported == "nearest":
        asked = f"{width}x{height}"
        width, height = nearest_size(width, height, manifest)
        adjusted.append(f"size {asked} -> {width}x{height}")
    fields |= {"width": width, "height": height}


def _set_length(
    fields: dict[str, Any],
    body: CreateVideo,
    manifest: Manifest,
    unsupported: Unsupported,
    max_seconds: float,
    adjusted: list[str],
) -> None:
    """Set seconds or frames, mapped into the supported range if the operator wants that."""
    if body.frames is not None:
        seconds, name = body.frames / manifest.fps, "frames"
    elif body.seconds not in (None, ""):
        seconds, name = number(str(body.seconds), "seconds"), "seconds"
    else:
        return
    least = manifest.min_frames / manifest.fps
    used = min(max(seconds, least), max_seconds)
    if used != seconds and not (body.beyond_trained and seconds < least):
        if unsupported == "reject":
            message = f"{seconds:g} seconds are not supported: use {least:g} to {max_seconds:g}."
            raise ApiError(400, message, param=name, code="invalid_value")
        adjusted.append(f"seconds {seconds:g} -> {used:g}")
        fields["seconds"] = used
    elif name == "frames":
        fields["frames"] = body.frames
    else:
        fields["seconds"] = seconds
