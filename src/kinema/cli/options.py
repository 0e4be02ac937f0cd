"""What all verbs that make a video have in common: their options, what they say, and the files they write."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.arguments import interval, size

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import TaskRequest
    from kinema.prompts.expansion import PromptKind
    from kinema.generation.pipeline import Pipeline
    from kinema.generation.plan import Plan
    from kinema.generation.request import Request
    from kinema.generation.result import Result
    from kinema.video import Video

FITS = ("crop", "pad", "stretch")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes, and the model that makes it."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".mp4, .webm, .mkv, .gif, or .png for one frame",
    )
    parser.add_argument("--no-sheet", action="store_true", help="write no contact sheet")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.gif", help="while it is made, what it begins to look like"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="where to compute (default: the fastest there is)"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the backbone and the VAE (default: bf16 where it is fast)",
    )
    parser.add_argument(
        "--offload",
        choices=("none", "text", "layers"),
        help="of Wan's models: keep all on the device, the text encoder only while needed "
        "(default), or also the backbone's blocks one after the other",
    )
    parser.add_argument(
        "--attention",
        default="auto",
        metavar="NAME",
        help="the backbone's kernel: auto, flash, cudnn, efficient or math",
    )
    parser.add_argument(
        "--beyond-memory", action="store_true", help="begin even if the memory that is free seems too small"
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:scale]",
        help="an adapter to apply; may be given again",
    )


def add_length(parser: argparse.ArgumentParser) -> None:
    """How long the result is."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, metavar="S", help="length as a duration")
    length.add_argument("--frames", type=int, metavar="N", help="length as a number of frames")


def add_fit(parser: argparse.ArgumentParser) -> None:
    """How inputs of another shape are fitted."""
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="inputs of another shape: their middle (default), all between bars, stretched",
    )


def add_fields(parser: argparse.ArgumentParser) -> None:
    """The fields of a request that every task has."""
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height in pixels, e.g. 128x128")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another seed, another video (default: 0)"
    )
    parser.add_argument("--negative", default="", metavar="TEXT", help="what the video should not show")
    parser.add_argument("--steps", type=int, metavar="N", help="how many steps the sampler takes")
    parser.add_argument(
        "--sampler", metavar="NAME", help="euler, heun, unipc and others; an unknown name lists them all"
    )
    parser.add_argument(
        "--guidance", type=float, metavar="G", help="how closely the words are followed; 1 is no guidance"
    )
    parser.add_argument(
        "--guidance-interval",
        type=interval,
        metavar="LOW,HIGH",
        help="guidance only at these diffusion times (0 data, 1 noise): cheaper",
    )
    parser.add_argument(
        "--cache",
        type=float,
        metavar="ERROR",
        help="forecast steps while a forecast is off by at most this, e.g. 0.03",
    )
    parser.add_argument(
        "--shift",
        type=float,
        metavar="S",
        help="how far the sampler's times move towards noise; 1 is not at all",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="frames the model sees at a time (default: as many as it was trained with)",
    )
    parser.add_argument(
        "--anchor", action="store_true", help="windows of a long video also look back at its first frame"
    )
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="DIR",
        help="a model folder or file, Wan's among them (default: the model inside the package)",
    )
    parser.add_argument(
        "--beyond-trained",
        action="store_true",
        help="allow sizes and windows that the model was not trained with",
    )
    parser.add_argument(
        "--job",
        type=Path,
        metavar="DIR",
        help="keep the work there, so that 'kinema continue DIR' can finish it",
    )


def add_expansion(parser: argparse.ArgumentParser) -> None:
    """Whether the prompt is made longer first."""
    parser.add_argument(
        "--expand",
        action="store_true",
        help="make the prompt longer first, as the model's training captions are",
    )
    parser.add_argument(
        "--expander",
        default="shipped",
        metavar="WHERE",
        help="who does: a chat endpoint's address, a .toml file with its settings, a model folder (default: the one in the package)",
    )


