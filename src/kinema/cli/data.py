"""Makes a data set of real videos and looks into it: build, validate, show, report."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.cli.arguments import positive

if TYPE_CHECKING:
    from kinema.data.curation.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    make = actions.add_parser(
        "build", help="files to shards; called again, it does what is left", description=build.__doc__
    )
    make.set_defaults(act=build)
    make.add_argument(
        "place",
        type=Path,
        metavar="FOLDER_OR_LIST",
        help="a folder, or a .txt, .csv or .jsonl that names files",
    )
    make.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DATASET", help="folder of the data set"
    )
    make.add_argument(
        "--recipe", type=Path, metavar="TOML", help="what differs from the default recipe (docs/data.md)"
    )
    make.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe: clips.fps=12",
    )
    how = make.add_mutually_exclusive_group()
    how.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes that decode and encode (default: 1)",
    )
    how.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="let Ray run them: here, or on the cluster at ADDRESS",
    )
    make.add_argument("--retry", action="store_true", help="try again what was quarantined before")
    check = actions.add_parser(
        "validate", help="whether a data set is whole and fit to train on", description=validate.__doc__
    )
    check.set_defaults(act=validate)
    check.add_argument("dataset", type=Path, metavar="DATASET")
    one = actions.add_parser(
        "show", help="where a clip comes from and what was done to it", description=show.__doc__
    )
    one.set_defaults(act=show)
    one.add_argument("dataset", type=Path, metavar="DATASET")
    one.add_argument("clip_id", metavar="CLIP_ID", help="its id, or the beginning of it")
    page = actions.add_parser(
        "report", help="one page: funnel, distributions, clips to play", description=report.__doc__
    )
    page.set_defaults(act=report)
    page.add_argument("dataset", type=Path, metavar="DATASET")
    page.add_argument(
        "-o", "--out", type=Path, metavar="HTML", help="where to (default: report.html in the data set)"
    )
    page.add_argument(
        "--examples",
        type=positive,
        default=12,
        metavar="N",
        help="most clips to show of each kind (default: 12)",
    )


def run(arguments: argparse.Namespace) -> int:
    return int(arguments.act(arguments) or 0)


def build(arguments: argparse.Namespace) -> None:
    """Cuts the files of a folder or list into clips, drops what is unfit, encodes the rest and writes shards that train.

    Stopped at any moment and called again with the same words, it goes on with what is left. At the end stands the funnel: what came
    in, what was taken out and why.
    """
    from kinema.config import load
    from kinema.data.curation.build import build as build_dataset
    from kinema.data.curation.engine import Pool
    from kinema.data.curation.recipe import DataRecipe

    recipe = load(DataRecipe, arguments.recipe, arguments.set)
    engine: Engine = Pool(arguments.workers)
    if arguments.ray is not None:
        from kinema.data.curation.ray_engine import RayEngine

        engine = RayEngine(arguments.ray or None)
    with _Bars() as bars:
        funnel = build_dataset(
            arguments.place, arguments.out, recipe, engine=engine, retry=arguments.retry, progress=bars.show
        )
    print("\n".join(funnel.lines()))
    print(arguments.out)


def validate(arguments: argparse.Namespace) -> int:
    """Reads every shard and table of a data set and says what is wrong with it, a line each; exit code 1 when something is."""
    from kinema.data.curation.validate import dataset_problems

    lines = list(dataset_problems(arguments.dataset))
    print("\n".join(lines) or f"{arguments.dataset} is whole")
    return 1 if any(line.startswith("error") for line in lines) else 0


def show(arguments: argparse.Namespace) -> None:
    """Prints the lineage of a clip: its file, its time span, its scores, and tool, version and parameters of every stage."""
    from kinema.data.curation.validate import find_clip, find_source
    from kinema.data.dataset import Dataset

    dataset = Dataset(arguments.dataset)
    clip = find_clip(dataset, arguments.clip_id)
    source = find_source(dataset, str(clip["source_id"]))
    for title, values in (("clip", clip), ("file", source)):
        print(title)
        for name, value in values.items():
            print(f"  {name:<18} {value}")
    print("stages")
    for stage in dataset.card["stages"]:
        print(
            f"  {stage['stage']:<8} {stage['tool']} {stage['version']}  {json.dumps(stage['parameters'], ensure_ascii=False)}"
        )


def report(arguments: argparse.Namespace) -> None:
    """Writes one HTML page that needs nothing else: funnel, distributions, caption statistics, and clips kept and dropped, to play."""
    from kinema.data.curation.report import write_report

    print(
        write_report(
            arguments.dataset, arguments.out or arguments.dataset / "report.html", examples=arguments.examples
        )
    )


class _Bars:
    """A progress bar a stage in a terminal, and elsewhere a line a stage when it is done."""

    def __enter__(self) -> "_Bars":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.is_quiet = console.is_terminal
        self.tasks: dict[str, Any] = {}
        self.progress.start()
        return self

    def show(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        self.progress.update(self.tasks[stage], completed=done, total=total)
        if done == total and not self.is_quiet:
            self.progress.console.print(f"{stage}: {total} done")

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
