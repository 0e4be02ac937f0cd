"""Measures how well a model's videos do what their prompts say, against the truth of the world it was trained on.

Prompts are drawn from combinations that training held out and from ones it showed. Stopped and called again, it goes on.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.cli.arguments import positive, size

if TYPE_CHECKING:
    from kinema.evaluate.suite import OnProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    splits = parser.add_mutually_exclusive_group()
    parser.add_argument("model", nargs="?", default="shipped", metavar="MODEL", help="a model folder (default: the one inside the package)")
    parser.add_argument("--prompts", type=positive, default=200, metavar="N", help="prompts of each kind (default: 200)")
    splits.add_argument("--held-out", action="store_true", help="only combinations that training never showed")
    splits.add_argument("--seen", action="store_true", help="only combinations that training could show")
    splits.add_argument("--both", action="store_true", help="both, apart from each other (the default)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the evaluation (default: runs/evaluate/ and the model's name and hash)"
    )
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height of the clips in pixels")
    parser.add_argument("--frames", type=positive, metavar="N", help="frames of the clips")
    parser.add_argument("--steps", type=positive, metavar="N", help="how many steps the sampler takes")
    parser.add_argument("--sampler", metavar="NAME", help="euler, heun, unipc and others; an unknown name lists them all")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the words are followed; 1 is no guidance")
    parser.add_argument("--shift", type=float, metavar="S", help="how far the sampler's times move towards noise; 1 is not at all")
    parser.add_argument(
        "--oracle", type=Path, metavar="DIR", help="an oracle trained with recipes/oracle.toml (default: the one inside the package)"
    )
    parser.add_argument("--real-clip", type=Path, metavar="FILE", help="a video file to try the VAE on too")
    parser.add_argument("--device", default="auto", metavar="NAME", help="where to compute (default: the fastest there is)")


def run(arguments: argparse.Namespace) -> int:
    from kinema.evaluate import EvaluationConfig, evaluate, table, write_page
    from kinema.generate.pipeline import load

    width, height = arguments.size or (None, None)
    config = EvaluationConfig(
        prompts=arguments.prompts,
        splits=("held_out",) if arguments.held_out else ("seen",) if arguments.seen else ("held_out", "seen"),
        width=width,
        height=height,
        frames=arguments.frames,
        steps=arguments.steps,
        sampler=arguments.sampler,
        guidance=arguments.guidance,
        shift=arguments.shift,
        real_clip=arguments.real_clip,
    )
    pipeline = load(arguments.model, device=arguments.device)
    out = arguments.out or Path("runs") / "evaluate" / f"{pipeline.manifest.name}-{pipeline.model_hash}"
    with stages_bar() as on_progress:
        report = evaluate(pipeline, config, out, oracle_folder=arguments.oracle, on_progress=on_progress)
    page = write_page(report, out)
    print(table(report))
    print(f"\n{page} shows every clip; {out / 'report.json'} has every figure")
    return 0


@contextmanager
def stages_bar() -> "Iterator[OnProgress]":
    """A function that shows how far each stage has come, in bars on the terminal, and nothing where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bars: dict[str, int] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield on_progress
