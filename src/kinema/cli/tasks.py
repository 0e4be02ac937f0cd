"""The work of the verbs that generate a video. It imports torch, so verbs import it when they run."""

import argparse
import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from kinema import config
from kinema.checkpoints.adapters import LoRAFile
from kinema.cli.options import given_fields
from kinema.device import pick_device
from kinema.errors import OutputError, RequestError
from kinema.evaluation.trust import noun_metric
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import read_input
from kinema.generation.conditioning.encode import describe_inputs
from kinema.generation.conditioning.prompt import with_clip_prompt, with_expanded_prompt
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
from kinema.video import read_metadata
from kinema.video.video import ENDINGS


def generate(arguments: argparse.Namespace) -> int:
    """A video of a prompt and of pictures."""
    request, fps = _start(arguments)
    first = read_input(arguments.image, fps, print) if arguments.image else None
    if arguments.expand:
        kind: PromptKind = "image" if first else "text"
        request = with_expanded_prompt(request, arguments.expander_source, kind, print, first)
    if not (arguments.image or arguments.last_image or arguments.keyframe):
        return _run(arguments, TaskRequest(request, {}))
    if first is not None and manifest_of(request.model).max_frames == 1:
        mask = read_input(arguments.mask, fps, print).video if arguments.mask else None
        task = tasks.edit(
            request, first.video, strength=arguments.strength, mask=mask, fps=fps, fit=arguments.fit
        )
        return _run(arguments, task)
    if arguments.mask is not None:
        raise RequestError("--mask needs --image and a model of single pictures: use kinema edit for clips")

    task = tasks.pictures(
        request,
        first=first.video if first else None,
        last=read_input(arguments.last_image, fps, print).video if arguments.last_image else None,
        keyframes=[(at_s, read_input(file, fps, print).video) for at_s, file in arguments.keyframe],
        fit=arguments.fit,
    )
    return _run(arguments, task)


def extend(arguments: argparse.Namespace) -> int:
    """A clip with seconds added to it."""
    request, fps = _start(arguments)
    clip, direction = read_input(arguments.clip, fps, print), arguments.direction
    if arguments.prompt is None:
        request = with_clip_prompt(request, [clip], print, at_end=direction != "backward")

    task = tasks.extend(
        request, clip.video, seconds=arguments.added_s, direction=direction, fps=fps, fit=arguments.fit
    )
    return _run(arguments, task)


def connect(arguments: argparse.Namespace) -> int:
    """Two clips with a transition between them."""
    request, fps = _start(arguments)
    clips = [read_input(file, fps, print) for file in (arguments.first, arguments.second)]
    if arguments.prompt is None:
        request = with_clip_prompt(request, clips, print)

    first, second = (clip.video for clip in clips)
    task = tasks.connect(request, first, second, seconds=arguments.added_s, fps=fps, fit=arguments.fit)
    return _run(arguments, task)


def loop(arguments: argparse.Namespace) -> int:
    """A seamless loop."""
    if arguments.prompt and arguments.clip is None and Path(arguments.prompt).is_file():
        arguments.clip, arguments.prompt = Path(arguments.prompt), None
    if not arguments.prompt and arguments.clip is None:
        raise RequestError("a loop needs a prompt, or a clip that is given with --clip")

    request, fps = _start(arguments)
    clip = None if arguments.clip is None else read_input(arguments.clip, fps, print)
    if arguments.prompt is None and clip is not None:
        request = with_clip_prompt(request, [clip], print)
    task = tasks.loop(request, None if clip is None else clip.video, fps=fps, fit=arguments.fit)
    return _run(arguments, task)


def edit(arguments: argparse.Namespace) -> int:
    """An edited clip."""
    request, fps = _start(arguments)
    clip = read_input(arguments.clip, fps, print)
    if arguments.expand:
        request = with_expanded_prompt(request, arguments.expander_source, "edit", print, clip)

    task = tasks.edit(
        request,
        clip.video,
        strength=arguments.strength,
        region=arguments.region,
        mask=read_input(arguments.mask, fps, print).video if arguments.mask else None,
        start_s=arguments.start,
        end_s=arguments.end,
        fps=fps,
        fit=arguments.fit,
    )
    return _run(arguments, task)


