"""Joins two clips with a generated transition. Their own frames are kept."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema connect`."""
    parser.add_argument("first", type=Path, metavar="FIRST", help="the first clip")
    parser.add_argument("second", type=Path, metavar="SECOND", help="the second clip")
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="what the transition shows (default: the prompt of a clip)",
    )
    parser.add_argument(
        "--seconds",
        dest="added_s",
        type=float,
        required=True,
        metavar="S",
        help="length of the transition in seconds",
    )
    add_task_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema connect`."""
    from kinema.cli.tasks import connect

    return connect(arguments)
