"""Trains a network from a recipe, a TOML file. An interrupted run continues when it is called again."""

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.cli.arguments import positive
from kinema.errors import ConfigError

if TYPE_CHECKING:
    from kinema.distributed.ranks import Ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema train`."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, e.g. one from recipes/")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="run folder (default: runs/ and the name of the recipe)"
    )
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="number of steps, instead of the recipe's"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipe, e.g. optimizer.lr=3e-4; repeatable",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATASET",
        help="train on a data set made by 'kinema data build', with its sizes and lengths",
    )
    parser.add_argument(
        "--init-from",
        type=Path,
        metavar="DIR",
        help="start from the weights of this folder, or of the model in the package with 'shipped'",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="do not train; measure a few steps and print what the run will take",
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema train`. An interrupted run has 130, and 75 under torchrun: "saved, run again".

    Of an error on several ranks only the first one is printed.
    """
    from kinema.distributed.group import AnotherRankFailed, one_report
    from kinema.distributed.ranks import ParallelConfig, Ranks

    ranks = Ranks.of(ParallelConfig())
    logging.basicConfig(level=logging.INFO if ranks.is_first else logging.ERROR, format="%(message)s")
    try:
        with one_report(ranks):
            return _run(arguments, ranks)
    except AnotherRankFailed:
        return 2


def _run(arguments: argparse.Namespace, ranks: "Ranks") -> int:
    """Load and train, or plan, on one rank."""
    from kinema.training import load_task, plan_lines, train

    data = [f"dataset={json.dumps(str(arguments.data))}"] if arguments.data else []
    part = load_task(
        arguments.recipe,
        steps=arguments.steps,
        assignments=[*data, *arguments.set],
        init_from=arguments.init_from,
    )

    if arguments.plan and not ranks.is_alone:
        raise ConfigError("--plan measures one process: start it without torchrun")
    if arguments.plan:
        print("\n".join(plan_lines(part)))
        return 0
    is_done = train(part, arguments.out or Path("runs") / arguments.recipe.stem)
    if is_done:
        return 0
    return 130 if ranks.is_alone else 75
