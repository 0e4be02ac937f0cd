"""Makes one video of a storyboard: a YAML file with timed prompts, pictures and clips."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import add_fields, add_fit, add_length, add_output, make

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "board",
        type=Path,
        metavar="BOARD.yaml",
        help="a list of shots, each with 'at' in seconds and 'prompt', 'image' or 'clip'",
    )
    add_output(parser)
    add_length(parser)
    add_fit(parser)
    add_fields(parser)
    parser.set_defaults(prompt="")


def run(arguments: argparse.Namespace) -> int:
    from kinema.generation.conditioning.storyboard_file import read_board
    from kinema.generation.conditioning.tasks import storyboard

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        own, shots = read_board(arguments.board, fps)
        if "seconds" in fields or "frames" in fields:
            own = {name: value for name, value in own.items() if name != "seconds"}
        return storyboard({**fields, **own}, shots, fps=fps, fit=arguments.fit)

    return make(arguments, fill)