def fields_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request that the options of `add_fields` and `add_length` give; those not given are left out."""
    width, height = arguments.size or (None, None)
    given = {
        "prompt": arguments.prompt or "",
        "negative_prompt": arguments.negative,
        "width": width,
        "height": height,
        "seconds": getattr(arguments, "seconds", None),
        "frames": getattr(arguments, "frames", None),
        "seed": arguments.seed,
        "steps": arguments.steps,
        "sampler": arguments.sampler,
        "guidance": arguments.guidance,
        "shift": arguments.shift,
        "guidance_interval": arguments.guidance_interval,
        "cache": arguments.cache,
        "window": arguments.window,
        "anchor": arguments.anchor,
        "model": arguments.model,
        "beyond_trained": arguments.beyond_trained,
    }
    return {name: value for name, value in given.items() if value is not None}


def load_model(arguments: argparse.Namespace, model: str, request: "Request") -> "Pipeline":
    """The pipeline of `model` with the adapters that are wanted, each of which is reported.

    Long videos are judged by the oracle too, when it knows the words of the model. Raises `RequestError`, before anything is loaded, when a
    model of the Wan family needs more memory for `request` than is free.
    """
    from kinema.checkpoints.adapters import LoRAFile
    from kinema.checkpoints.families.wan.model import is_wan
    from kinema.device import pick_device
    from kinema.evaluation.trust import add_noun_to_drift_report
    from kinema.generation.loading import load

    loras = [LoRAFile.parse(text) for text in arguments.lora]
    if is_wan(Path(model)) and not arguments.beyond_memory:
        from kinema.generation.cost.check import check_memory

        check_memory(
            Path(model),
            request,
            pick_device(arguments.device),
            arguments.precision,
            arguments.offload or "text",
        )
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


def expand_prompt(
    arguments: argparse.Namespace, fields: dict[str, Any], kind: "PromptKind", shown: Path | None
) -> dict[str, Any]:
    """The fields with the prompt expanded when that is asked for; both prompts are said. `shown` is the picture or clip it goes with."""
    if not arguments.expand:
        return fields
    from kinema.checkpoints.expanders import expand_fields
    from kinema.video import Video, png_bytes

    fields, expansion = expand_fields(
        fields,
        arguments.expander,
        kind,
        None if shown is None else png_bytes(Video.read(shown, max_frames=1).frames[0]),
    )
    print("\n".join(expansion.lines))
    return fields


def make(arguments: argparse.Namespace, fill: Callable[[dict[str, Any], float], "TaskRequest"]) -> int:
    """Load the model, fill the request of the task, make its video and say what was done."""
    from kinema.generation.conditioning.encode import describe_inputs
    from kinema.generation.loading import manifest_of

    request, inputs = fill(fields_of(arguments), manifest_of(arguments.model).fps)
    pipeline = load_model(arguments, arguments.model, request)
    plan = pipeline.plan(request)
    check_output(arguments, plan)
    print(plan.text)
    for line in describe_inputs(plan, inputs):
        print(line)
    for _, prompt in plan.prompts:
        if notice := pipeline.read_prompt(prompt).text if prompt else "":
            print(notice)
    try:
        with watching(arguments, pipeline) as on_step:
            result = pipeline.write(request, arguments.out, inputs=inputs, on_step=on_step, job=arguments.job)
    except KeyboardInterrupt:
        if arguments.job is not None:
            print(f"'kinema continue {arguments.job} -o {arguments.out}' goes on from here")
        raise
    finish(arguments, result)
    return 0


def finish(arguments: argparse.Namespace, result: "Result") -> None:
    """Write the files that accompany the video, and print what was made."""
    from kinema.generation.output.artifacts import write_artifacts
    from kinema.generation.output.quality import summary

    for warning in result.warnings:
        print(warning)
    if cached := result.report.get("cache"):
        print(f"{cached['computed']} estimates computed for {cached['steps']} steps")
    if quality := summary(result.report):
        print(quality)

    plan = result.plan
    files = [arguments.out, *write_artifacts(result, arguments.out, sheet=sheet_of(arguments, plan))]
    has_similarity = result.similarity is not None and plan.request.prompt
    similarity = f"; CLIP similarity {result.similarity:.2f}" if has_similarity else ""
    print(
        f"{', '.join(map(str, files))} in {result.seconds:.1f} s, "
        f"by {result.model_name} {result.model_hash} with seed {plan.request.seed}{similarity}"
    )


def read_input(file: Path, fps: float) -> "Video":
    """The clip or picture in a file, at the model's rate, which is said when it is another than the file's."""
    from kinema.generation.conditioning.clips import read_clip
    from kinema.video import Video

    native_fps = Video.read(file, max_frames=1).fps
    video = read_clip(file, fps)
    if video.num_frames > 1 and native_fps != fps:
        print(f"{file}: {native_fps:.4g} fps, taken at {fps:g} fps")
    return video


def sheet_of(arguments: argparse.Namespace, plan: "Plan") -> Path | None:
    """Where the contact sheet goes, or None when there is to be none."""
    return None if plan.frames == 1 or arguments.no_sheet else arguments.out.with_suffix(".png")


def check_output(arguments: argparse.Namespace, plan: "Plan") -> None:
    """Raise, before the work and not after it, for a file that could not be written."""
    from kinema.errors import OutputError, RequestError
    from kinema.generation.output.artifacts import SHEET_METADATA
    from kinema.registry import lookup
    from kinema.video import read_metadata
    from kinema.video.video import ENDINGS

    file = arguments.out
    if lookup(ENDINGS, file.suffix.lower(), kind="video ending") == "png" and plan.frames > 1:
        raise RequestError(
            f"{file} holds one picture and {plan.frames} frames were asked for: use --frames 1, or .mp4"
        )
    if arguments.preview is not None and arguments.preview.suffix.lower() != ".gif":
        raise RequestError(f"a preview is a .gif, not {arguments.preview}")
    sheet = sheet_of(arguments, plan)
    for place in (file, sheet, arguments.preview):
        if place is not None:
            _check_place(place)
    if sheet is not None and sheet.exists() and not SHEET_METADATA.items() <= read_metadata(sheet).items():
        raise OutputError(
            f"{sheet}, where the contact sheet goes, is another picture: use another --out, or --no-sheet"
        )


def watching(arguments: argparse.Namespace, pipeline: "Pipeline") -> Any:
    """A context that gives the function to call after each step: a bar, and the preview when one is wanted."""
    from kinema.generation.progress import progress_bar, with_preview

    return (
        progress_bar()
        if arguments.preview is None
        else with_preview(progress_bar(), pipeline, arguments.preview)
    )


def _check_place(file: Path) -> None:
    """Raise when `file` is a folder, or when the nearest folder above it that is there may not be written into."""
    from kinema.errors import OutputError

    if file.is_dir():
        raise OutputError(f"{file} is a folder: name a file")
    above = next(parent for parent in file.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OutputError(f"{above} is not a folder that may be written into")
