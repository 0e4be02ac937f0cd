"""Schedules and time grids: exact ends, the papers' own tables, and shifts that undo one another."""

import pytest
import torch

from kinema.diffusion.schedules import (
    DDPM,
    SCHEDULES,
    Cosine,
    DDPMTable,
    Linear,
    Schedule,
    log_snr,
    shift_time,
    time_grid,
)
from kinema.errors import ConfigError

ALL = [pytest.param(schedule(), id=name) for name, schedule in SCHEDULES.items()]
VARIANCE_PRESERVING = [
    Cosine(),
    DDPM(),
    DDPMTable(),
    DDPMTable(curve="sqrt_linear", beta_start=8.5e-4, beta_end=1.2e-2),
]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_end_is_exact_in_every_dtype(schedule: Schedule, dtype: torch.dtype):
    zero = torch.zeros((), dtype=dtype)
    assert schedule.alpha(zero) == 1
    assert schedule.sigma(zero) == 0
    assert schedule.alpha(zero).dtype == schedule.sigma(zero).dtype == dtype


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_and_cosine_end_in_pure_noise(schedule: Schedule, dtype: torch.dtype):
    one = torch.ones((), dtype=dtype)
    assert schedule.alpha(one) == 0
    assert schedule.sigma(one) == 1


@pytest.mark.parametrize("schedule", ALL)
def test_noise_share_rises_and_shapes_are_kept(schedule: Schedule):
    assert isinstance(schedule, Schedule)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64).reshape(7, 11, 13)
    assert schedule.alpha(t).shape == schedule.sigma(t).shape == t.shape
    assert (schedule.alpha(t).flatten().diff() < 0).all()
    assert (schedule.sigma(t).flatten().diff() > 0).all()
    assert (log_snr(t, schedule).flatten().diff() < 0).all()


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=str)
def test_variance_is_preserved(schedule: Schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=str)
def test_small_noise_has_full_precision_in_float32(schedule: Schedule):
    t = torch.tensor([1e-6, 1e-5, 1e-4], dtype=torch.float32)
    torch.testing.assert_close(schedule.sigma(t).double(), schedule.sigma(t.double()), rtol=1e-5, atol=0)


def test_ddpm_is_the_integral_of_its_betas():
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    beta = 0.1 + t * 19.9
    integral = torch.cumulative_trapezoid(beta, t)
    torch.testing.assert_close(DDPM().alpha(t)[1:], torch.exp(-0.5 * integral), rtol=1e-8, atol=0)


def test_ddpm_table_holds_the_products_of_its_betas():
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    steps = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    torch.testing.assert_close(
        DDPMTable().alpha(steps), torch.sqrt((1 - betas).cumprod(0)), rtol=1e-9, atol=0
    )
    assert float(DDPMTable().alpha(steps[-1])) == pytest.approx(0.00635, abs=1e-5)
    assert float(DDPM().alpha(steps[-1])) == pytest.approx(0.00657, abs=1e-5)


def test_longer_tables_tend_to_the_continuous_schedule():
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    exact = DDPM().alpha(t)
    errors = [(DDPMTable(n, 0.1 / n, 20.0 / n).alpha(t) - exact).abs().max() for n in (1000, 2000)]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDPM(beta_min=0.0),
        lambda: DDPM(beta_min=2.0, beta_max=1.0),
        lambda: DDPMTable(num_steps=0),
        lambda: DDPMTable(beta_end=1.0),
        lambda: shift_time(torch.ones(()), 0.0),
        lambda: time_grid(0),
        lambda: time_grid(4, start=0.0),
        lambda: time_grid(4, top=0.5, bottom=0.5),
    ],
)
def test_impossible_values_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("shift", [0.25, 1.0, 3.0, 12.0])
def test_shift_keeps_ends_and_order_and_is_undone_by_its_inverse(shift: float):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    moved = shift_time(t, shift)
    assert moved[0] == 0
    assert moved[-1] == 1
    assert (moved.diff() > 0).all()
    torch.testing.assert_close(shift_time(moved, 1 / shift), t)


def test_shift_divides_the_linear_signal_to_noise_ratio():
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    snr = log_snr(t, Linear()) - log_snr(shift_time(t, 3.0), Linear())
    torch.testing.assert_close(snr.exp(), torch.full_like(t, 3.0))


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [1, 4, 50])
def test_grid_falls_from_exactly_one_to_exactly_zero(num_steps: int, shift: float):
    times = time_grid(num_steps, shift=shift)
    assert times.shape == (num_steps + 1,)
    assert times.dtype == torch.float32
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_grid_begun_part_way_is_the_rest_of_the_whole_grid():
    whole, part = time_grid(20, shift=3.0), time_grid(20, shift=3.0, start=0.6)
    assert part[0] == torch.tensor(0.6)
    assert torch.equal(part[1:], whole[whole < 0.6])
    assert torch.equal(time_grid(10, start=0.5), time_grid(10)[5:])


def test_grid_of_wan_and_of_diffusers():
    assert float(time_grid(4, top=0.999)[0]) == pytest.approx(0.999)
    times = time_grid(4, bottom=0.001)
    torch.testing.assert_close(times[:-1], torch.linspace(1, 0.001, 5)[:-1])
    assert times[-1] == 0
