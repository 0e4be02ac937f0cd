"""Step caching: what follows is forecast, what does not is computed, and going on later changes nothing."""

import copy

import pytest
import torch
from tests.diffusion.sampling import end
from torch import Tensor

from kinema.diffusion.schedules import Linear, time_grid
from kinema.diffusion.step_cache import CacheState, with_cache
from kinema.errors import ConfigError


def sweep(network, times, threshold, state=None, **options) -> list[Tensor]:
    states = [state if state is not None else CacheState()]
    cached = with_cache(lambda x, t: network(x, t)[None], threshold, states, **options)
    return [cached(torch.zeros(1, 3), t)[0] for t in times]


def line(x: Tensor, t: Tensor) -> Tensor:
    return torch.tensor([1.0, -2.0, 3.0]) + t * torch.tensor([0.5, 4.0, -1.0])


def curve(x: Tensor, t: Tensor) -> Tensor:
    return torch.tensor([1.0, -2.0, 3.0]) + torch.sin(3 * t) * torch.tensor([0.5, 4.0, -1.0])


TIMES = torch.linspace(1, 0.05, 20)


def test_a_straight_line_is_computed_ever_more_rarely():
    state = CacheState()
    found = sweep(line, TIMES, 1e-3, state)
    torch.testing.assert_close(
        torch.stack(found), torch.stack([line(t, t) for t in TIMES]), atol=1e-5, rtol=1e-5
    )
    assert state.num_calls == 20
    assert 3 < state.num_computed <= 6  # leaps grow, each to at most three times the one before


def test_a_smaller_threshold_computes_more_and_errs_less():
    times = torch.linspace(1, 0.05, 96)
    exact = torch.stack([curve(t, t) for t in times])
    counts, errors = [], []
    for threshold in (0.1, 0.01, 0.001):
        state = CacheState()
        errors.append((torch.stack(sweep(curve, times, threshold, state)) - exact).abs().max())
        counts.append(state.num_computed)
    assert counts[0] < counts[1] < counts[2] < 96
    assert errors[0] > errors[1] > errors[2]


def test_the_last_times_are_computed():
    asked: list[float] = []
    sweep(lambda x, t: asked.append(float(t)) or line(x, t), TIMES, 1.0, last=float(TIMES[-2]))
    assert asked[-2:] == TIMES[-2:].tolist()
    assert len(asked) < 9


def test_no_forecast_reaches_into_another_regime():
    def jump(x: Tensor, t: Tensor) -> Tensor:
        return line(x, t) + 100 * (t < 0.5)

    found = sweep(jump, TIMES, 1e-3, regime=lambda t: int(t < 0.5))
    torch.testing.assert_close(
        torch.stack(found), torch.stack([jump(t, t) for t in TIMES]), atol=1e-4, rtol=1e-5
    )


def test_a_sampler_that_goes_on_from_a_copy_of_the_state_ends_at_the_same_bits():
    cut = 9
    state, whole = CacheState(), []
    for i, t in enumerate(TIMES):
        if i == cut:
            saved = copy.deepcopy(state)
        whole += sweep(curve, [t], 0.01, state)
    again = sweep(curve, TIMES[cut:], 0.01, saved)
    assert all(torch.equal(a, b) for a, b in zip(again, whole[cut:], strict=True))
    assert (saved.num_calls, saved.num_computed, saved.times) == (
        state.num_calls,
        state.num_computed,
        state.times,
    )


def test_a_cached_sampler_lands_near_the_full_one_with_fewer_calls():
    def pull(x: Tensor, t: Tensor) -> Tensor:  # the exact estimate for data of standard deviation 0.5
        return x * (1 - t) * 0.25 / ((1 - t) ** 2 * 0.25 + t**2)

    noise, times, state = (
        torch.randn(1, 64, generator=torch.Generator().manual_seed(0)),
        time_grid(50, top=0.999),
        CacheState(),
    )
    full = end("ddim", pull, noise, times, Linear())
    found = end("ddim", with_cache(pull, 0.01, [state], last=float(times[-2])), noise, times, Linear())
    assert state.num_computed < 30
    assert (found - full).abs().max() < 0.02 * full.abs().max()


def test_each_clip_of_a_batch_has_the_forecasts_that_it_has_alone():
    alone = [CacheState(), CacheState()]
    expected = [sweep(network, TIMES, 0.01, state) for network, state in zip((line, curve), alone)]
    states, calls = [CacheState(), CacheState()], []

    def both(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t))
        return torch.stack([line(x, t), curve(x, t)])

    cached = with_cache(both, 0.01, states)
    for t, *rows in zip(TIMES, *expected):
        assert torch.equal(cached(torch.zeros(2, 3), t), torch.stack(rows))
    assert [state.num_computed for state in states] == [state.num_computed for state in alone]
    assert alone[0].num_computed < alone[1].num_computed <= len(calls) < 20


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ConfigError, match="above 0"):
        with_cache(line, 0.0, [CacheState()])
