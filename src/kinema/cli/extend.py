"""Makes a clip longer: behind its end, before its beginning, or both. Its own frames are kept."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import add_fields, add_fit, add_output, make, read_input

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", type=Path, metavar="FILE", help="a video file of any kind")
    parser.add_argument(
        "prompt",
        nargs="?",
        default="",
        metavar="PROMPT",
        help="what the new part shows (default: whatever follows)",
    )
    add_output(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        required=True,
        metavar="S",
        help="how much is added, on each side that is extended",
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="where to (default: forward)",
    )
    add_fit(parser)
    add_fields(parser)


def run(arguments: argparse.Namespace) -> int:
    from kinema.generation.conditioning.tasks import extend

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        added_s = fields.pop("seconds")
        clip = read_input(arguments.clip, fps)
        return extend(
            fields, clip, seconds=added_s, direction=arguments.direction, fps=fps, fit=arguments.fit
        )

    return make(arguments, fill)
