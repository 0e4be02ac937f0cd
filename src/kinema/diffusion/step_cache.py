"""Step caching: estimates are forecast from earlier ones, and the network runs only where the error would be
large.

The estimate of x0 changes slowly along a trajectory, so that a straight line in t through the last two
computed estimates predicts the next. The error of the line is measured at every run of the network and
decides when the network runs again: error feedback, without a table fitted to a model (in the manner of
TeaCache, Liu et al. 2024, arXiv 2411.19108, and EasyCache, Zhou et al. 2025, arXiv 2507.02860, which reuse
the last residual; deviation: a forecast of order one of x0, so that nothing inside the network is touched).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinema.diffusion.canvas import Network
from kinema.errors import ConfigError

MAX_LEAP = 2.0
"""Longest extrapolation beyond the latest estimate, in units of the distance between the two estimates."""


@dataclass
class CacheState:
    """The state of one clip's cache, updated in place. A saved state gives the same estimates bit for bit."""

    times: list[float] = field(default_factory=list)
    """Times of the computed estimates in `tensors`: at most two, the latest last."""
    tensors: list[Tensor] = field(default_factory=list)
    regime: int = 0
    """The network that computed them, where there are several."""
    curvature: float | None = None
    """Relative error of a line at unit distances. None before the first comparison."""
    num_calls: int = 0
    num_computed: int = 0

    def is_trusted(self, now: float, threshold: float) -> bool:
        """Whether the forecast for the time `now` may replace the network."""
        reach = _reach(self.times, now)
        if reach is None or self.curvature is None or not self.curvature * reach <= threshold:
            return False
        return self.times[1] - now <= MAX_LEAP * (self.times[0] - self.times[1])

    def forecast(self, now: float) -> Tensor:
        """The line through the two estimates, at the time `now`."""
        (before, latest), (earlier, later) = self.tensors, self.times
        return latest + (latest - before) * ((now - later) / (later - earlier))

    def add(self, now: float, estimate: Tensor) -> None:
        """Keep a computed estimate, after its comparison with the forecast for the same time."""
        self.num_computed += 1
        reach = _reach(self.times, now)
        if reach is not None:
            error = (self.forecast(now) - estimate).abs().mean() / estimate.abs().mean().clamp_min(1e-12)
            self.curvature = float(error) / reach
        self.times, self.tensors = [*self.times, now][-2:], [*self.tensors, estimate][-2:]

    def next_canvas(self) -> "CacheState":
        """The initial state for another canvas, which keeps the counts."""
        return CacheState(num_calls=self.num_calls, num_computed=self.num_computed)


def with_cache(
    network: Network,
    threshold: float,
    states: Sequence[CacheState],
    *,
    last: float = 0.0,
    regime: Callable[[float], int] = lambda t: 0,
) -> Network:
    """`network`, called only where the expected error of a forecast exceeds `threshold` (relative, mean
    absolute).

    Each clip of the batch has one of `states` and its own forecasts; the network runs for the whole batch if
    one clip needs it. The time of a call is the largest of its tokens. At `last` and below the network is
    always called, since its output there is the result. `regime` selects among several networks by time; a
    forecast does not cross from one to another. Raises `ConfigError` for a threshold that is not positive.
    """
    if not threshold > 0:
        raise ConfigError(f"cache threshold {threshold} must be above 0")

    def cached(x: Tensor, t: Tensor) -> Tensor:
        now = float(t.max())
        for state in states:
            if state.num_calls and regime(now) != state.regime:
                state.times, state.tensors, state.curvature = [], [], None
            state.regime, state.num_calls = regime(now), state.num_calls + 1

        is_forecast = [now > last and state.is_trusted(now, threshold) for state in states]
        if all(is_forecast):
            return torch.cat([state.forecast(now) for state in states])

        estimates = list(network(x, t).split(1))
        for i, state in enumerate(states):
            if is_forecast[i]:
                estimates[i] = state.forecast(now)
            else:
                state.add(now, estimates[i])
        return torch.cat(estimates)

    return cached


def _reach(times: list[float], now: float) -> float | None:
    """The product of distances from `now` to both `times`: the error grows with it. None without a line."""
    if len(times) < 2 or not times[0] > times[1] > now:
        return None
    return (times[0] - now) * (times[1] - now)
