"""The work of the verbs that generate a video. Their modules import this one when they run, because it
imports torch."""

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kinema.checkpoints.adapters import LoRAFile
from kinema.checkpoints.expanders import expand_fields
from kinema.checkpoints.families.wan.model import Offload, is_wan
from kinema.device import pick_device
from kinema.errors import OutputError, RequestError
from kinema.evaluation.trust import add_noun_to_drift_report
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import read_clip
from kinema.generation.conditioning.encode import describe_inputs
from kinema.generation.conditioning.storyboard_file import read_storyboard
from kinema.generation.conditioning.tasks import TaskRequest
from kinema.generation.cost.check import check_memory
from kinema.generation.job import Job
from kinema.generation.loading import load, manifest_of
from kinema.generation.output.artifacts import SHEET_METADATA, write_artifacts
from kinema.generation.output.quality import summary
from kinema.generation.pipeline import Pipeline
from kinema.generation.plan import Plan
from kinema.generation.progress import progress_bar, with_preview
from kinema.generation.request import Request
from kinema.generation.result import OnStep, Result
from kinema.prompts.expansion import PromptKind
from kinema.registry import lookup
from kinema.video import Video, png_bytes, read_metadata
from kinema.video.video import ENDINGS

Fields = dict[str, Any]
"""Fields of a `Request`, before it is made."""


def generate(arguments: argparse.Namespace) -> int:
    """A video of a prompt and of pictures."""

    def fill(given: Fields, fps: float) -> TaskRequest:
        kind: PromptKind = "image" if arguments.image else "text"
        given = _expand_prompt(arguments, given, kind, arguments.image)
        if not (arguments.image or arguments.last_image or arguments.keyframe):
            return TaskRequest(Request(**given), {})

        first = _read_input(arguments.image, fps) if arguments.image else None
        last = _read_input(arguments.last_image, fps) if arguments.last_image else None
        keyframes = [(at_s, _read_input(file, fps)) for at_s, file in arguments.keyframe]
        return tasks.pictures(given, first=first, last=last, keyframes=keyframes, fit=arguments.fit)

    return _run(arguments, fill)


def extend(arguments: argparse.Namespace) -> int:
    """A clip with seconds added to it."""

    def fill(given: Fields, fps: float) -> TaskRequest:
        added_s = given.pop("seconds")
        clip = _read_input(arguments.clip, fps)
        return tasks.extend(
            given, clip, seconds=added_s, direction=arguments.direction, fps=fps, fit=arguments.fit
        )

    return _run(arguments, fill)


def connect(arguments: argparse.Namespace) -> int:
    """Two clips with a transition between them."""

    def fill(given: Fields, fps: float) -> TaskRequest:
        between_s = given.pop("seconds")
        first, second = _read_input(arguments.first, fps), _read_input(arguments.second, fps)
        return tasks.connect(given, first, second, seconds=between_s, fps=fps, fit=arguments.fit)

    return _run(arguments, fill)


def loop(arguments: argparse.Namespace) -> int:
    """A seamless loop."""
    if arguments.prompt and arguments.clip is None and Path(arguments.prompt).is_file():
        arguments.clip, arguments.prompt = Path(arguments.prompt), ""
    if not arguments.prompt and arguments.clip is None:
        raise RequestError("a loop needs a prompt, or a clip that is given with --clip")

    def fill(given: Fields, fps: float) -> TaskRequest:
        clip = None if arguments.clip is None else _read_input(arguments.clip, fps)
        return tasks.loop(given, clip, fps=fps, fit=arguments.fit)

    return _run(arguments, fill)


def edit(arguments: argparse.Namespace) -> int:
    """An edited clip."""

    def fill(given: Fields, fps: float) -> TaskRequest:
        return tasks.edit(
            _expand_prompt(arguments, given, "edit", arguments.clip),
            _read_input(arguments.clip, fps),
            strength=arguments.strength,
            region=arguments.region,
            mask=_read_input(arguments.mask, fps) if arguments.mask else None,
            start_s=arguments.start,
            end_s=arguments.end,
            fps=fps,
            fit=arguments.fit,
        )

    return _run(arguments, fill)


def storyboard(arguments: argparse.Namespace) -> int:
    """The video of a storyboard file. Its settings replace the options, but for the length."""

    def fill(given: Fields, fps: float) -> TaskRequest:
        settings, shots = read_storyboard(arguments.board, fps)
        if "seconds" in given or "frames" in given:
            settings = {name: value for name, value in settings.items() if name != "seconds"}
        return tasks.storyboard({**given, **settings}, shots, fps=fps, fit=arguments.fit)

    return _run(arguments, fill)


def continue_job(arguments: argparse.Namespace) -> int:
    """The result of a saved job, from where it was interrupted or from its noise with another number of
    steps."""
    job = Job(arguments.job)
    request = job.request()
    pipeline = _load_pipeline(arguments, arguments.model or request.model, request)
    _check_output(arguments, pipeline.plan(request))

    if arguments.steps is not None and arguments.steps != request.steps:
        job.save_request(replace(request, steps=arguments.steps), job.inputs(request))
    print(pipeline.plan(job.request()).text)
    with _progress(arguments, pipeline) as on_step:
        result = pipeline.continue_job(arguments.job, path=arguments.out, on_step=on_step)
    _finish(arguments, result)
    return 0


