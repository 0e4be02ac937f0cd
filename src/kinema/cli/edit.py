"""Edits a clip by a prompt: all of it, a region, a mask or a time span. The rest is kept."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema edit`."""
    parser.add_argument("clip", type=Path, metavar="FILE", help="a video file of any kind")
    parser.add_argument("prompt", metavar="PROMPT", help="what the edited clip shows")
    parser.add_argument(
        "--strength",
        type=float,
        default=0.6,
        metavar="S",
        help="noise level that the edit starts from, above 0 to 1: higher changes more (default: 0.6)",
    )
    area = parser.add_mutually_exclusive_group()
    area.add_argument(
        "--region", type=_region, metavar="X,Y,W,H", help="edit only this rectangle, in pixels of the result"
    )
    area.add_argument(
        "--mask", type=Path, metavar="FILE", help="edit only where this picture or clip is white"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="edit from this second on")
    parser.add_argument("--end", type=float, metavar="S", help="edit up to this second")
    add_task_options(parser, expansion=True)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema edit`."""
    from kinema.cli.tasks import edit

    return edit(arguments)


def _region(text: str) -> tuple[int, int, int, int]:
    """(x, y, width, height) from "16,8,32,32"."""
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a region: write X,Y,WIDTH,HEIGHT in pixels, e.g. 16,8,32,32"
        )
    x, y, width, height = map(int, numbers)
    return x, y, width, height
