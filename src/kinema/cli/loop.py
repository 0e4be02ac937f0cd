"""Generates a seamless loop: of a prompt, or from a clip, which the loop starts with and returns to."""

import argparse
from pathlib import Path

from kinema.cli.options import add_task_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema loop`."""
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="what the loop shows (default: the prompt of the clip)"
    )
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a clip that the loop starts with")
    add_task_options(parser, length=True)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema loop`."""
    from kinema.cli.tasks import loop

    return loop(arguments)
