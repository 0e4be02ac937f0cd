"""Fits of losses of a known law recover it; fits that determine nothing are refused with the reason."""

import numpy as np
import pytest

from kinema.errors import ScalingError
from kinema.scaling.laws import Law, Measurement, fit_ladder, fit_law, forecast

TRUTH = Law(e=0.5, a=60.0, b=400.0, alpha=0.35, beta=0.4)
SIZES = (5e4, 1e5, 2e5, 4e5, 8e5)
BUDGETS = (3e11, 1e12, 3e12, 1e13)


def ladder(law=TRUTH, sizes=SIZES, noise=0.0, seeds=1, change=lambda loss, n, d: loss):
    rng = np.random.default_rng(1)
    return [
        Measurement(
            n,
            c / (6 * n),
            c,
            change(law.loss(n, c / (6 * n)), n, c / (6 * n)) * np.exp(noise * rng.normal()),
            c,
            seed,
        )
        for i, n in enumerate(sizes)
        for c in BUDGETS
        for seed in range(seeds if i == 0 else 1)
    ]


def test_a_known_law_is_recovered_within_two_percent():
    law = fit_law(ladder())
    for name in ("e", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(TRUTH, name), rel=0.02)
    assert law.optimal_parameters(1e14) == pytest.approx(TRUTH.optimal_parameters(1e14), rel=0.02)
    assert law.loss(2e6, 1e14 / 1.2e7) == pytest.approx(TRUTH.loss(2e6, 1e14 / 1.2e7), rel=0.005)


def test_the_optimal_size_has_the_least_loss():
    best = TRUTH.optimal_parameters(1e13)
    losses = [TRUTH.loss(n, 1e13 / (6 * n)) for n in (0.9 * best, best, 1.1 * best)]
    assert losses[1] == min(losses)
    assert TRUTH.optimal_parameters(1e15) / best == pytest.approx(100**TRUTH.exponent)


def test_the_three_fits_agree_on_the_exponent():
    fit = fit_ladder(ladder(seeds=2))
    assert fit.refusals == ()
    assert fit.law.exponent == pytest.approx(TRUTH.exponent, rel=0.02)
    assert fit.isoflop_exponent == pytest.approx(TRUTH.exponent, abs=0.1)
    assert fit.envelope_exponent == pytest.approx(TRUTH.exponent, abs=0.2)


def test_the_interval_holds_the_truth_and_is_narrow():
    runs = ladder(noise=0.003, seeds=2)
    fit = fit_ladder(runs)
    large, tokens = 1.6e6, 4e13 / 9.6e6
    found = forecast(runs, fit, large, tokens)
    assert found.low < TRUTH.loss(large, tokens) < found.high
    assert found.high / found.low < 1.12
    assert found == forecast(runs, fit, large, tokens)


def test_a_ladder_too_small_is_refused():
    with pytest.raises(ScalingError, match=r"3 sizes and 4 budgets.*at least 4 and 3"):
        fit_ladder(ladder(sizes=SIZES[:3]))


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (ladder(Law(0.0, 60.0, 400.0, 0.35, 0.4)), "E = .* is on its bound"),
        (ladder(sizes=(1e3, 1.5e3, 2e3, 3e3)), "no isoFLOP minimum lies inside the ladder"),
        (
            ladder(change=lambda loss, n, d: loss * (1 + 0.05 * np.sin(7 * np.log(n)))),
            "exceed twice the seed noise",
        ),
        (
            ladder(change=lambda loss, n, d: 3.0 - 0.02 * np.log(d / 1e4) ** 2),
            "slopes of the loss still increase",
        ),
    ],
)
def test_a_fit_that_determines_nothing_is_refused(runs, reason):
    fit = fit_ladder(runs)
    with pytest.raises(ScalingError, match=reason):
        forecast(runs, fit, 1.6e6, 1e7)
