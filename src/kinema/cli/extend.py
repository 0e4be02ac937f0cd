"""Extends a clip at its end, its start or both. The clip's own frames are kept."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema extend`."""
    parser.add_argument("clip", type=Path, metavar="FILE", help="a video file of any kind")
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="what the added part shows (default: the prompt in the clip's metadata, or else its caption)",
    )
    parser.add_argument(
        "--seconds",
        dest="added_s",
        type=float,
        required=True,
        metavar="S",
        help="seconds to add, at each extended side",
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="where to add them (default: forward)",
    )
    add_task_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema extend`."""
    from kinema.cli.tasks import extend

    return extend(arguments)
