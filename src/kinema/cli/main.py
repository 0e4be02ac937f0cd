"""The `kinema` command: runs a verb, and prints an error as one line.

Exit codes: 0 done; 1 a check failed; 2 an error that the user can correct; 130 stopped with Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from kinema.cli.arguments import Parser
from kinema.errors import KinemaError
from kinema.registry import lookup

# Verb: (module, one-line help). A module has `add_arguments(parser)` and `run(arguments) -> int`,
# and is imported when its verb is called.
VERBS = {
    "generate": ("kinema.cli.generate", "generate a video from a prompt"),
    "extend": ("kinema.cli.extend", "extend a clip at its end, its start or both"),
    "connect": ("kinema.cli.connect", "join two clips with a generated transition"),
    "loop": ("kinema.cli.loop", "generate a seamless loop"),
    "edit": ("kinema.cli.edit", "edit a clip, or a part of it, by a prompt"),
    "storyboard": ("kinema.cli.storyboard", "generate a video from timed prompts, pictures and clips"),
    "continue": ("kinema.cli.continue_job", "finish an interrupted run"),
    "plan": ("kinema.cli.plan", "estimate memory and time of a video with a large model"),
    "train": ("kinema.cli.train", "train a network from a recipe"),
    "scaling": ("kinema.cli.scaling", "measure scaling laws and forecast larger runs"),
    "evaluate": ("kinema.cli.evaluate", "measure how well a model follows its prompts"),
    "caption": ("kinema.cli.caption", "caption video files"),
    "worlds": ("kinema.cli.worlds", "list and preview the procedural worlds"),
    "data": ("kinema.cli.data", "build and inspect data sets of real videos"),
    "models": ("kinema.cli.models", "inspect, verify and convert models"),
    "serve": ("kinema.cli.serve", "start the server: videos API, jobs and page"),
    "worker": ("kinema.cli.worker", "run the jobs of a server on more devices"),
    "keys": ("kinema.cli.keys", "create, list and revoke API keys of a server"),
    "jobs": ("kinema.cli.jobs", "list, cancel and retry jobs of a server"),
    "webhooks": ("kinema.cli.webhooks", "add, list and test webhooks of a server"),
    "doctor": ("kinema.cli.doctor", "check the installation"),
}


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of the command line `words`, by default the process's own."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # idle threads sleep; has an effect only before torch is imported
    words, debug = _without_debug(sys.argv[1:] if words is None else words)
    try:
        return _run(words)
    except KeyboardInterrupt:
        if debug:
            raise
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output (head, less) has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (KinemaError, OSError, MemoryError) as error:
        if debug:
            raise
        print(f"kinema: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(words: Sequence[str]) -> int:
    end = next((i for i, word in enumerate(words, 1) if not word.startswith("-")), len(words))
    name = _parser().parse_args(words[:end] or ["--help"]).verb
    module_name, help_line = lookup(VERBS, name, kind="verb")
    verb = import_module(module_name)
    parser = Parser(prog=f"kinema {name}", description=verb.__doc__ or help_line)
    verb.add_arguments(parser)
    return int(verb.run(parser.parse_args(words[end:])))


def _parser() -> Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {help_line}" for name, (_, help_line) in VERBS.items())
    parser = Parser(
        prog="kinema",
        usage="kinema [--debug] VERB ...",
        description=f"Trains, runs and evaluates text-to-video models.\n\nverbs:\n{verbs}",
        epilog="'kinema VERB --help' lists the options of a verb. --debug prints the traceback of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kinema {_version()}")
    parser.add_argument("verb", metavar="VERB", help=argparse.SUPPRESS)
    return parser


def _without_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without `--debug`, which is accepted anywhere before a `--`, and whether it was given."""
    end = words.index("--") if "--" in words else len(words)
    options = [word for word in words[:end] if word != "--debug"]
    return [*options, *words[end:]], len(options) < end


def _one_line(error: KinemaError | OSError | MemoryError) -> str:
    """The error as one line. For a system error the file comes first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"out of memory: {text}" if isinstance(error, MemoryError) else text


def _version() -> str:
    try:
        return version("kinema")
    except PackageNotFoundError:
        return "(not installed)"
