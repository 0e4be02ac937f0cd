"""The `kinema` command: finds the verb, runs it, and turns what went wrong into one line and an exit code.

Exit codes: 0 done; 1 a check failed; 2 something the user can put right; 130 stopped with Ctrl-C.
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

# verb: (module, one-line help). A module has `add_arguments(parser)` and `run(arguments) -> int`, and is imported when its verb is called.
VERBS = {
    "generate": ("kinema.cli.generate", "a video from words"),
    "extend": ("kinema.cli.extend", "a clip with more behind it, before it, or both"),
    "connect": ("kinema.cli.connect", "two clips with what happens between them"),
    "loop": ("kinema.cli.loop", "a video without an end"),
    "edit": ("kinema.cli.edit", "a clip changed as words say, or a part of it"),
    "storyboard": ("kinema.cli.storyboard", "one video of timed prompts, pictures and clips"),
    "continue": ("kinema.cli.continue_job", "a run that was stopped, finished"),
    "plan": ("kinema.cli.plan", "what a video of a large model will take"),
    "train": ("kinema.cli.train", "a model from a recipe"),
    "evaluate": ("kinema.cli.evaluate", "how well a model does what prompts say, against its world's truth"),
    "caption": ("kinema.cli.caption", "what happens in a video, in words"),
    "worlds": ("kinema.cli.worlds", "the procedural worlds that clips come from: list them, look at them"),
    "data": ("kinema.cli.data", "data sets of real videos: make one, check it, look into it"),
    "models": ("kinema.cli.models", "model folders: what is in one, and whether it is whole"),
    "doctor": ("kinema.cli.doctor", "whether this installation works, check by check"),
}


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of the command line `words` (that of the process by default)."""
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
    except BrokenPipeError:  # the reader of our output (head, less) has gone
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
        description=f"Videos from words: train, run and look into text-to-video models.\n\nverbs:\n{verbs}",
        epilog="'kinema VERB --help' lists what a verb takes. With --debug an error shows where it came from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kinema {_version()}")
    parser.add_argument("verb", metavar="VERB", help=argparse.SUPPRESS)
    return parser


def _without_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without `--debug`, which may stand anywhere before a `--`, and whether it was there."""
    end = words.index("--") if "--" in words else len(words)
    options = [word for word in words[:end] if word != "--debug"]
    return [*options, *words[end:]], len(options) < end


def _one_line(error: KinemaError | OSError | MemoryError) -> str:
    """What went wrong, as one line; for a system error the file comes first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"out of memory: {text}" if isinstance(error, MemoryError) else text


def _version() -> str:
    try:
        return version("kinema")
    except PackageNotFoundError:
        return "(not installed)"
