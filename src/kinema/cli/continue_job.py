"""Finishes an interrupted run, or samples its noise again with another number of steps."""

import argparse
from pathlib import Path

from kinema.cli.options import add_output_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema continue`."""
    parser.add_argument("job", type=Path, metavar="JOB_DIR", help="the folder that was given with --job")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="start again from the same noise with this number of sampler steps, e.g. to finish a draft",
    )
    parser.add_argument("--model", metavar="DIR", help="the model's present folder, if it was moved")
    add_output_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema continue`."""
    from kinema.cli.tasks import continue_job

    return continue_job(arguments)
