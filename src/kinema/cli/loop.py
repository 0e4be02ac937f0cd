"""Makes a video whose end runs on into its beginning: from words, or from a clip that finds back to its first frame."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.options import add_fields, add_fit, add_length, add_output, make, read_input

if TYPE_CHECKING:
    from kinema.generation.conditioning.tasks import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help="what the loop shows")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a clip that the loop begins with")
    add_output(parser)
    add_length(parser)
    add_fit(parser)
    add_fields(parser)


def run(arguments: argparse.Namespace) -> int:
    from kinema.errors import RequestError
    from kinema.generation.conditioning.tasks import loop

    if arguments.prompt and arguments.clip is None and Path(arguments.prompt).is_file():
        arguments.clip, arguments.prompt = Path(arguments.prompt), ""
    if not arguments.prompt and arguments.clip is None:
        raise RequestError("a loop of what? give a prompt, or a clip with --clip")

    def fill(fields: dict[str, Any], fps: float) -> "Task":
        return loop(
            fields,
            None if arguments.clip is None else read_input(arguments.clip, fps),
            fps=fps,
            fit=arguments.fit,
        )

    return make(arguments, fill)
