"""Trains a model from a recipe, a TOML file that says which part to train and how; stopped and called again, it goes on."""

import argparse
import json
import logging
from pathlib import Path

from kinema.cli.arguments import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as those in recipes/")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="folder of the run (default: runs/ and the recipe's name)"
    )
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="how many steps, in place of the recipe's"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe: optimizer.lr=3e-4",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATASET",
        help="train on a data set of kinema data build, at its sizes and lengths",
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="DIR", help="start from the weights in this folder, or 'shipped'"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="train nothing; measure a few steps and say what the run will take",
    )


def run(arguments: argparse.Namespace) -> int:
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
