"""Builds, validates, shows and reports data sets of real videos."""

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.cli.arguments import positive
from kinema.config import load
from kinema.terminal import ProgressBars, table

if TYPE_CHECKING:
    from kinema.data.curation.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema data`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_build(actions)
    check = actions.add_parser(
        "validate",
        help="check that a data set is complete and can be trained on",
        description=validate.__doc__,
    )
    check.set_defaults(act=validate)
    check.add_argument("dataset", type=Path, metavar="DATASET")
    one = actions.add_parser(
        "show", help="print the source and the processing of a clip", description=show.__doc__
    )
    one.set_defaults(act=show)
    one.add_argument("dataset", type=Path, metavar="DATASET")
    one.add_argument("clip_id", metavar="CLIP_ID", help="id of the clip, or the start of it")
    page = actions.add_parser(
        "report", help="write a page with funnel, distributions and clips", description=report.__doc__
    )
    page.set_defaults(act=report)
    page.add_argument("dataset", type=Path, metavar="DATASET")
    page.add_argument(
        "-o", "--out", type=Path, metavar="HTML", help="file to write (default: report.html in the data set)"
    )
    page.add_argument(
        "--examples",
        type=positive,
        default=12,
        metavar="N",
        help="maximum number of clips of each kind (default: 12)",
    )


def _add_build(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the options of `kinema data build`."""
    make = actions.add_parser(
        "build",
        help="turn video files into shards for training; continues an interrupted build",
        description=build.__doc__,
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
        "--recipe",
        type=Path,
        metavar="TOML",
        help="settings that differ from the default recipe (docs/data.md)",
    )
    make.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipe, e.g. clips.fps=12; repeatable",
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
        help="run them with Ray, on this machine or on the cluster at ADDRESS",
    )
    make.add_argument("--retry", action="store_true", help="retry quarantined files")


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema data`."""
    return int(arguments.act(arguments) or 0)


def build(arguments: argparse.Namespace) -> None:
    """Cuts video files into clips, filters and encodes them, and writes shards for training.

    An interrupted build continues when it is called again with the same arguments. At the end it prints the
    funnel: how many clips each step removed, and why.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from kinema.data.curation import build as building
    from kinema.data.curation import engine as engines

    recipe = load(building.DataRecipe, arguments.recipe, arguments.set)
    engine: Engine = engines.Pool(arguments.workers)
    if arguments.ray is not None:
        from kinema.data.curation.ray_engine import RayEngine

        engine = RayEngine(arguments.ray or None)
    with ProgressBars(transient=False, announce=True) as bars:
        funnel = building.build(
            arguments.place, arguments.out, recipe, engine=engine, retry=arguments.retry, progress=bars.show
        )
    print("\n".join(funnel.lines()))
    print(arguments.out)


def validate(arguments: argparse.Namespace) -> int:
    """Reads every shard and table of a data set and prints its problems, a line each. The exit code is 1 for
    errors."""
    from kinema.data.curation.validate import dataset_problems

    lines = list(dataset_problems(arguments.dataset))
    print("\n".join(lines) or f"{arguments.dataset} is complete")
    return 1 if any(line.startswith("error") for line in lines) else 0


def show(arguments: argparse.Namespace) -> None:
    """Prints the lineage of a clip: file, time span, scores, and each step's tool, version and parameters."""
    from kinema.data.curation import validate as lineage

    dataset = lineage.Dataset(arguments.dataset)
    clip = lineage.find_clip(dataset, arguments.clip_id)
    source = lineage.find_source(dataset, str(clip["source_id"]))

    for title, values in (("clip", clip), ("file", source)):
        print(title)
        print(table(values.items(), indent=2))
    print("steps")
    rows = [
        (step["stage"], step["tool"], step["version"], json.dumps(step["parameters"], ensure_ascii=False))
        for step in dataset.card["stages"]
    ]
    print(table(rows, indent=2))


def report(arguments: argparse.Namespace) -> None:
    """Writes a self-contained HTML page: funnel, distributions, captions, and kept and dropped clips."""
    from kinema.data.curation.report import write_report

    print(
        write_report(
            arguments.dataset, arguments.out or arguments.dataset / "report.html", examples=arguments.examples
        )
    )
