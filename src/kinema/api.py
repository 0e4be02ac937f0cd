"""The public functions: `generate` from a prompt, and one function per task on clips and pictures.

Clips and pictures are paths or `Video`s. `options` are further fields of `Request`, and `device`. The model
stays loaded for the next call, and a terminal shows a progress bar.

Without a prompt (None), `extend`, `connect` and `loop` take the one in the metadata of the clip's file, or
else the clip's caption, and log it; with "" the model is free. With `expand` the prompt is first expanded by
`expander` (see `kinema.checkpoints.expanders.load_expander`), and the result's request holds both prompts.

Every function returns a `Result`, and raises `ConfigError` for an option that is not a field of `Request`,
and the errors of `kinema.load`, `Video.read`, the expander and `Pipeline.run`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinema import config
from kinema.checkpoints.shipped import SHIPPED
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import ClipSource, Inputs, read_input
from kinema.generation.conditioning.prompt import with_clip_prompt, with_expanded_prompt
from kinema.generation.conditioning.tasks import Direction, Shot
from kinema.generation.loading import cached_pipeline
from kinema.generation.pipeline import Pipeline
from kinema.generation.progress import progress_bar
from kinema.generation.request import Request
from kinema.generation.result import Result
from kinema.prompts.expansion import PromptKind
from kinema.video.resize import Fit

log = logging.getLogger(__name__)

Region = tuple[int, int, int, int]


def generate(
    prompt: str,
    *,
    model: str | Path = SHIPPED,
    expand: bool = False,
    expander: str = SHIPPED,
    **options: Any,
) -> Result:
    """A video of `prompt`. Words that the model reads differently are logged as a warning.

    `generate("a penguin walks", seconds=2, seed=7).save("penguin.mp4")`.
    """
    request, pipeline = _start(prompt, {"model": model, **options})
    if expand:
        request = with_expanded_prompt(request, expander, "text", log.warning)
    return _run(pipeline, request)


def extend(
    clip: ClipSource,
    prompt: str | None = None,
    *,
    seconds: float,
    direction: Direction = "forward",
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """The clip, made longer by `seconds` at its end, start, or both. Its own frames are kept bit for bit."""
    request, pipeline = _start(prompt, options)
    fps = pipeline.manifest.fps
    given = read_input(clip, fps)
    if prompt is None:
        request = with_clip_prompt(request, [given], log.warning, at_end=direction != "backward")

    task = tasks.extend(request, given.video, seconds=seconds, direction=direction, fps=fps, fit=fit)
    return _run(pipeline, *task)


def connect(
    first: ClipSource,
    second: ClipSource,
    prompt: str | None = None,
    *,
    seconds: float,
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """`first`, a generated transition of `seconds`, and `second`."""
    request, pipeline = _start(prompt, options)
    fps = pipeline.manifest.fps
    clips = [read_input(first, fps), read_input(second, fps)]
    if prompt is None:
        request = with_clip_prompt(request, clips, log.warning)

    before, after = (clip.video for clip in clips)
    return _run(pipeline, *tasks.connect(request, before, after, seconds=seconds, fps=fps, fit=fit))


def loop(
    prompt: str | None = None, clip: ClipSource | None = None, *, fit: Fit = "crop", **options: Any
) -> Result:
    """A seamless loop of `prompt`. With `clip`, it begins with the clip and returns to its first frame."""
    request, pipeline = _start(prompt, options)
    fps = pipeline.manifest.fps
    given = None if clip is None else read_input(clip, fps)
    if prompt is None and given is not None:
        request = with_clip_prompt(request, [given], log.warning)

    task = tasks.loop(request, None if given is None else given.video, fps=fps, fit=fit)
    return _run(pipeline, *task)


def edit(
    clip: ClipSource,
    prompt: str,
    *,
    strength: float = 0.6,
    region: Region | None = None,
    mask: ClipSource | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fit: Fit = "crop",
    expand: bool = False,
    expander: str = SHIPPED,
    **options: Any,
) -> Result:
    """The clip, edited to show `prompt`: from `start_s` to `end_s`, inside `region` or where `mask` is white.
    The rest is kept.

    `strength` is the noise level from which the clip is generated anew, above 0 to 1. `region` is x, y, width
    and height in pixels of the result.
    """
    request, pipeline = _start(prompt, options)
    fps = pipeline.manifest.fps
    given = read_input(clip, fps)
    if expand:
        request = with_expanded_prompt(request, expander, "edit", log.warning, given)

    task = tasks.edit(
        request,
        given.video,
        strength=strength,
        region=region,
        mask=None if mask is None else read_input(mask, fps).video,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        fit=fit,
    )
    return _run(pipeline, *task)


def animate(
    prompt: str = "",
    *,
    first: ClipSource | None = None,
    last: ClipSource | None = None,
    keyframes: Sequence[tuple[float, ClipSource]] = (),
    fit: Fit = "crop",
    expand: bool = False,
    expander: str = SHIPPED,
    **options: Any,
) -> Result:
    """A video that begins with the picture `first`, ends with `last`, and shows each of `keyframes` (second,
    picture) at its time."""
    request, pipeline = _start(prompt, options)
    fps = pipeline.manifest.fps
    opening = None if first is None else read_input(first, fps)
    if expand:
        kind: PromptKind = "text" if opening is None else "image"
        request = with_expanded_prompt(request, expander, kind, log.warning, opening)

    task = tasks.pictures(
        request,
        first=None if opening is None else opening.video,
        last=None if last is None else read_input(last, fps).video,
        keyframes=[(at_s, read_input(picture, fps).video) for at_s, picture in keyframes],
        fit=fit,
    )
    return _run(pipeline, *task)


def storyboard(shots: Sequence[Shot], *, fit: Fit = "crop", **options: Any) -> Result:
    """One video from timed prompts, pictures and clips."""
    request, pipeline = _start(None, options)
    task = tasks.storyboard(request, shots, fps=pipeline.manifest.fps, fit=fit)
    return _run(pipeline, *task)


def _run(pipeline: Pipeline, request: Request, inputs: Inputs | None = None) -> Result:
    """The result of `Pipeline.run`, with a progress bar in a terminal. Words that the model reads differently
    are logged before, and which of too many objects the video shows, after."""
    if notice := pipeline.read_prompt(request.prompt).text if request.prompt else "":
        log.warning(notice)
    with progress_bar() as on_step:
        result = pipeline.run(request, inputs=inputs, on_step=on_step)
    if result.object_line:
        log.warning(result.object_line)
    return result


def _start(prompt: str | None, options: dict[str, Any]) -> tuple[Request, Pipeline]:
    """The request with these options, which is checked before its model is loaded, and the pipeline."""
    fields = {"prompt": prompt or "", **options}
    device = fields.pop("device", "auto")
    request = config.from_dict(Request, {**fields, "model": str(fields.get("model", SHIPPED))})
    return request, cached_pipeline(request.model, device=device)
