"""The report of a sweep: loss against compute with its envelope, isoFLOP curves, and the forecast."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.config import to_dict
from kinema.errors import ScalingError
from kinema.files import read_json
from kinema.report import plot_svg, write_page
from kinema.scaling.laws import Fit, Measurement, fit_ladder
from kinema.scaling.sweep import FORECAST, Row, measurements, read_rows

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

TEMPLATE = Path(__file__).with_name("report.html")
COLUMNS = ("width", "parameters", "budget", "clips", "lr_factor", "seed", "loss", "0-0.3", "0.3-0.7", "0.7-1")
"""Columns of the table of runs."""


def write_report(out: Path) -> Path:
    """The page report.html of a sweep folder. A ladder that is too small to fit has the runs only.

    Raises `ScalingError` for a folder without runs, and `OutputError` if the page cannot be written.
    """
    rows, runs = read_rows(out), measurements(out)
    if not runs:
        raise ScalingError(f"{out} has no finished run: continue 'kinema scaling sweep'")
    fit, refusals = None, []
    try:
        fit = fit_ladder(runs)
        refusals = list(fit.refusals)
    except ScalingError as error:
        refusals = [str(error)]

    predicted = read_json(out / FORECAST) if (out / FORECAST).is_file() else None
    measured = next((row for row in rows.values() if row["kind"] == "held-out"), None)
    plots = [_compute_plot(runs, fit, measured, predicted), _isoflop_plot(runs, fit)]
    if fit is not None:
        plots.append(_forecast_plot(runs, fit, measured, predicted))
    values = {
        "title": f"Scaling of {out.name}",
        "summary": f"{len(runs)} runs of {len({r.parameters for r in runs})} sizes, "
        f"{sum(r.flops for r in runs):.3g} FLOP in all, {sum(r['seconds'] for r in rows.values()):.0f} s.",
        "refusals": refusals,
        "plots": plots,
        "fits": [] if fit is None else fit_rows(fit),
        "forecast": forecast_rows(predicted, measured),
        "header": ("kind", *COLUMNS),
        "rows": [(row["kind"], *(f"{row[name]:.4g}" for name in COLUMNS)) for row in rows.values()],
    }
    return write_page(out / "report.html", TEMPLATE, values)


def fit_rows(fit: Fit) -> list[tuple[str, str]]:
    """The figures of a fit by name."""
    exponents = {
        "size of least loss, exponent of compute: envelope": fit.envelope_exponent,
        "the same: isoFLOP": fit.isoflop_exponent,
        "the same: law": fit.law.exponent,
    }
    law = [(f"law: {name}", f"{value:.4g}") for name, value in to_dict(fit.law).items()]
    powers = [(name, "-" if value is None else f"{value:.3f}") for name, value in exponents.items()]
    shares = {
        "residual (log, rms)": fit.residual,
        "seed noise": fit.seed_noise,
        "error of the law without the largest size": fit.extrapolation_error,
    }
    return [*law, *powers, *((name, f"{value:.2%}") for name, value in shares.items())]


def forecast_rows(predicted: Row | None, measured: Row | None) -> list[tuple[str, str]]:
    """The forecast, and the measurement where there is one."""
    if predicted is None:
        return []
    rows = [
        ("width, parameters", f"{predicted['width']}, {predicted['parameters']:,}"),
        ("FLOP, tokens", f"{predicted['budget']:.3g}, {predicted['tokens']:.3g}"),
        ("written before the run, at", predicted["written"]),
        (
            "loss, 80 % interval",
            f"{predicted['loss']:.4f}, {predicted['low']:.4f} to {predicted['high']:.4f}",
        ),
    ]
    if measured is not None:
        error = predicted["loss"] / measured["loss"] - 1
        holds = predicted["low"] <= measured["loss"] <= predicted["high"]
        rows.append(("measured, error", f"{measured['loss']:.4f}, {error:+.1%}"))
        rows.append(("the interval holds the measurement", "yes" if holds else "no"))
    return rows


def _axes(x: str, y: str) -> tuple[Any, "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    return figure, figure.add_subplot(xlabel=x, ylabel=y)


def _compute_plot(
    runs: Sequence[Measurement], fit: Fit | None, measured: Row | None, predicted: Row | None
) -> "Markup":
    """Loss against compute: a line per size, the envelope of the runs, and that of the law."""
    figure, axes = _axes("training compute, FLOP", "held-out loss")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for size in sorted({run.parameters for run in runs}):
        own = sorted((r for r in runs if r.parameters == size and r.seed == 0), key=lambda r: r.flops)
        axes.plot(
            [r.flops for r in own], [r.loss for r in own], "o-", label=f"{size / 1e6:.3g} M", markersize=4
        )
    best = [min((r for r in runs if r.budget == c), key=lambda r: r.loss) for c in {r.budget for r in runs}]
    best.sort(key=lambda r: r.flops)
    axes.plot([r.flops for r in best], [r.loss for r in best], "k--", linewidth=1, label="envelope")
    if fit is not None:
        per_token = float(np.mean([r.flops / (r.parameters * r.tokens) for r in runs]))
        end = max(r.flops for r in runs) if predicted is None else predicted["budget"]
        compute = np.geomspace(min(r.flops for r in runs), end, 50)
        sizes = [fit.law.optimal_parameters(c, per_token) for c in compute]
        law = [fit.law.loss(n, c / (per_token * n)) for n, c in zip(sizes, compute)]
        axes.plot(compute, law, color="#888", label="law, best size")
    if measured is not None:
        axes.plot([measured["flops"]], [measured["loss"]], "r*", label="held-out run")
    axes.legend(frameon=False, fontsize=8)
    return plot_svg(figure)


def _isoflop_plot(runs: Sequence[Measurement], fit: Fit | None) -> "Markup":
    """Loss against size at equal compute, with the parabolas and their minima."""
    figure, axes = _axes("parameters", "held-out loss")
    axes.set_xscale("log")
    minima = {} if fit is None else {each.budget: each for each in fit.minima}
    for budget in sorted({run.budget for run in runs}):
        own = sorted((r for r in runs if r.budget == budget), key=lambda r: r.parameters)
        line = axes.plot([r.parameters for r in own], [r.loss for r in own], "o", label=f"{budget:.2g} FLOP")[
            0
        ]
        if budget in minima:
            grid = np.geomspace(own[0].parameters, own[-1].parameters, 50)
            axes.plot(grid, np.polyval(minima[budget].coefficients, np.log(grid)), color=line.get_color())
            lowest = minima[budget].parameters
            if lowest is not None:
                axes.plot([lowest], [np.polyval(minima[budget].coefficients, np.log(lowest))], "kx")
    axes.legend(frameon=False, fontsize=8)
    return plot_svg(figure)


def _forecast_plot(
    runs: Sequence[Measurement], fit: Fit, measured: Row | None, predicted: Row | None
) -> "Markup":
    """The loss of the law against the measured one, and the forecast with its interval."""
    figure, axes = _axes("measured loss", "loss of the law")
    losses = [run.loss for run in runs]
    axes.plot(losses, [fit.law.loss(r.parameters, r.tokens) for r in runs], "o", markersize=4, label="ladder")
    if predicted is not None and measured is not None:
        below, above = predicted["loss"] - predicted["low"], predicted["high"] - predicted["loss"]
        axes.errorbar(
            [measured["loss"]], [predicted["loss"]], [[below], [above]], fmt="r*", label="forecast, 80 %"
        )
        losses.append(measured["loss"])
    ends = [min(losses), max(losses)]
    axes.plot(ends, ends, color="#888", linewidth=1)
    axes.legend(frameon=False, fontsize=8)
    return plot_svg(figure)
