"""Measures how well a model's videos do what their prompts say, against the truth of the world it was trained on.

Prompts are drawn from combinations that training held out and from ones it showed. With --tasks it measures the timeline instead:
extension, connection, loops, edits and long videos, beside the true clips. Stopped and called again, it goes on.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.arguments import positive, size

if TYPE_CHECKING:
    from kinema.evaluation.run_folder import OnProgress
    from kinema.generation.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    splits = parser.add_mutually_exclusive_group()
    tasks = parser.add_argument_group("the timeline")
    parser.add_argument(
        "model",
        nargs="?",
        default="shipped",
        metavar="MODEL",
        help="a model folder (default: the one inside the package)",
    )
    parser.add_argument("--prompts", type=positive, metavar="N", help="prompts of each kind (default: 200)")
    splits.add_argument(
        "--held-out", action="store_true", help="only combinations that training never showed"
    )
    splits.add_argument("--seen", action="store_true", help="only combinations that training could show")
    splits.add_argument("--both", action="store_true", help="both, apart from each other (the default)")
    tasks.add_argument("--tasks", action="store_true", help="measure the tasks of the timeline")
    tasks.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="only this one, and others that are named; an unknown name lists them all",
    )
    tasks.add_argument(
        "--cases", type=positive, metavar="N", help="cases of each task (default: 50, of long videos 5)"
    )
    tasks.add_argument(
        "--long-seconds", type=float, default=60.0, metavar="S", help="how long a long video is (default: 60)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the evaluation (default: runs/evaluate/ and the model's name and hash)",
    )
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height of the clips in pixels")
    parser.add_argument("--frames", type=positive, metavar="N", help="frames of the clips")
    parser.add_argument("--steps", type=positive, metavar="N", help="how many steps the sampler takes")
    parser.add_argument(
        "--sampler", metavar="NAME", help="euler, heun, unipc and others; an unknown name lists them all"
    )
    parser.add_argument(
        "--guidance", type=float, metavar="G", help="how closely the words are followed; 1 is no guidance"
    )
    parser.add_argument(
        "--shift",
        type=float,
        metavar="S",
        help="how far the sampler's times move towards noise; 1 is not at all",
    )
    parser.add_argument(
        "--oracle",
        type=Path,
        metavar="DIR",
        help="an oracle trained with recipes/oracle.toml (default: the one inside the package)",
    )
    parser.add_argument("--real-clip", type=Path, metavar="FILE", help="a video file to try the VAE on too")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="where to compute (default: the fastest there is)"
    )


def run(arguments: argparse.Namespace) -> int:
    from kinema.errors import RequestError
    from kinema.generation.loading import load

    is_timeline = arguments.tasks or arguments.task
    # An option of the other kind would be ignored in silence.
    others = {
        "frames": arguments.frames,
        "prompts": arguments.prompts,
        "held-out, --seen or --both": arguments.held_out or arguments.seen or arguments.both,
        "real-clip": arguments.real_clip,
    }
    given = [name for name, value in (others if is_timeline else {"cases": arguments.cases}).items() if value]
    if given:
        raise RequestError(
            f"--{given[0]} {'says nothing with' if is_timeline else 'needs'} --tasks: leave {'it' if is_timeline else 'that'} out"
        )
    pipeline = load(arguments.model, device=arguments.device)
    out = (
        arguments.out
        or Path("runs")
        / "evaluate"
        / f"{pipeline.manifest.name}-{pipeline.model_hash}{'-tasks' if is_timeline else ''}"
    )
    with stages_bar() as on_progress:
        page, text = (_timeline if is_timeline else _prompts)(arguments, pipeline, out, on_progress)
    print(text)
    print(f"\n{page} shows every clip; {out / 'report.json'} has every figure")
    return 0


def _prompts(
    arguments: argparse.Namespace, pipeline: "Pipeline", out: Path, on_progress: "OnProgress"
) -> tuple[Path, str]:
    """The page and the table of how well prompts are followed."""
    from kinema.evaluation import PromptsConfig, evaluate_prompts, prompts_table, write_prompts_page

    config = PromptsConfig(
        prompts=arguments.prompts or 200,
        splits=("held_out",) if arguments.held_out else ("seen",) if arguments.seen else ("held_out", "seen"),
        frames=arguments.frames,
        real_clip=arguments.real_clip,
        **_sampling(arguments),
    )
    report = evaluate_prompts(pipeline, config, out, oracle_folder=arguments.oracle, on_progress=on_progress)
    return write_prompts_page(report, out), prompts_table(report)


def _timeline(
    arguments: argparse.Namespace, pipeline: "Pipeline", out: Path, on_progress: "OnProgress"
) -> tuple[Path, str]:
    """The page and the table of the timeline's tasks."""
    from kinema.evaluation import TimelineConfig, evaluate_timeline, timeline_table, write_timeline_page
    from kinema.evaluation.timeline_cases import TIMELINE_TASKS

    chosen = tuple(dict.fromkeys(arguments.task or TIMELINE_TASKS))
    config = TimelineConfig(
        tasks=chosen, cases=arguments.cases, long_seconds=arguments.long_seconds, **_sampling(arguments)
    )
    report = evaluate_timeline(pipeline, config, out, oracle_folder=arguments.oracle, on_progress=on_progress)
    return write_timeline_page(report, out), timeline_table(report)


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options say of how clips are sampled."""
    width, height = arguments.size or (None, None)
    names = ("steps", "sampler", "guidance", "shift")
    return {"width": width, "height": height, **{name: getattr(arguments, name) for name in names}}


@contextmanager
def stages_bar() -> "Iterator[OnProgress]":
    """A function that shows how far each stage has come, in bars on the terminal, and nothing where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        bars: dict[str, int] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield on_progress
