"""Measures how well a model's videos follow their prompts, against the truth of the world that it was trained
on.

Half of the prompts are combinations that training held out. With --tasks it measures the tasks of the
timeline instead: extension, connection, loops, edits and long videos, compared with the true clips. An
interrupted evaluation continues when it is called again.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.arguments import positive
from kinema.cli.options import add_device_option, add_sampling_options
from kinema.errors import RequestError
from kinema.terminal import ProgressBars

if TYPE_CHECKING:
    from kinema.evaluation.run_folder import OnProgress
    from kinema.generation.pipeline import Pipeline

DEFAULT_PROMPTS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema evaluate`."""
    parser.add_argument(
        "model",
        nargs="?",
        default="shipped",
        metavar="MODEL",
        help="a model folder (default: the model in the package)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the evaluation (default: runs/evaluate/ and the model's name and hash)",
    )
    parser.add_argument(
        "--oracle",
        type=Path,
        metavar="DIR",
        help="an oracle trained with recipes/oracle.toml (default: the one in the package)",
    )
    add_device_option(parser)
    add_sampling_options(parser.add_argument_group("sampling"))

    prompts = parser.add_argument_group("prompt following")
    prompts.add_argument(
        "--prompts",
        type=positive,
        metavar="N",
        help=f"number of prompts of each kind (default: {DEFAULT_PROMPTS})",
    )
    splits = prompts.add_mutually_exclusive_group()
    splits.add_argument("--held-out", action="store_true", help="only combinations that training held out")
    splits.add_argument("--seen", action="store_true", help="only combinations of the training data")
    splits.add_argument("--both", action="store_true", help="both, reported separately (default)")
    prompts.add_argument("--frames", type=positive, metavar="N", help="frames of each clip")
    prompts.add_argument("--real-clip", type=Path, metavar="FILE", help="also measure the VAE on this video")

    tasks = parser.add_argument_group("timeline")
    tasks.add_argument("--tasks", action="store_true", help="measure the tasks of the timeline")
    tasks.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="measure only this task; repeatable, an unknown name lists all",
    )
    tasks.add_argument(
        "--cases", type=positive, metavar="N", help="cases of each task (default: 50, 5 for long videos)"
    )
    tasks.add_argument(
        "--long-seconds", type=float, default=60.0, metavar="S", help="length of a long video (default: 60)"
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema evaluate`."""
    from kinema.generation.loading import load

    is_timeline = bool(arguments.tasks or arguments.task)
    _check_options(arguments, is_timeline)
    pipeline = load(arguments.model, device=arguments.device)
    name = f"{pipeline.manifest.name}-{pipeline.model_hash}{'-tasks' if is_timeline else ''}"
    out = arguments.out or Path("runs") / "evaluate" / name

    evaluate = _evaluate_timeline if is_timeline else _evaluate_prompts
    with ProgressBars() as bars:
        page, text = evaluate(arguments, pipeline, out, bars.show)
    print(text)
    print(f"\n{page} shows every clip; {out / 'report.json'} has every figure")
    return 0


def _check_options(arguments: argparse.Namespace, is_timeline: bool) -> None:
    """Raise `RequestError` for an option of the other benchmark, which would have no effect."""
    if not is_timeline:
        if arguments.cases:
            raise RequestError("--cases needs --tasks: add it, or leave --cases out")
        return

    options = {
        "frames": arguments.frames,
        "prompts": arguments.prompts,
        "held-out": arguments.held_out,
        "seen": arguments.seen,
        "both": arguments.both,
        "real-clip": arguments.real_clip,
    }
    for name, value in options.items():
        if value:
            raise RequestError(f"--{name} has no effect with --tasks: leave it out")


def _evaluate_prompts(
    arguments: argparse.Namespace, pipeline: "Pipeline", out: Path, on_progress: "OnProgress"
) -> tuple[Path, str]:
    """The report page and the table of prompt following."""
    from kinema.evaluation import PromptsConfig, evaluate_prompts, prompts_table, write_prompts_page

    splits: tuple[Any, ...] = ("held_out", "seen")
    if arguments.held_out:
        splits = ("held_out",)
    elif arguments.seen:
        splits = ("seen",)

    config = PromptsConfig(
        prompts=arguments.prompts or DEFAULT_PROMPTS,
        splits=splits,
        frames=arguments.frames,
        real_clip=arguments.real_clip,
        **_sampling(arguments),
    )
    report = evaluate_prompts(pipeline, config, out, oracle_folder=arguments.oracle, on_progress=on_progress)
    return write_prompts_page(report, out), prompts_table(report)


def _evaluate_timeline(
    arguments: argparse.Namespace, pipeline: "Pipeline", out: Path, on_progress: "OnProgress"
) -> tuple[Path, str]:
    """The report page and the table of the timeline's tasks."""
    from kinema.evaluation import TimelineConfig, evaluate_timeline, timeline_table, write_timeline_page
    from kinema.evaluation.timeline_cases import TIMELINE_TASKS

    config = TimelineConfig(
        tasks=tuple(dict.fromkeys(arguments.task or TIMELINE_TASKS)),
        cases=arguments.cases,
        long_seconds=arguments.long_seconds,
        **_sampling(arguments),
    )
    report = evaluate_timeline(pipeline, config, out, oracle_folder=arguments.oracle, on_progress=on_progress)
    return write_timeline_page(report, out), timeline_table(report)


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling settings of the options; None where none is given."""
    width, height = arguments.size or (None, None)
    names = ("steps", "sampler", "guidance", "shift")
    return {"width": width, "height": height, **{name: getattr(arguments, name) for name in names}}
