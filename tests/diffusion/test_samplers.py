"""Samplers against exact answers: for Gaussian data the best denoiser and the end of the probability flow are
known in closed form.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from tests.diffusion.sampling import end
from torch import Tensor

from kinema.checkpoints.manifest import SAMPLER_NAMES
from kinema.diffusion.samplers import (
    SAMPLERS,
    Sampler,
    SamplerStep,
    Walk,
    ddim,
    ddpm,
    dpmpp_2m,
    euler,
    heun,
    unipc,
)
from kinema.diffusion.schedules import SCHEDULES, Cosine, Linear, Schedule, time_grid
from kinema.errors import ConfigError

MEAN, STD = 2.0, 0.5
ALL = [pytest.param(schedule(), id=name) for name, schedule in SCHEDULES.items()]
DETERMINISTIC = [name for name in SAMPLERS if name != "ddpm"]


def test_requests_know_every_sampler_by_name():
    assert set(SAMPLER_NAMES) == set(SAMPLERS)


def best_denoiser(mean: float, std: float, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The expectation of x0 ~ N(mean, std^2) given x at t."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return mean + std**2 * alpha / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)

    return denoise


def on_path(rank: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Where the probability flow of N(MEAN, STD^2) is at t, for a sample that is `rank` standard deviations
    from the mean.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * MEAN + torch.sqrt(alpha**2 * STD**2 + sigma**2) * rank


def error(sampler: Sampler, schedule: Schedule, times: Tensor) -> float:
    rank = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x = end(sampler, best_denoiser(MEAN, STD, schedule), on_path(rank, times[0], schedule), times, schedule)
    return float((x - on_path(rank, times[-1], schedule)).abs().max())


def order(sampler: Sampler, schedule: Schedule, first: float, last: float, num_steps: int = 128) -> float:
    """How often the error halves when the steps double."""
    grids = [torch.linspace(first, last, n + 1, dtype=torch.float64) for n in (num_steps, 2 * num_steps)]
    coarse, fine = (error(sampler, schedule, times) for times in grids)
    return float(torch.log2(torch.tensor(coarse / fine)))


# This interval keeps off both ends, where a log SNR is infinite and multistep methods step down to order one.
@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ddim, 1.0),
        (euler, 1.0),
        (heun, 2.0),
        (dpmpp_2m, 2.0),
        (unipc, 2.0),
        (functools.partial(unipc, order=3), 2.0),
    ],
    ids=["ddim", "euler", "heun", "dpmpp_2m", "unipc", "unipc3"],
)
def test_order_of_convergence_between_the_ends(sampler: Sampler, expected: float, schedule: Schedule):
    measured = order(sampler, schedule, 0.9, 0.2)
    assert measured > expected - 0.2
    if expected == 1:
        assert measured < 1.1


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
@pytest.mark.parametrize("expected", [2, 3])
def test_unipc_reaches_its_order_once_it_has_a_past(expected: int, schedule: Schedule):
    rank = torch.linspace(-2, 2, 9, dtype=torch.float64)
    denoise = best_denoiser(MEAN, STD, schedule)
    errors = []
    for tenth in (20, 40):
        times = torch.linspace(0.9, 0.2, 7 * tenth + 1, dtype=torch.float64)
        past = [on_path(rank, t, schedule) for t in times[tenth - expected : tenth]]
        estimates = [denoise(x, t) for x, t in zip(past, times[tenth - expected : tenth])]
        walk = Walk(times, schedule, first_step=tenth, memory=[past[-1], *estimates])
        steps = unipc(denoise, on_path(rank, times[tenth], schedule), walk, order=expected)
        reached = next(step.x for step in steps if step.i + 1 == 4 * tenth)
        errors.append((reached - on_path(rank, times[4 * tenth], schedule)).abs().max())
    assert float(torch.log2(errors[0] / errors[1])) > expected - 0.1


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
def test_order_of_one_step_methods_from_end_to_end(schedule: Schedule):
    assert order(ddim, schedule, 1, 0) == pytest.approx(1.0, abs=0.05)
    assert order(euler, schedule, 1, 0) == pytest.approx(1.0, abs=0.05)
    assert order(heun, schedule, 1, 0) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
def test_multistep_methods_beat_ddim_by_far_for_the_same_calls(schedule: Schedule):
    times = torch.linspace(1, 0, 65, dtype=torch.float64)
    for sampler in (dpmpp_2m, unipc, functools.partial(unipc, order=3)):
        assert error(sampler, schedule, times) < error(ddim, schedule, times) / 7


@pytest.mark.parametrize("schedule", ALL)
def test_euler_is_ddim(schedule: Schedule):
    x = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoise = best_denoiser(MEAN, STD, schedule)
    times = time_grid(7, shift=3.0).double()
    torch.testing.assert_close(
        end(euler, denoise, x, times, schedule), end(ddim, denoise, x, times, schedule)
    )


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 20])
def test_data_of_one_point_is_reached_in_any_number_of_steps(name: str, schedule: Schedule, num_steps: int):
    noise = torch.randn(8, generator=torch.Generator().manual_seed(0))
    point = torch.full_like(noise, 0.75)
    x = end(name, lambda x, t: point, noise, time_grid(num_steps), schedule)
    torch.testing.assert_close(x, point)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_data_of_one_point_leaves_every_step_on_the_path(name: str, schedule: Schedule):
    noise = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    point = torch.full_like(noise, 0.75)
    times = time_grid(6).double()
    start = schedule.alpha(times[0]) * point + schedule.sigma(times[0]) * noise

    for step in SAMPLERS[name](lambda x, t: point, start, Walk(times, schedule)):
        t = times[step.i + 1]
        torch.testing.assert_close(step.x, schedule.alpha(t) * point + schedule.sigma(t) * noise)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_and_estimates_are_finite_and_keep_shape_and_dtype(name: str):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for schedule in (Linear(), Cosine()):
        walk = Walk(time_grid(5, shift=5.0), schedule, noise=seeded(x))
        steps = list(SAMPLERS[name](best_denoiser(MEAN, STD, schedule), x, walk))
        assert [step.i for step in steps] == [0, 1, 2, 3, 4]
        for step in steps:
            assert torch.isfinite(step.x).all()
            assert step.x.dtype == step.x0.dtype == torch.float32
            assert step.x.shape == step.x0.shape == x.shape


def seeded(x: Tensor) -> Callable[[int], Tensor]:
    return lambda step: torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("schedule", ALL)
def test_ancestral_steps_have_exactly_the_marginals_of_one_point(schedule: Schedule):
    times = torch.tensor([1.0, 0.7, 0.4, 0.2], dtype=torch.float64)
    noise = torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    start = schedule.alpha(times[0]) * MEAN + schedule.sigma(times[0]) * noise
    x = end(ddpm, lambda x, t: torch.full_like(x, MEAN), start, times, schedule, seeded(noise))
    assert float(x.mean()) == pytest.approx(float(schedule.alpha(times[-1])) * MEAN, abs=0.01)
    assert float(x.std()) == pytest.approx(float(schedule.sigma(times[-1])), rel=0.01)


@pytest.mark.parametrize("schedule", ALL)
def test_ancestral_samples_have_the_mean_and_spread_of_the_data(schedule: Schedule):
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(99))
    x = end(ddpm, best_denoiser(MEAN, STD, schedule), noise, time_grid(300), schedule, seeded(noise))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(STD, rel=0.04)


def test_ancestral_sampling_asks_for_noise_in_all_steps_but_the_last():
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(3)

    end(ddpm, lambda x, t: x, torch.zeros(3), time_grid(4), Linear(), noise)
    assert asked == [0, 1, 2]
    with pytest.raises(ConfigError, match="noise="):
        end(ddpm, lambda x, t: x, torch.zeros(3), time_grid(4), Linear())


@pytest.mark.parametrize(("name", "calls"), [(name, 9 if name == "heun" else 5) for name in SAMPLERS])
def test_network_calls_are_as_few_as_promised_and_see_the_times_given(name: str, calls: int):
    times, seen = time_grid(5, shift=3.0), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.ndim == 0
        seen.append(float(t))
        return torch.zeros_like(x)

    end(name, denoise, torch.ones(2), times, Linear(), seeded(torch.ones(2)))
    assert len(seen) == calls
    assert set(seen) == set(times[:-1].tolist())


@pytest.mark.parametrize("name", [*SAMPLERS, "unipc3"])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_going_on_from_a_saved_state_gives_the_same_bits(name: str, stop: int):
    sampler: Sampler = functools.partial(unipc, order=3) if name == "unipc3" else SAMPLERS[name]
    schedule = Linear()
    noise = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    denoise, times = best_denoiser(MEAN, STD, schedule), time_grid(8, shift=3.0)
    whole = end(sampler, denoise, noise, times, schedule, seeded(noise))

    steps = sampler(denoise, noise, Walk(times, schedule, noise=seeded(noise)))
    stopped = next(step for step in steps if step.i == stop)
    walk = Walk(times, schedule, noise=seeded(noise), first_step=stop + 1, memory=stopped.memory)
    *_, last = sampler(denoise, stopped.x, walk)
    assert torch.equal(last.x, whole)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_is_not_changed_by_the_steps_after_it(name: str):
    noise = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    walk = Walk(time_grid(6), Linear(), noise=seeded(noise))
    steps, copies = [], []
    for step in SAMPLERS[name](best_denoiser(MEAN, STD, Linear()), noise, walk):
        steps.append(step)
        copies.append([tensor.clone() for tensor in tensors_of(step)])
    for step, copied in zip(steps, copies):
        assert all(map(torch.equal, tensors_of(step), copied))


def tensors_of(step: SamplerStep) -> list[Tensor]:
    return [step.x, step.x0, *step.memory]


def test_times_that_do_not_fall_are_refused() -> None:
    for times in ([0.5], [0.0, 1.0], [1.0, 0.5, 0.5, 0.0]):
        with pytest.raises(ValueError, match="fall strictly"):
            Walk(torch.tensor(times), Linear())


def test_an_order_below_one_is_refused():
    with pytest.raises(ConfigError, match="order=0"):
        next(unipc(lambda x, t: x, torch.zeros(2), Walk(time_grid(2), Linear()), order=0))
