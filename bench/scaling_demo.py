"""The scaling ladder in about 25 minutes on two cores: four sizes, a forecast, and its run with 4 times the
compute of the largest budget. It prints forecast, measurement and page, or why there is no forecast.

    python bench/scaling_demo.py [FOLDER]
"""

import logging
import sys
from pathlib import Path

from kinema.errors import ScalingError
from kinema.scaling import sweep
from kinema.scaling.ladder import Ladder
from kinema.scaling.report import forecast_rows, write_report
from kinema.terminal import table
from kinema.training import load_task

RECIPE = Path(__file__).parents[1] / "recipes" / "dit_tiny.toml"
SETTINGS = [
    "optimizer.name=adamw",
    "optimizer.lr=4e-3",
    "run.precision=fp32",
    "model.patch=[1,1,1]",
    "data.num_frames=17",
    "data.shapes=[{height=96,width=96}]",
    "periods=[{until=1.0,batch=32,latent_frames=5}]",
]
LADDER = Ladder(budgets=(1e11, 3e11, 1e12, 3e12), clips=20_000)
WIDTH, FLOPS = 160, 1.2e13


def main() -> None:
    """Sweep, forecast, train the forecast run, report."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/scaling_demo")
    recipe = load_task(RECIPE, assignments=SETTINGS).recipe
    if not sweep.sweep(recipe, LADDER, out):
        return
    try:
        if not (out / sweep.FORECAST).exists():
            sweep.predict(out, WIDTH, FLOPS)
        if not sweep.sweep_held_out(out):
            return
    except ScalingError as error:
        print(error)
    else:
        row = next(row for row in sweep.read_rows(out).values() if row["kind"] == "held-out")
        print(table(forecast_rows(sweep.read_json(out / sweep.FORECAST), row)))
    print(write_report(out))


if __name__ == "__main__":
    main()
