"""Scaling laws of a ladder of runs: the three fits of Hoffmann et al. 2022, refusals and forecasts.

The parametric law is L = E + A / N^alpha + B / D^beta for N parameters and D tokens. It minimises the Huber
loss of log residuals, summed over runs (averaged, it stops early: Besiroglu et al. 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kinema.errors import ScalingError

DELTA = 1e-3
"""Width of the quadratic part of the Huber loss."""
MAX_ITERATIONS, CHECK_EVERY = 400, 20
"""A descent ends when no start improves by 1e-5 in so many steps."""
EXPONENTS = (0.02, 2.0)
"""Bounds of alpha and beta."""
LOWEST_E = 0.02
"""Lower bound of E as a share of the lowest loss."""
MIN_SEED_NOISE = 1e-3
"""Seed noise is taken to be at least this share of the loss."""
NUM_RESAMPLES = 200
MIN_SIZES, MIN_BUDGETS = 4, 3


@dataclass(frozen=True)
class Measurement:
    """The held-out loss of a run after its cooldown. `budget` groups runs of about equal `flops`."""

    parameters: float
    tokens: float
    flops: float
    loss: float
    budget: float
    seed: int = 0


@dataclass(frozen=True)
class Law:
    """The parametric law."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss of N parameters after D tokens."""
        return self.e + self.a * parameters**-self.alpha + self.b * tokens**-self.beta

    @property
    def exponent(self) -> float:
        """p of the compute-optimal size N ~ C^p."""
        return self.beta / (self.alpha + self.beta)

    def optimal_parameters(self, flops: float, flops_per_token: float = 6.0) -> float:
        """The size of least loss where C = `flops_per_token` * N * D."""
        ratio = self.alpha * self.a / (self.beta * self.b)
        return float((ratio * (flops / flops_per_token) ** self.beta) ** (1 / (self.alpha + self.beta)))


@dataclass(frozen=True)
class Minimum:
    """The parabola through the losses of one budget over log N, and its minimum if the ladder holds it."""

    budget: float
    coefficients: tuple[float, float, float]
    parameters: float | None


@dataclass(frozen=True)
class Fit:
    """All fits of a ladder, and the reasons for which no forecast is made from them."""

    law: Law
    envelope_exponent: float | None
    isoflop_exponent: float | None
    minima: tuple[Minimum, ...]
    residual: float
    """Root mean square of the log residuals."""
    seed_noise: float
    """Standard deviation of the log loss between seeds."""
    extrapolation_error: float
    """Largest log error at the largest size of the law that was fitted without it."""
    refusals: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """A loss with its interval of 80 %."""

    loss: float
    low: float
    high: float


def fit_law(runs: Sequence[Measurement]) -> Law:
    """The parametric law of least summed Huber loss, from 32 starting points."""
    grid = [(e, x, y) for e in (0.1, 0.4, 0.7, 0.9) for x in (0.2, 0.5) for y in (0.2, 0.35, 0.6, 1.0)]
    return _minimise(np.array([_row(run) for run in runs]), grid)


def fit_ladder(runs: Sequence[Measurement]) -> Fit:
    """All fits of a ladder. Raises `ScalingError` for fewer than 4 sizes or 3 budgets."""
    sizes, budgets = sorted({r.parameters for r in runs}), sorted({r.budget for r in runs})
    if len(sizes) < MIN_SIZES or len(budgets) < MIN_BUDGETS:
        raise ScalingError(
            f"the ladder has {len(sizes)} sizes and {len(budgets)} budgets; a fit and its error need "
            f"at least {MIN_SIZES} and {MIN_BUDGETS}: add widths or budgets and continue the sweep"
        )
    law, noise = fit_law(runs), _seed_noise(runs)
    residual = float(np.sqrt(np.mean([np.log(r.loss / law.loss(r.parameters, r.tokens)) ** 2 for r in runs])))
    smaller = fit_law([run for run in runs if run.parameters < sizes[-1]])
    error = max(
        abs(float(np.log(r.loss / smaller.loss(r.parameters, r.tokens))))
        for r in runs
        if r.parameters == sizes[-1]
    )
    best = [min((r for r in runs if r.budget == budget), key=lambda r: r.loss) for budget in budgets]
    minima = isoflop_minima(runs)
    inside = [(m.budget, m.parameters) for m in minima if m.parameters is not None]
    refusals = [*_bounds(law, runs), *_slopes(runs, noise)]
    if not inside:
        refusals.append("no isoFLOP minimum lies inside the ladder: the best size is its smallest or largest")
    if residual > 2 * max(noise, MIN_SEED_NOISE):
        refusals.append(f"the residuals ({residual:.2%}) exceed twice the seed noise ({noise:.2%})")
    return Fit(
        law,
        _power([(r.flops, r.parameters) for r in best]),
        _power(inside),
        minima,
        residual,
        noise,
        error,
        tuple(refusals),
    )