def _run(arguments: argparse.Namespace, fill: Callable[[Fields, float], TaskRequest]) -> int:
    """Generate the video of the request that `fill` makes from its given fields and the model's rate."""
    request, inputs = fill(_request_fields(arguments), manifest_of(arguments.model).fps)
    pipeline = _load_pipeline(arguments, arguments.model, request)
    plan = pipeline.plan(request)
    _check_output(arguments, plan)

    print(plan.text)
    for line in describe_inputs(plan, inputs):
        print(line)
    for _, prompt in plan.prompts:
        if notice := pipeline.read_prompt(prompt).text if prompt else "":
            print(notice)

    try:
        with _progress(arguments, pipeline) as on_step:
            result = pipeline.write(request, arguments.out, inputs=inputs, on_step=on_step, job=arguments.job)
    except KeyboardInterrupt:
        if arguments.job is not None:
            print(f"'kinema continue {arguments.job} -o {arguments.out}' continues from here")
        raise
    _finish(arguments, result)
    return 0


def _request_fields(arguments: argparse.Namespace) -> Fields:
    """The fields of a request that options were given for, or that have a default."""
    names = {field.name for field in fields(Request)}
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    if arguments.size is not None:
        given["width"], given["height"] = arguments.size
    return given


def _load_pipeline(arguments: argparse.Namespace, model: str, request: Request) -> Pipeline:
    """The pipeline of `model` with the adapters of --lora, each of which is printed.

    The oracle also measures long videos when it knows the model's vocabulary. Raises `RequestError`, before
    anything is loaded, when a Wan model needs more memory for `request` than is free.
    """
    loras = [LoRAFile.parse(text) for text in arguments.lora]
    if is_wan(Path(model)) and not arguments.beyond_memory:
        offload: Offload = arguments.offload or "text"
        check_memory(Path(model), request, pick_device(arguments.device), arguments.precision, offload)

    pipeline = load(
        model,
        device=arguments.device,
        precision=arguments.precision,
        offload=arguments.offload,
        attention=arguments.attention,
    )
    for lora in loras:
        num_layers = pipeline.add_lora(lora)
        print(f"{lora.path}: applied {num_layers}/{num_layers} at scale {lora.scale:g}")
    add_noun_to_drift_report(pipeline)
    return pipeline


def _expand_prompt(
    arguments: argparse.Namespace, given: Fields, kind: PromptKind, file: Path | None
) -> Fields:
    """The fields with the prompt expanded if --expand asks for it, which prints both prompts.

    The expander also receives the first frame of `file`.
    """
    if not arguments.expand:
        return given

    picture = None if file is None else png_bytes(Video.read(file, max_frames=1).frames[0])
    given, expansion = expand_fields(given, arguments.expander_source, kind, picture)
    print("\n".join(expansion.lines))
    return given


def _read_input(file: Path, fps: float) -> Video:
    """The clip or picture in a file at the model's rate. Prints the file's own rate if it differs."""
    native_fps = Video.read(file, max_frames=1).fps
    video = read_clip(file, fps)
    if video.num_frames > 1 and native_fps != fps:
        print(f"{file}: {native_fps:.4g} fps, resampled to {fps:g} fps")
    return video


def _progress(arguments: argparse.Namespace, pipeline: Pipeline) -> AbstractContextManager[OnStep]:
    """The function to call after each step, which draws a progress bar and writes the preview."""
    bar = progress_bar()
    return bar if arguments.preview is None else with_preview(bar, pipeline, arguments.preview)


def _finish(arguments: argparse.Namespace, result: Result) -> None:
    """Write the files that accompany the video, and print what was made."""
    for warning in result.warnings:
        print(warning)
    if cached := result.report.get("cache"):
        print(f"{cached['computed']} estimates computed for {cached['steps']} steps")
    if quality := summary(result.report):
        print(quality)

    plan = result.plan
    files = [arguments.out, *write_artifacts(result, arguments.out, sheet=_sheet_file(arguments, plan))]
    has_similarity = result.similarity is not None and plan.request.prompt
    similarity = f"; CLIP similarity {result.similarity:.2f}" if has_similarity else ""
    print(
        f"{', '.join(map(str, files))} in {result.seconds:.1f} s, "
        f"by {result.model_name} {result.model_hash} with seed {plan.request.seed}{similarity}"
    )


def _sheet_file(arguments: argparse.Namespace, plan: Plan) -> Path | None:
    """The file of the contact sheet, or None for a single frame and with --no-sheet."""
    return None if plan.frames == 1 or arguments.no_sheet else arguments.out.with_suffix(".png")


def _check_output(arguments: argparse.Namespace, plan: Plan) -> None:
    """Raise `RequestError` or `OutputError`, before the work, for an output file that could not be
    written."""
    file, sheet = arguments.out, _sheet_file(arguments, plan)
    if lookup(ENDINGS, file.suffix.lower(), kind="video ending") == "png" and plan.frames > 1:
        raise RequestError(
            f"{file} holds one frame, and the request has {plan.frames}: use --frames 1, or an .mp4 file"
        )
    if arguments.preview is not None and arguments.preview.suffix.lower() != ".gif":
        raise RequestError(f"{arguments.preview} is not a .gif file: a preview needs one")

    for path in (file, sheet, arguments.preview):
        if path is not None:
            _check_writable(path)
    if sheet is not None and sheet.exists() and not SHEET_METADATA.items() <= read_metadata(sheet).items():
        raise OutputError(
            f"{sheet}, the file of the contact sheet, is another picture: use another --out, or --no-sheet"
        )


def _check_writable(file: Path) -> None:
    """Raise `OutputError` when `file` is a folder, or when its nearest existing parent is not a writable
    folder."""
    if file.is_dir():
        raise OutputError(f"{file} is a folder: name a file")
    parent = next(parent for parent in file.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not a writable folder: use another --out")
