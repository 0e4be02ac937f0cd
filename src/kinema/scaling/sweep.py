"""Trains the runs of a ladder one after another, and records the held-out loss of each.

A sweep folder holds ladder.json (recipe and ladder), rows.jsonl (a line per finished run), cache/ and, while
they are needed, runs/. A run is done or not: the sweep continues at the first missing row, and inside a run
from its checkpoint.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.config import from_dict, to_dict
from kinema.errors import ConfigError, OutputError, ScalingError
from kinema.files import folder_lock, output_errors, read_json, write_json
from kinema.scaling.ladder import WEIGHTS, Ladder, LadderData, Rung
from kinema.scaling.laws import Fit, Forecast, Measurement, fit_ladder, forecast
from kinema.training import checkpoint, train
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe

log = logging.getLogger(__name__)

SETTINGS, ROWS, FORECAST = "ladder.json", "rows.jsonl", "forecast.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A run to a budget. `kind` is "lr" (learning rates), "ladder" or "held-out"."""

    kind: str
    width: int
    budget: float
    lr_factor: float
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of its row."""
        rate = f"-lr{self.lr_factor:g}" if self.kind == "lr" else ""
        return f"{self.kind}-{self.width}-{self.budget:g}-seed{self.seed}{rate}"


def read_rows(out: Path) -> dict[str, Row]:
    """The finished runs of a sweep folder by name. Raises `ScalingError` if it is none."""
    if not (out / SETTINGS).is_file():
        raise ScalingError(f"{out} is no folder of a sweep: run 'kinema scaling sweep RECIPE -o {out}' first")
    lines = (out / ROWS).read_text(encoding="utf-8").splitlines() if (out / ROWS).exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut off
    return {row["name"]: row for row in rows}


def measurements(out: Path) -> list[Measurement]:
    """The runs of the ladder."""
    names = ("parameters", "tokens", "flops", "loss", "budget", "seed")
    ladder = [row for row in read_rows(out).values() if row["kind"] == "ladder"]
    return [Measurement(**{name: row[name] for name in names}) for row in ladder]


def open_settings(out: Path) -> tuple[DiffusionRecipe, Ladder]:
    """The recipe and the ladder of a sweep folder."""
    read_rows(out)
    settings = read_json(out / SETTINGS)
    return from_dict(DiffusionRecipe, settings["recipe"]), from_dict(Ladder, settings["ladder"])


def sweep(recipe: DiffusionRecipe, ladder: Ladder, out: Path) -> bool:
    """Train all runs of a ladder; True when all are done, False when it was stopped.

    Raises `ConfigError` for a folder of another recipe or ladder, and `ScalingError` for budgets that no run
    can use.
    """
    settings = {"recipe": to_dict(recipe), "ladder": to_dict(ladder)}
    if (out / SETTINGS).is_file() and read_json(out / SETTINGS) != json.loads(json.dumps(settings)):
        raise ConfigError(f"{out} holds a sweep of another recipe or ladder: use another -o")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, settings)

    with folder_lock(out, OutputError(f"{out} is in use by another sweep")):
        data = LadderData(recipe, ladder, out)
        rungs = [data.rung(width) for width in ladder.widths]
        if not any(rung.steps(budget, ladder) for rung in rungs for budget in ladder.budgets):
            raise ScalingError(
                f"no budget pays for {ladder.min_steps} to {ladder.clips // ladder.batch} steps: a step of "
                f"the smallest model takes {rungs[0].flops_per_clip * ladder.batch:.3g} FLOP"
            )
        trials = list(_lr_cells(rungs, ladder))
        if not all(_measured(data, cell, out) for cell in trials):
            return False
        for rung in rungs:
            for seed in range(ladder.seeds if rung is rungs[0] else 1):
                for budget in ladder.budgets:
                    cell = Cell("ladder", rung.width, budget, lr_factor(out, rung.width), seed)
                    if rung.steps(budget, ladder) and not _measured(data, cell, out):
                        return False
                shutil.rmtree(_run_folder(out, rung.width, seed), ignore_errors=True)
    return True


def sweep_held_out(out: Path) -> bool:
    """Train the run that forecast.json predicts; True when it is done. Raises `ScalingError` without one."""
    recipe, ladder = open_settings(out)
    if not (out / FORECAST).is_file():
        raise ScalingError(f"{out} has no forecast: run 'kinema scaling predict {out}' before the large run")
    predicted = read_json(out / FORECAST)
    data = LadderData(recipe, ladder, out)
    width = int(predicted["width"])
    cell = Cell("held-out", width, float(predicted["budget"]), lr_factor(out, width))
    done = _measured(data, cell, out)
    if done:
        shutil.rmtree(_run_folder(out, width, 0), ignore_errors=True)
    return done


def predict(out: Path, width: int, budget: float) -> tuple[Forecast, Fit]:
    """The forecast of a larger run, which is written to forecast.json before the run is trained.

    Raises `ScalingError` for a refused fit, a run that is measured already, and a budget that needs more
    clips than the ladder has.
    """
    rows, runs = read_rows(out), measurements(out)
    if Cell("held-out", width, budget, 1.0).name in rows:
        raise ScalingError(f"the run of width {width} is trained already: a forecast is written before")
    recipe, ladder = open_settings(out)
    fit = fit_ladder(runs)
    rung = LadderData(recipe, ladder, out).rung(width)
    steps = rung.steps(budget, ladder)
    if not steps:
        raise ScalingError(
            f"width {width} and {budget:g} FLOP need {budget / rung.flops_per_clip:.0f} clips; the ladder "
            f"has {ladder.clips}, and a run at least {ladder.min_steps * ladder.batch}: use other --flops"
        )
    tokens = steps * ladder.batch * rung.tokens_per_clip
    found = forecast(runs, fit, rung.parameters, tokens)
    values = {"width": width, "budget": budget, "parameters": rung.parameters, "tokens": tokens}
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(out / FORECAST, {**values, **to_dict(found), "num_runs": len(runs), "written": written})
    return found, fit


def lr_factor(out: Path, width: int) -> float:
    """The learning rate of a width relative to the recipe's: a power of the width through the best trials at
    the two smallest sizes. It does not rise with the width, and falls at most as 1 / width."""
    best: dict[int, Row] = {}
    for row in read_rows(out).values():
        if row["kind"] == "lr" and row["loss"] < best.get(row["width"], {"loss": np.inf})["loss"]:
            best[row["width"]] = row
    if not best:
        return 1.0
    points = [(each, best[each]["lr_factor"]) for each in sorted(best)]
    (first, factor), (last, other) = points[0], points[-1]
    power = np.log(other / factor) / np.log(last / first) if last > first else 0.0
    return float(factor * (width / first) ** np.clip(power, -1, 0))


def _lr_cells(rungs: list[Rung], ladder: Ladder) -> Iterator[Cell]:
    """The trials of learning rates at the smallest budget of the two smallest sizes."""
    if len(ladder.lr_factors) < 2:
        return
    for rung in rungs[:2]:
        budget = next((each for each in ladder.budgets if rung.steps(each, ladder)), None)
        if budget is not None:
            yield from (Cell("lr", rung.width, budget, factor) for factor in ladder.lr_factors)


def _run_folder(out: Path, width: int, seed: int) -> Path:
    return out / "runs" / f"{width}-seed{seed}"


def _measured(data: LadderData, cell: Cell, out: Path) -> bool:
    """Whether the row of a cell is there, after training its run if it was missing."""
    if cell.name in read_rows(out):
        return True
    rung, ladder = data.rung(cell.width), data.ladder
    steps, started = rung.steps(cell.budget, ladder), time.perf_counter()
    folder = out / "runs" / cell.name
    log.info("%s: %d steps, %d parameters", cell.name, steps, rung.parameters)

    run = data.run(rung, steps, cell.lr_factor, cell.seed, ladder.cooldown)
    if cell.kind != "lr" and checkpoint.latest(folder) is None:  # branch off the run at a constant rate
        branch = int((1 - ladder.cooldown) * steps)
        main = _run_folder(out, cell.width, cell.seed)
        if not train(data.run(rung, branch, cell.lr_factor, cell.seed, 0.0), main):
            return False
        found = checkpoint.latest(main)
        assert found is not None, "a finished run has a checkpoint"
        checkpoint.fork(found, folder, to_dict(run.recipe))
    if not train(run, folder):
        return False

    losses = data.held_out_loss(folder / "export" / WEIGHTS, rung)
    clips = steps * ladder.batch
    row = {
        "name": cell.name,
        "kind": cell.kind,
        "width": cell.width,
        "parameters": rung.parameters,
        "budget": cell.budget,
        "flops": clips * rung.flops_per_clip,
        "clips": clips,
        "tokens": clips * rung.tokens_per_clip,
        "lr_factor": cell.lr_factor,
        "seed": cell.seed,
        "seconds": round(time.perf_counter() - started, 1),
        **losses,
    }
    with output_errors(out / ROWS), (out / ROWS).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row))  # a line of its own even after one that was cut off
    log.info("%s: held-out loss %.4f", cell.name, row["loss"])
    shutil.rmtree(folder, ignore_errors=True)
    return True
