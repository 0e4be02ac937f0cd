"""The public functions: `generate` from a prompt, and one function per task on clips and pictures.

Clips and pictures are paths or `Video`s. `options` are further fields of `Request`. `animate` and `edit` also
accept `expand` and `expander`, like `generate`. Every function returns a `Result`, and raises the errors of
`kinema.load`, `Video.read` and `Pipeline.run`.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kinema import config
from kinema.checkpoints.expanders import expand_fields
from kinema.checkpoints.shipped import SHIPPED
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import ClipSource, Inputs, read_clip
from kinema.generation.conditioning.tasks import Direction, Fields, Shot, TaskRequest
from kinema.generation.loading import cached_pipeline
from kinema.generation.pipeline import Pipeline
from kinema.generation.progress import progress_bar
from kinema.generation.request import Request
from kinema.generation.result import Result
from kinema.prompts.expansion import Expansion, PromptKind
from kinema.video import png_bytes
from kinema.video.resize import Fit

log = logging.getLogger(__name__)

Region = tuple[int, int, int, int]


def generate(
    prompt: str,
    *,
    model: str | Path = SHIPPED,
    device: str = "auto",
    expand: bool = False,
    expander: str = SHIPPED,
    **options: Any,
) -> Result:
    """A video of `prompt`. `options` are further fields of `Request`. The model stays loaded for the next
    call.

    With `expand` the prompt is first expanded by `expander` (see
    `kinema.checkpoints.expanders.load_expander`), and the result's request holds both prompts. A terminal
    shows a progress bar. Words that the model reads differently are logged as a warning.

    `generate("a penguin walks", seconds=2, seed=7).save("penguin.mp4")`. Raises `ConfigError` for an option
    that is not a field of `Request`, and the errors of `load`, the expander and `Pipeline.run`.
    """
    fields = {"prompt": prompt, "model": str(model), **options}
    request = config.from_dict(Request, fields)  # invalid options raise before a model is loaded
    if expand:
        fields, expansion = expand_fields(fields, expander, "text")
        log_expansion(expansion)
        request = config.from_dict(Request, fields)
    return run_with_progress(cached_pipeline(request.model, device=device), request)


def extend(
    clip: ClipSource,
    prompt: str = "",
    *,
    seconds: float,
    direction: Direction = "forward",
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """The clip, made longer by `seconds` at its end, at its start, or at both. The clip's own frames are kept
    bit for bit."""
    return _run_task(
        prompt,
        options,
        lambda fields, fps: tasks.extend(
            fields, read_clip(clip, fps), seconds=seconds, direction=direction, fps=fps, fit=fit
        ),
    )


def connect(
    first: ClipSource,
    second: ClipSource,
    prompt: str = "",
    *,
    seconds: float,
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """`first`, a generated transition of `seconds`, and `second`."""
    return _run_task(
        prompt,
        options,
        lambda fields, fps: tasks.connect(
            fields, read_clip(first, fps), read_clip(second, fps), seconds=seconds, fps=fps, fit=fit
        ),
    )


def loop(prompt: str = "", clip: ClipSource | None = None, *, fit: Fit = "crop", **options: Any) -> Result:
    """A seamless loop of `prompt`. With `clip`, it begins with the clip and returns to its first frame."""
    return _run_task(
        prompt,
        options,
        lambda fields, fps: tasks.loop(
            fields, None if clip is None else read_clip(clip, fps), fps=fps, fit=fit
        ),
    )


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
    **options: Any,
) -> Result:
    """The clip, edited to show `prompt`: from `start_s` to `end_s`, inside `region` or where `mask` is white.
    The rest is kept.

    `strength` is the noise level from which the clip is generated anew, above 0 to 1. `region` is x, y, width
    and height in pixels of the result.
    """

    def fill(fields: Fields, fps: float) -> TaskRequest:
        return tasks.edit(
            fields,
            read_clip(clip, fps),
            strength=strength,
            region=region,
            mask=None if mask is None else read_clip(mask, fps),
            start_s=start_s,
            end_s=end_s,
            fps=fps,
            fit=fit,
        )

    return _run_task(prompt, options, fill, "edit", clip)


def animate(
    prompt: str = "",
    *,
    first: ClipSource | None = None,
    last: ClipSource | None = None,
    keyframes: Sequence[tuple[float, ClipSource]] = (),
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """A video that begins with the picture `first`, ends with `last`, and shows each of `keyframes` (second,
    picture) at its time."""

    def fill(fields: Fields, fps: float) -> TaskRequest:
        return tasks.pictures(
            fields,
            first=None if first is None else read_clip(first, fps),
            last=None if last is None else read_clip(last, fps),
            keyframes=[(at_s, read_clip(picture, fps)) for at_s, picture in keyframes],
            fit=fit,
        )

    return _run_task(prompt, options, fill, "text" if first is None else "image", first)


def storyboard(shots: Sequence[Shot], *, fit: Fit = "crop", **options: Any) -> Result:
    """One video from timed prompts, pictures and clips."""
    return _run_task("", options, lambda fields, fps: tasks.storyboard(fields, shots, fps=fps, fit=fit))


def _run_task(
    prompt: str,
    options: dict[str, Any],
    fill: Callable[[Fields, float], TaskRequest],
    kind: PromptKind | None = None,
    picture_source: ClipSource | None = None,
) -> Result:
    """The result of a task. With `kind` its prompt can be expanded; the expander also receives the first
    frame of `picture_source`."""
    model = str(options.pop("model", SHIPPED))
    pipeline = cached_pipeline(model, device=options.pop("device", "auto"))
    fps = pipeline.manifest.fps

    fields = {"prompt": prompt, "model": model, **options}
    if kind is not None:
        expander, is_expanded = fields.pop("expander", SHIPPED), fields.pop("expand", False)
        if is_expanded:
            picture = None if picture_source is None else png_bytes(read_clip(picture_source, fps).frames[0])
            fields, expansion = expand_fields(fields, expander, kind, picture)
            log_expansion(expansion)
    return run_with_progress(pipeline, *fill(fields, fps))


def run_with_progress(pipeline: Pipeline, request: Request, inputs: Inputs | None = None) -> Result:
    """The result of `Pipeline.run`, with a progress bar in a terminal. Words that the model reads differently
    are logged before."""
    if notice := pipeline.read_prompt(request.prompt).text if request.prompt else "":
        log.warning("%s", notice)
    with progress_bar() as on_step:
        return pipeline.run(request, inputs=inputs, on_step=on_step)


def log_expansion(expansion: Expansion) -> None:
    """Log both prompts of an expansion as warnings, which are visible by default."""
    for line in expansion.lines:
        log.warning("%s", line)
