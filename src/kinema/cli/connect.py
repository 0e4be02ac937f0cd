"""Joins two clips by making what happens between them. Their own frames are kept."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import add_fields, add_fit, add_output, make, read_input

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="FIRST", help="the clip that comes first")
    parser.add_argument("second", type=Path, metavar="SECOND", help="the clip that it leads over to")
    parser.add_argument(
        "prompt", nargs="?", default="", metavar="PROMPT", help="what the part between them shows"
    )
    add_output(parser)
    parser.add_argument(
        "--seconds", type=float, required=True, metavar="S", help="how long the part between them is"
    )
    add_fit(parser)
    add_fields(parser)


def run(arguments: argparse.Namespace) -> int:
    from kinema.generation.conditioning.tasks import connect

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        between_s = fields.pop("seconds")
        clips = read_input(arguments.first, fps), read_input(arguments.second, fps)
        return connect(fields, *clips, seconds=between_s, fps=fps, fit=arguments.fit)

    return make(arguments, fill)
