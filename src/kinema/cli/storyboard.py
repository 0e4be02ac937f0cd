"""Generates a video from a storyboard: a YAML file with timed prompts, pictures and clips."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema storyboard`."""
    parser.add_argument(
        "board",
        type=Path,
        metavar="BOARD.yaml",
        help="a list of shots, each with 'at' in seconds and 'prompt', 'image' or 'clip'",
    )
    add_task_options(parser, length=True)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema storyboard`."""
    from kinema.cli.tasks import storyboard

    return storyboard(arguments)
