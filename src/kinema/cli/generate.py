"""Generates a video from words, and from pictures if there are any, with a contact sheet of it as a picture beside it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import (
    add_expansion,
    add_fields,
    add_fit,
    add_length,
    add_output,
    expand_prompt,
    make,
    read_input,
)

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what the video shows, in English or Chinese")
    add_output(parser)
    add_length(parser)
    parser.add_argument("--image", type=Path, metavar="FILE", help="the picture it begins with, of any size")
    parser.add_argument("--last-image", type=Path, metavar="FILE", help="the picture it ends with")
    parser.add_argument(
        "--keyframe",
        type=_keyframe,
        action="append",
        default=[],
        metavar="S:FILE",
        help="a picture at second S; as often as wanted",
    )
    add_expansion(parser)
    add_fit(parser)
    add_fields(parser)


def run(arguments: argparse.Namespace) -> int:
    from kinema.generation.conditioning.tasks import pictures
    from kinema.generation.request import Request

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        fields = expand_prompt(arguments, fields, "image" if arguments.image else "text", arguments.image)
        if not (arguments.image or arguments.last_image or arguments.keyframe):
            return Request(**fields), {}
        first, last = (
            read_input(file, fps) if file else None for file in (arguments.image, arguments.last_image)
        )
        keyframes = [(at_s, read_input(file, fps)) for at_s, file in arguments.keyframe]
        return pictures(fields, first=first, last=last, keyframes=keyframes, fit=arguments.fit)

    return make(arguments, fill)


def _keyframe(text: str) -> tuple[float, Path]:
    """(second, file) from "1.5:picture.png"."""
    second, colon, file = text.partition(":")
    try:
        at_s = float(second)
    except ValueError:
        at_s = -1.0
    if not colon or not file or not at_s >= 0:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a keyframe: write SECOND:FILE, e.g. 1.5:middle.png"
        )
    return at_s, Path(file)
