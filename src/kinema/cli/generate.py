"""Generates a video from a prompt and optional pictures, and a contact sheet of it."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema generate`."""
    parser.add_argument("prompt", metavar="PROMPT", help="what the video shows, in English or Chinese")
    parser.add_argument("--image", type=Path, metavar="FILE", help="picture for the first frame, of any size")
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="with a model of single pictures: change --image where white",
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=0.6,
        metavar="S",
        help="with a model of single pictures: noise level that --image is changed from (default: 0.6)",
    )
    parser.add_argument("--last-image", type=Path, metavar="FILE", help="picture for the last frame")
    parser.add_argument(
        "--keyframe",
        type=_keyframe,
        action="append",
        default=[],
        metavar="S:FILE",
        help="picture at second S; repeatable",
    )
    add_task_options(parser, length=True, expansion=True)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema generate`."""
    from kinema.cli.tasks import generate

    return generate(arguments)


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
