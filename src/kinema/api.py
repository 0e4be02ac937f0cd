"""What is asked for, as calls: `generate` from words alone; the tasks read files, fill a request and run it.

`kinema.extend("in.mp4", seconds=4)` is `asking.extend`. Clips and pictures are paths or `Video`s. `options` are the fields of `Request`;
`animate` and `edit` also take `expand` and `expander`, as `generate` does. Every function raises the errors of `kinema.load`,
`Video.read` and `Pipeline.run`, and returns its `Result`.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kinema import config
from kinema.checkpoints.shipped import SHIPPED
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import Inputs, Source, read
from kinema.generation.conditioning.tasks import Direction, Fields, Shot, Task
from kinema.generation.expansion import Expansion, Kind, expanded
from kinema.generation.loading import kept_pipeline
from kinema.generation.pipeline import Pipeline, Result
from kinema.generation.progress import progress_bar
from kinema.generation.request import Request
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
    """The video that shows `prompt`; `options` are the other fields of `Request`. The model stays loaded for the next call.

    With `expand` the prompt is first made longer by `expander` (see `kinema.generation.expansion.load_expander`); the result's request
    holds both. In a terminal a bar shows how far it has come, and words that the model reads otherwise are logged as a warning.

    `generate("a penguin walks", seconds=2, seed=7).save("penguin.mp4")`. Raises `ConfigError` for an option that a request does not have,
    and the errors of `load`, `expand` and `Pipeline.run`.
    """
    fields = {"prompt": prompt, "model": str(model), **options}
    request = config.from_dict(Request, fields)  # wrong options are said before anything is loaded
    if expand:
        fields, expansion = expanded(fields, expander, "text")
        say(expansion)
        request = config.from_dict(Request, fields)
    return run_with_bar(kept_pipeline(request.model, device=device), request)


def extend(
    clip: Source,
    prompt: str = "",
    *,
    seconds: float,
    direction: Direction = "forward",
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """The clip with `seconds` more behind it, before it, or on each side. The clip's own frames are kept bit for bit."""
    return _ask(
        prompt,
        options,
        lambda r, fps: tasks.extend(
            r, read(clip, fps), seconds=seconds, direction=direction, fps=fps, fit=fit
        ),
    )


def connect(
    first: Source, second: Source, prompt: str = "", *, seconds: float, fit: Fit = "crop", **options: Any
) -> Result:
    """`first`, `seconds` that lead over, and `second`."""
    return _ask(
        prompt,
        options,
        lambda r, fps: tasks.connect(
            r, read(first, fps), read(second, fps), seconds=seconds, fps=fps, fit=fit
        ),
    )


def loop(prompt: str = "", clip: Source | None = None, *, fit: Fit = "crop", **options: Any) -> Result:
    """A video without an end, from words or from a clip that finds back to its beginning."""
    return _ask(
        prompt,
        options,
        lambda r, fps: tasks.loop(r, None if clip is None else read(clip, fps), fps=fps, fit=fit),
    )


def edit(
    clip: Source,
    prompt: str,
    *,
    strength: float = 0.6,
    region: Region | None = None,
    mask: Source | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """The clip changed as the words say: from `start_s` to `end_s`, inside `region` or where `mask` is white. The rest is kept."""

    def fill(fields: Fields, fps: float) -> Task:
        white = None if mask is None else read(mask, fps)
        limits = {"strength": strength, "region": region, "mask": white, "start_s": start_s, "end_s": end_s}
        return tasks.edit(fields, read(clip, fps), fps=fps, fit=fit, **limits)  # type: ignore[arg-type]

    return _ask(prompt, options, fill, "edit", clip)


def animate(
    prompt: str = "",
    *,
    first: Source | None = None,
    last: Source | None = None,
    keyframes: Sequence[tuple[float, Source]] = (),
    fit: Fit = "crop",
    **options: Any,
) -> Result:
    """A video that begins with the picture `first`, ends with `last` and shows each of `keyframes` at its second."""

    def fill(fields: Fields, fps: float) -> Task:
        return tasks.pictures(
            fields,
            first=None if first is None else read(first, fps),
            last=None if last is None else read(last, fps),
            keyframes=[(at_s, read(picture, fps)) for at_s, picture in keyframes],
            fit=fit,
        )

    return _ask(prompt, options, fill, "text" if first is None else "image", first)


def storyboard(shots: Sequence[Shot], *, fit: Fit = "crop", **options: Any) -> Result:
    """One video of timed prompts, pictures and clips."""
    return _ask("", options, lambda r, fps: tasks.storyboard(r, shots, fps=fps, fit=fit))


def _ask(
    prompt: str,
    options: dict[str, Any],
    fill: Callable[[Fields, float], Task],
    kind: Kind | None = None,
    shown: Source | None = None,
) -> Result:
    """The result of a task; with `kind` its prompt may be expanded, by someone who sees the first frame of `shown`."""
    model = str(options.pop("model", SHIPPED))
    pipeline = kept_pipeline(model, device=options.pop("device", "auto"))
    fields = {"prompt": prompt, "model": model, **options}
    if kind is not None:
        expander = fields.pop("expander", SHIPPED)
        if fields.pop("expand", False):
            fields, expansion = expanded(
                fields,
                expander,
                kind,
                None if shown is None else png_bytes(read(shown, pipeline.manifest.fps).frames[0]),
            )
            say(expansion)
    return run_with_bar(pipeline, *fill(fields, pipeline.manifest.fps))


def run_with_bar(pipeline: Pipeline, request: Request, inputs: Inputs | None = None) -> Result:
    """The result of `Pipeline.run`, with a bar in a terminal, and as warnings what the user should know before."""
    if notice := pipeline.read_prompt(request.prompt).text if request.prompt else "":
        log.warning("%s", notice)
    with progress_bar() as on_step:
        return pipeline.run(request, inputs=inputs, on_step=on_step)


def say(expansion: Expansion) -> None:
    """Log both prompts of an expansion, as the notices of `run_with_bar` are."""
    for line in expansion.lines:
        log.warning("%s", line)