def storyboard(arguments: argparse.Namespace) -> int:
    """The video of a storyboard file. Its settings replace the options, but for the length."""
    request, fps = _start(arguments)
    settings, shots = read_storyboard(arguments.board, fps, print)
    if request.seconds is not None or request.frames is not None:
        settings.pop("seconds", None)
    request = config.from_dict(Request, {"prompt": "", **given_fields(arguments), **settings})
    return _run(arguments, tasks.storyboard(request, shots, fps=fps, fit=arguments.fit))


def continue_job(arguments: argparse.Namespace) -> int:
    """The result of a saved job, from where it was interrupted or from its noise with other steps."""
    job = Job(arguments.job)
    request = job.request()
    pipeline = _load_pipeline(arguments, arguments.model or request.model, request)
    _check_output(arguments, pipeline.plan(request))

    if arguments.steps is not None and arguments.steps != request.steps:
        job.replace_request(replace(request, steps=arguments.steps))
    print(pipeline.plan(job.request()).text)
    with _progress(arguments, pipeline) as on_step:
        result = pipeline.continue_job(arguments.job, path=arguments.out, on_step=on_step)
    _finish(arguments, result)
    return 0


def _start(arguments: argparse.Namespace) -> tuple[Request, float]:
    """The request of the given options without what depends on the task, and the model's rate."""
    request = Request(getattr(arguments, "prompt", None) or "", **given_fields(arguments))
    return request, manifest_of(request.model).fps


def _run(arguments: argparse.Namespace, task: TaskRequest) -> int:
    """Generate the video of a task."""
    request, inputs = task
    pipeline = _load_pipeline(arguments, request.model, request)
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


def _load_pipeline(arguments: argparse.Namespace, model: str, request: Request) -> Pipeline:
    """The pipeline of `model` with the adapters of --lora, each of which is printed.

    The oracle also measures long videos when it knows the model's vocabulary. Raises `RequestError`, before
    anything is loaded, when the model needs more memory for `request` than is free.
    """
    loras = [LoRAFile.parse(text) for text in arguments.lora]
    if not arguments.beyond_memory:
        device = pick_device(arguments.device)
        check_memory(model, request, device, arguments.precision, arguments.offload)

    pipeline = load(
        model,
        device=arguments.device,
        precision=arguments.precision,
        offload=arguments.offload,
        attention=arguments.attention,
        loras=loras,
        on_note=print,
    )
    return pipeline.with_metrics(noun_metric(pipeline.manifest, pipeline.device))


def _progress(arguments: argparse.Namespace, pipeline: Pipeline) -> AbstractContextManager[OnStep]:
    """The function to call after each step, which draws a progress bar and writes the preview."""
    bar = progress_bar()
    return bar if arguments.preview is None else with_preview(bar, pipeline, arguments.preview)


def _finish(arguments: argparse.Namespace, result: Result) -> None:
    """Write the files that accompany the video, and print what was made."""
    for line in (*result.warnings, result.object_line):
        if line:
            print(line)
    if cached := result.report.get("cache"):
        print(f"{cached['computed']} estimates computed for {cached['steps']} steps")
    if quality := summary(result.report):
        print(quality)

    plan = result.plan
    files = write_artifacts(result, arguments.out, sheet=_sheet_file(arguments, plan))
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
    """Raise `RequestError` or `OutputError`, before the work, for a file that could not be written."""
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
    """Raise `OutputError` if `file` is a folder, or its nearest existing parent is not a writable folder."""
    if file.is_dir():
        raise OutputError(f"{file} is a folder: name a file")
    parent = next(parent for parent in file.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not a writable folder: use another --out")
