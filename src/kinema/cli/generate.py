"""Generates a video from words, and a contact sheet of it as a picture beside it."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.cli.arguments import size

if TYPE_CHECKING:
    from kinema.generate.request import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    parser.add_argument("prompt", metavar="PROMPT", help="what the video shows, in English or Chinese")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=".mp4, .webm, .mkv, .gif, or .png for one frame")
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height in pixels, e.g. 128x128")
    length.add_argument("--seconds", type=float, metavar="S", help="length as a duration")
    length.add_argument("--frames", type=int, metavar="N", help="length as a number of frames")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another video (default: 0)")
    parser.add_argument("--negative", default="", metavar="TEXT", help="what the video should not show")
    parser.add_argument("--steps", type=int, metavar="N", help="how many steps the sampler takes")
    parser.add_argument("--sampler", metavar="NAME", help="euler, heun, unipc and others; an unknown name lists them all")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the words are followed; 1 is no guidance")
    parser.add_argument("--shift", type=float, metavar="S", help="how far the sampler's times move towards noise; 1 is not at all")
    parser.add_argument(
        "--model", default="shipped", metavar="DIR", help="a model folder or file, Wan's among them (default: the model inside the package)"
    )
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[:scale]", help="an adapter to apply; may be given again")
    parser.add_argument("--device", default="auto", metavar="NAME", help="where to compute (default: the fastest there is)")
    parser.add_argument("--beyond-trained", action="store_true", help="allow sizes and lengths that the model was not trained with")
    parser.add_argument("--no-sheet", action="store_true", help="write no contact sheet")


def run(arguments: argparse.Namespace) -> int:
    from kinema.generate.pipeline import load
    from kinema.generate.progress import progress_bar
    from kinema.generate.request import Request
    from kinema.models.lora import LoRAFile
    from kinema.video import contact_sheet, save_image

    width, height = arguments.size or (None, None)
    request = Request(
        arguments.prompt,
        negative_prompt=arguments.negative,
        width=width,
        height=height,
        seconds=arguments.seconds,
        frames=arguments.frames,
        seed=arguments.seed,
        steps=arguments.steps,
        sampler=arguments.sampler,
        guidance=arguments.guidance,
        shift=arguments.shift,
        model=arguments.model,
        beyond_trained=arguments.beyond_trained,
    )
    pipeline = load(arguments.model, device=arguments.device)
    for lora in map(LoRAFile.parse, arguments.lora):
        num_layers = pipeline.add_lora(lora)
        print(f"{lora.path}: applied {num_layers}/{num_layers} at scale {lora.scale:g}")
    plan = pipeline.plan(request)
    _check_output(arguments.out, plan)
    sheet = None if plan.frames == 1 or arguments.no_sheet else arguments.out.with_suffix(".png")
    if sheet is not None:
        _check_place(sheet)
    print(plan.text)
    if notice := pipeline.read_prompt(request.prompt).text:
        print(notice)
    with progress_bar() as on_step:
        result = pipeline.run(request, on_step=on_step)
    written = [result.save(arguments.out)]
    if sheet is not None:
        written.append(save_image(sheet, contact_sheet([result.video], [request.prompt])))
    similarity = "" if result.similarity is None else f"; CLIP similarity {result.similarity:.2f}"
    print(
        f"{' and '.join(map(str, written))} in {result.seconds:.1f} s, "
        f"by {result.model_name} {result.model_hash} with seed {request.seed}{similarity}"
    )
    return 0


def _check_output(file: Path, plan: "Plan") -> None:
    """Raise, before the work and not after it, for a file that could not be written."""
    from kinema.errors import RequestError
    from kinema.lookup import lookup
    from kinema.video.video import ENDINGS

    if lookup(ENDINGS, file.suffix.lower(), kind="video ending") == "png" and plan.frames > 1:
        raise RequestError(f"{file} holds one picture and {plan.frames} frames were asked for: use --frames 1, or .mp4")
    _check_place(file)


def _check_place(file: Path) -> None:
    """Raise when `file` is a folder, or when the nearest folder above it that is there may not be written into."""
    from kinema.errors import OutputError

    if file.is_dir():
        raise OutputError(f"{file} is a folder: name a file")
    above = next(parent for parent in file.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OutputError(f"{above} is not a folder that may be written into")
