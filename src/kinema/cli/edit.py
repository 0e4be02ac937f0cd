"""Changes a clip as words say: all of it, a region, what a mask shows, or a span of time. The rest is kept."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import add_expansion, add_fields, add_fit, add_output, expand_prompt, make, read_input

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    parser.add_argument("clip", type=Path, metavar="FILE", help="a video file of any kind")
    parser.add_argument("prompt", metavar="PROMPT", help="what it is to show")
    add_output(parser)
    parser.add_argument(
        "--strength",
        type=float,
        default=0.6,
        metavar="S",
        help="how much may change, above 0 to 1 (default: 0.6)",
    )
    where.add_argument(
        "--region", type=_region, metavar="X,Y,W,H", help="only this rectangle, in pixels of the result"
    )
    where.add_argument("--mask", type=Path, metavar="FILE", help="only where this picture or clip is white")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="only from this second on")
    parser.add_argument("--end", type=float, metavar="S", help="only up to this second")
    add_expansion(parser)
    add_fit(parser)
    add_fields(parser)


def run(arguments: argparse.Namespace) -> int:
    from kinema.generation.conditioning.tasks import edit

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        return edit(
            expand_prompt(arguments, fields, "edit", arguments.clip),
            read_input(arguments.clip, fps),
            strength=arguments.strength,
            region=arguments.region,
            mask=read_input(arguments.mask, fps) if arguments.mask else None,
            start_s=arguments.start,
            end_s=arguments.end,
            fps=fps,
            fit=arguments.fit,
        )

    return make(arguments, fill)


def _region(text: str) -> tuple[int, int, int, int]:
    """(x, y, width, height) from "16,8,32,32"."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a region: write X,Y,WIDTH,HEIGHT in pixels, e.g. 16,8,32,32"
        )
    x, y, width, height = map(int, parts)
    return x, y, width, height