def forecast(runs: Sequence[Measurement], fit: Fit, parameters: float, tokens: float) -> Forecast:
    """The loss of a larger run, with the 10 % and 90 % quantiles of a bootstrap over runs (sizes and seeds),
    widened on both sides by the error of the fit without the largest size.

    The bootstrap states how stable the fit is, the widening whether its form is right. Raises `ScalingError`
    with the reasons of a refused fit.
    """
    if fit.refusals:
        raise ScalingError(f"no forecast: {'; '.join(fit.refusals)}")
    groups: dict[tuple[float, int], list[Measurement]] = {}
    for run in runs:
        groups.setdefault((run.parameters, run.seed), []).append(run)

    rng, members = np.random.default_rng(0), list(groups.values())
    logs: list[float] = []
    while len(logs) < NUM_RESAMPLES:
        drawn = [members[i] for i in rng.integers(len(members), size=len(members))]
        if len({group[0].parameters for group in drawn}) < MIN_SIZES - 1:
            continue
        rows = np.array([_row(run) for group in drawn for run in group])
        law = _minimise(rows, [(fit.law.e / rows[:, 2].min(), fit.law.alpha, fit.law.beta)])
        logs.append(float(np.log(law.loss(parameters, tokens))))
    loss = fit.law.loss(parameters, tokens)
    low, high = np.quantile(logs, [0.1, 0.9])
    error = max(fit.extrapolation_error, fit.seed_noise)
    return Forecast(
        loss,
        float(np.exp(min(low, np.log(loss)) - error)),
        float(np.exp(max(high, np.log(loss)) + error)),
    )


def isoflop_minima(runs: Sequence[Measurement]) -> tuple[Minimum, ...]:
    """The parabola of every budget that has at least three sizes."""
    minima = []
    for budget in sorted({run.budget for run in runs}):
        own = [run for run in runs if run.budget == budget]
        x, y = np.log([run.parameters for run in own]), np.array([run.loss for run in own])
        if len(set(x)) < 3:
            continue
        curvature, slope, level = map(float, np.polyfit(x, y, 2))
        lowest = -slope / (2 * curvature) if curvature > 0 else np.inf
        is_inside = x.min() < lowest < x.max()
        minima.append(
            Minimum(budget, (curvature, slope, level), float(np.exp(lowest)) if is_inside else None)
        )
    return tuple(minima)


def _row(run: Measurement) -> tuple[float, float, float]:
    return run.parameters, run.tokens, run.loss


def _bounds(law: Law, runs: Sequence[Measurement]) -> list[str]:
    """A line for every parameter on its bound."""
    lowest = min(run.loss for run in runs)
    bounds = {
        "alpha": (law.alpha, *EXPONENTS),
        "beta": (law.beta, *EXPONENTS),
        "E": (law.e, LOWEST_E * lowest, lowest),
    }
    return [
        f"{name} = {value:.4g} is on its bound"
        for name, (value, low, high) in bounds.items()
        if value <= 1.01 * low or value >= 0.99 * high
    ]


def _slopes(runs: Sequence[Measurement], noise: float) -> list[str]:
    """A line for every size whose loss falls faster at the end than before: its training has only begun."""
    lines = []
    for parameters in sorted({run.parameters for run in runs}):
        own = sorted((r for r in runs if r.parameters == parameters and r.seed == 0), key=lambda r: r.tokens)
        steps = [(np.log(b.tokens / a.tokens), np.log(a.loss / b.loss)) for a, b in pairwise(own)]
        slopes = [fall / step for step, fall in steps]
        for (step, _), before, after in zip(steps[1:], slopes, slopes[1:]):
            if after - before > 2 * np.sqrt(2) * max(noise, MIN_SEED_NOISE) / step:
                lines.append(
                    f"the slopes of the loss still increase at {parameters:.3g} parameters "
                    f"({before:.3f} to {after:.3f})"
                )
                break
    return lines


