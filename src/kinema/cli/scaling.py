"""Measures the scaling law of a recipe on a ladder of small models, and forecasts a larger one."""

import argparse
import logging
from pathlib import Path

from kinema.cli.arguments import positive
from kinema.config import load, to_dict
from kinema.errors import ConfigError, ScalingError
from kinema.terminal import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema scaling`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    train = actions.add_parser(
        "sweep", help="train the ladder; continues an interrupted sweep", description=sweep.__doc__
    )
    train.set_defaults(act=sweep)
    train.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE", help="a recipe with task = 'dit'")
    train.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder of the sweep")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe"
    )
    train.add_argument("--ladder", type=Path, metavar="TOML", help="settings of the ladder (docs/scaling.md)")
    train.add_argument(
        "--set-ladder",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the ladder, e.g. budgets=[1e11,3e11]; repeatable",
    )
    train.add_argument(
        "--held-out", action="store_true", help="train the run that was forecast, and no other"
    )

    for act, text in ((fit, "fit the laws"), (report, "write a page with curves and tables")):
        other = actions.add_parser(act.__name__, help=text, description=act.__doc__)
        other.set_defaults(act=act)
        other.add_argument("folder", type=Path, metavar="FOLDER")
    ahead = actions.add_parser(
        "predict", help="forecast the loss of a larger run", description=predict.__doc__
    )
    ahead.set_defaults(act=predict)
    ahead.add_argument("folder", type=Path, metavar="FOLDER")
    ahead.add_argument("--width", type=positive, required=True, metavar="N", help="width of the model")
    ahead.add_argument("--flops", type=float, required=True, metavar="C", help="compute of the run")


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema scaling`: 130 for an interrupted sweep."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return int(arguments.act(arguments) or 0)


def sweep(arguments: argparse.Namespace) -> int:
    """Trains a ladder of models to several budgets of compute and records their held-out losses. The same
    command continues an interrupted sweep. With --held-out it trains the run of the forecast."""
    from kinema.scaling import sweep as sweeping
    from kinema.scaling.ladder import Ladder
    from kinema.training import load_task
    from kinema.training.tasks.diffusion.recipe import DiffusionRecipe

    if arguments.held_out:
        return 0 if sweeping.sweep_held_out(arguments.out) else 130
    if arguments.recipe is None:
        raise ConfigError("a sweep needs a RECIPE, e.g. recipes/dit.toml")
    recipe = load_task(arguments.recipe, assignments=arguments.set).recipe
    if not isinstance(recipe, DiffusionRecipe):
        raise ConfigError(f"{arguments.recipe} has task = '{recipe.task}': a ladder needs task = 'dit'")
    ladder = load(Ladder, arguments.ladder, arguments.set_ladder)
    return 0 if sweeping.sweep(recipe, ladder, arguments.out) else 130


def fit(arguments: argparse.Namespace) -> None:
    """Fits the three laws of Hoffmann et al. 2022 to a sweep and writes fit.json. The exit code is 2, with
    the reasons, when the runs determine no forecast."""
    from kinema.files import write_json
    from kinema.scaling.laws import fit_ladder
    from kinema.scaling.report import fit_rows
    from kinema.scaling.sweep import measurements

    found = fit_ladder(measurements(arguments.folder))
    write_json(arguments.folder / "fit.json", to_dict(found))
    print(table(fit_rows(found), align="lr"))
    if found.refusals:
        raise ScalingError(f"the fit allows no forecast: {'; '.join(found.refusals)}")


def predict(arguments: argparse.Namespace) -> None:
    """Forecasts the loss of a larger run with an interval of 80 %, and writes forecast.json. The run is
    trained afterwards, by 'kinema scaling sweep -o FOLDER --held-out'."""
    from kinema.scaling.sweep import predict as forecast

    found, _ = forecast(arguments.folder, arguments.width, arguments.flops)
    print(f"loss {found.loss:.4f}, 80 % interval {found.low:.4f} to {found.high:.4f}")


def report(arguments: argparse.Namespace) -> None:
    """Writes report.html: loss against compute, isoFLOP curves, forecast against measurement, all runs."""
    from kinema.scaling.report import write_report

    print(write_report(arguments.folder))
