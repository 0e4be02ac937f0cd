"""Objectives: conversions give back what went in, weights agree with the papers, and drawn times follow their
laws.
"""

import math
from typing import get_args

import pytest
import torch

from kinema.diffusion.objectives import (
    OBJECTIVES,
    TIMESTEP_SAMPLINGS,
    WEIGHTINGS,
    Prediction,
    TimestepSampling,
    Weighting,
    add_noise,
    draw_times,
    loss_weight,
    per_sample,
    target,
    to_noise,
    to_x0,
)
from kinema.diffusion.schedules import DDPM, SCHEDULES, Cosine, Linear, Schedule, log_snr

ALL = [pytest.param(schedule(), id=name) for name, schedule in SCHEDULES.items()]


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 4, 2, 5, 6, generator=generator, dtype=torch.float64)
    return x0, noise


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("prediction", OBJECTIVES)
@pytest.mark.parametrize("shape", [(), (3, 1, 1, 1, 1), (3, 1, 2, 5, 6)])
def test_target_converts_back_to_the_data_and_noise_it_came_from(
    schedule: Schedule, prediction, shape: tuple[int, ...]
):
    x0, noise = pair()
    t = 0.01 + 0.98 * torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xt = add_noise(x0, noise, t, schedule)
    output = target(prediction, x0, noise, t, schedule)
    torch.testing.assert_close(to_x0(prediction, output, xt, t, schedule), x0)
    torch.testing.assert_close(to_noise(prediction, output, xt, t, schedule), noise)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("prediction", ["x0", "velocity", "v"])
def test_all_but_noise_convert_at_both_ends(schedule: Schedule, prediction):
    x0, noise = (part.float() for part in pair())
    for end in (0.0, 1.0):
        t = torch.tensor(end)
        xt = add_noise(x0, noise, t, schedule)
        output = target(prediction, x0, noise, t, schedule)
        torch.testing.assert_close(to_x0(prediction, output, xt, t, schedule), x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", ALL)
def test_no_noise_at_time_zero_leaves_the_data_bit_for_bit(schedule: Schedule):
    x0, noise = (part.float() for part in pair())
    assert torch.equal(add_noise(x0, noise, torch.zeros(()), schedule), x0)


def test_velocity_and_v_are_derivatives_of_their_paths():
    x0, noise = pair()
    t = torch.tensor(0.3, dtype=torch.float64)
    cases: list[tuple[Prediction, Schedule, float]] = [
        ("velocity", Linear(), 1.0),
        ("v", Cosine(), math.pi / 2),
    ]
    for prediction, schedule, speed in cases:
        slope = (add_noise(x0, noise, t + 1e-6, schedule) - add_noise(x0, noise, t - 1e-6, schedule)) / 2e-6
        torch.testing.assert_close(
            speed * target(prediction, x0, noise, t, schedule), slope, rtol=1e-6, atol=1e-6
        )


def test_times_that_would_broadcast_along_the_wrong_axis_are_refused():
    x = torch.zeros(6, 4, 2, 5, 6)
    with pytest.raises(ValueError, match="per_sample"):
        add_noise(x, x, torch.zeros(6), Linear())
    assert per_sample(torch.zeros(6), x).shape == (6, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="not one per sample"):
        per_sample(torch.zeros(5), x)


def test_tables_hold_exactly_the_names_of_their_types():
    assert set(OBJECTIVES) == set(get_args(Prediction))
    assert set(WEIGHTINGS) == set(get_args(Weighting))
    assert set(TIMESTEP_SAMPLINGS) == set(get_args(TimestepSampling))


@pytest.mark.parametrize("schedule", [Cosine(), DDPM()], ids=str)
def test_min_snr_is_the_papers_formula_for_each_prediction(schedule: Schedule):
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    snr = torch.exp(2 * log_snr(t, schedule))
    clipped = snr.clamp(max=5.0)
    torch.testing.assert_close(loss_weight("min_snr", "x0", t, schedule), clipped)
    torch.testing.assert_close(loss_weight("min_snr", "noise", t, schedule), clipped / snr)
    torch.testing.assert_close(loss_weight("min_snr", "v", t, schedule), clipped / (snr + 1))


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name != "uniform"])
def test_weighted_error_does_not_depend_on_the_prediction(schedule: Schedule, weighting):
    (x0, noise), (wrong, _) = pair(0), pair(1)
    t = torch.tensor(0.6, dtype=torch.float64)
    xt = add_noise(x0, noise, t, schedule)
    wrong_noise = (xt - schedule.alpha(t) * wrong) / schedule.sigma(t)
    errors = []
    for prediction in get_args(Prediction):
        difference = target(prediction, wrong, wrong_noise, t, schedule) - target(
            prediction, x0, noise, t, schedule
        )
        errors.append(loss_weight(weighting, prediction, t, schedule) * difference.square().mean())
    for error in errors[1:]:
        torch.testing.assert_close(error, errors[0])


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("prediction", OBJECTIVES)
def test_min_snr_is_finite_at_both_ends(schedule: Schedule, prediction):
    weights = loss_weight("min_snr", prediction, torch.tensor([0.0, 1.0]), schedule)
    assert torch.isfinite(weights).all()
    assert (weights <= 5.001).all()
    if prediction == "noise":
        torch.testing.assert_close(weights[1], torch.ones(()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction", OBJECTIVES)
def test_uniform_weight_is_one(prediction):
    assert torch.equal(loss_weight("uniform", prediction, torch.rand(3, 1, 1), Linear()), torch.ones(3, 1, 1))


@pytest.mark.parametrize("law", TIMESTEP_SAMPLINGS)
@pytest.mark.parametrize("shape", [7, (7,), (2, 1, 5, 1, 1)])
def test_times_are_reproducible_and_in_range(law, shape):
    first, again = (
        draw_times(shape, torch.Generator().manual_seed(3), sampling=law, shift=3.0) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.shape == ((shape,) if isinstance(shape, int) else shape)
    assert first.dtype == torch.float32
    assert ((first > 0) & (first <= 1)).all()


def test_uniform_times_are_uniform_and_a_shift_moves_the_median():
    times = draw_times(20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        times.quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), rtol=0, atol=0.015
    )
    moved = draw_times(20000, torch.Generator().manual_seed(0), shift=3.0)
    assert float(moved.median()) == pytest.approx(0.75, abs=0.015)


def test_logit_normal_times_have_a_standard_normal_logit():
    logits = torch.logit(draw_times(20000, torch.Generator().manual_seed(0), sampling="logit_normal"))
    assert float(logits.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(logits.std()) == pytest.approx(1.0, abs=0.03)
    shifted = torch.logit(
        draw_times(20000, torch.Generator().manual_seed(0), sampling="logit_normal", shift=3.0)
    )
    assert float(shifted.mean()) == pytest.approx(math.log(3.0), abs=0.03)


def test_stratified_times_have_one_in_every_part_and_the_uniform_law():
    times = draw_times(64, torch.Generator().manual_seed(0), sampling="stratified")
    assert torch.equal((times * 64).ceil().sort().values, torch.arange(1, 65).float())
    assert not torch.equal(times, times.sort().values)
    generator = torch.Generator().manual_seed(1)
    singles = torch.cat([draw_times(2, generator, sampling="stratified")[:1] for _ in range(4000)])
    torch.testing.assert_close(
        singles.quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), rtol=0, atol=0.03
    )
