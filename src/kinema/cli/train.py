"""Trains a network from a recipe, a TOML file. An interrupted run continues when it is called again."""

import argparse
import json
import logging
from pathlib import Path

from kinema.cli.arguments import positive


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
    """The exit code of `kinema train`: 130 for an interrupted run."""
    from kinema.training import load_task, plan_lines, train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data = [f"dataset={json.dumps(str(arguments.data))}"] if arguments.data else []
    part = load_task(
        arguments.recipe,
        steps=arguments.steps,
        assignments=[*data, *arguments.set],
        init_from=arguments.init_from,
    )

    if arguments.plan:
        print("\n".join(plan_lines(part)))
        return 0
    is_done = train(part, arguments.out or Path("runs") / arguments.recipe.stem)
    return 0 if is_done else 130