def _seed_noise(runs: Sequence[Measurement]) -> float:
    """The standard deviation of log losses of equal runs with other seeds; 0 without such runs."""
    cells: dict[tuple[float, float], list[float]] = {}
    for run in runs:
        cells.setdefault((run.parameters, run.budget), []).append(float(np.log(run.loss)))
    variances = [np.var(logs, ddof=1) for logs in cells.values() if len(logs) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else 0.0


def _power(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent of y ~ x^p through at least two points (x, y)."""
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def _minimise(rows: np.ndarray, starts: Sequence[tuple[float, float, float]]) -> Law:
    """The best law for rows (N, D, loss), by Levenberg-Marquardt steps on reweighted squares. `starts` are
    (E / lowest loss, alpha, beta)."""
    log_n, log_d, log_loss = np.log(rows).T
    centre_n, centre_d, lowest = log_n.mean(), log_d.mean(), float(log_loss.min())
    low = np.array([lowest + np.log(LOWEST_E), -30, -30, EXPONENTS[0], EXPONENTS[0]])
    high = np.array([lowest, 30, 30, EXPONENTS[1], EXPONENTS[1]])
    theta = np.array(
        [(lowest + np.log(e), *[lowest + np.log((1.2 - e) / 2)] * 2, p, q) for e, p, q in starts]
    )
    best = _descend(np.clip(theta, low, high), log_n - centre_n, log_d - centre_d, log_loss, low, high)
    e, a, b, alpha, beta = map(float, best)
    return Law(
        float(np.exp(e)),
        float(np.exp(a + alpha * centre_n)),
        float(np.exp(b + beta * centre_d)),
        alpha,
        beta,
    )


def _descend(
    theta: np.ndarray, x: np.ndarray, y: np.ndarray, wanted: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """The best of the points `theta` (starts, 5) after descent. All starts move at once."""
    damping = np.full(len(theta), 1e-2)
    residual, jacobian = _residuals(theta, x, y, wanted)
    objective = checked = _huber(residual)
    for iteration in range(MAX_ITERATIONS):
        weight = np.minimum(1, DELTA / np.maximum(abs(residual), 1e-300))
        hessian = np.einsum("sn,sni,snj->sij", weight, jacobian, jacobian)
        gradient = np.einsum("sn,sn,sni->si", weight, residual, jacobian)
        scale = np.einsum("sii->si", hessian) + 1e-12
        system = hessian + damping[:, None, None] * scale[:, :, None] * np.eye(5)
        moved = np.clip(theta - np.linalg.solve(system, gradient[..., None])[..., 0], low, high)
        new_residual, new_jacobian = _residuals(moved, x, y, wanted)
        new_objective = _huber(new_residual)

        better = new_objective < objective
        theta = np.where(better[:, None], moved, theta)
        residual = np.where(better[:, None], new_residual, residual)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        objective = np.where(better, new_objective, objective)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e12)
        if iteration % CHECK_EVERY == CHECK_EVERY - 1:
            if bool(np.all(checked - objective <= 1e-5 * checked)):
                break
            checked = objective
    best: np.ndarray = theta[int(objective.argmin())]
    return best


def _residuals(
    theta: np.ndarray, x: np.ndarray, y: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (starts, n) of the log loss, and their derivatives (starts, n, 5)."""
    e, a, b, alpha, beta = theta.T[..., None]
    terms = np.stack([e + 0 * x, a - alpha * x, b - beta * y])
    total = np.logaddexp.reduce(terms, axis=0)
    share = np.exp(terms - total)
    derivatives = np.stack([*share, -x * share[1], -y * share[2]], axis=-1)
    return total - wanted, derivatives


def _huber(residual: np.ndarray) -> np.ndarray:
    """The Huber loss, summed over the runs of each start."""
    size = abs(residual)
    losses: np.ndarray = np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))
    return losses.sum(axis=-1)
