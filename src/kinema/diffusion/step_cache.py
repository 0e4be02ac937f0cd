"""Step caching: estimates that follow from earlier ones are forecast, and the network is asked only where a forecast would be too wrong.

The estimate of x0 changes slowly along a trajectory, so that a straight line in t through the last two computed ones tells the next. How
wrong such a line is, is measured whenever the network is asked, and decides when it is asked again: error feedback, with no table
fitted to a model (in the manner of TeaCache, Liu et al. 2024, arXiv 2411.19108, and EasyCache, Zhou et al. 2025, arXiv 2507.02860, which
reuse the last residual; deviation: a forecast of order one of x0, so that nothing inside the network is touched).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from kinema.diffusion.canvas import Network
from kinema.errors import ConfigError

MAX_LEAP = 2.0
"""How far beyond the latest estimate a line may reach, in units of the distance between its two: a curve that happens to be straight in one
place is not trusted for long."""


@dataclass
class CacheState:
    """What a cache knows; it is updated in place, and going on with a saved one gives the same estimates bit for bit."""

    times: list[float] = field(default_factory=list)
    """Of the computed estimates in `tensors`, which are at most two, the latest last."""
    tensors: list[Tensor] = field(default_factory=list)
    regime: int = 0
    """Which of several networks gave them."""
    curvature: float | None = None
    """Relative error of a line at unit distances; None until one could be compared."""
    num_calls: int = 0
    num_computed: int = 0

    def next_canvas(self) -> "CacheState":
        """The state in which another canvas begins: nothing is known of it, and the counts go on."""
        return CacheState(num_calls=self.num_calls, num_computed=self.num_computed)


def with_cache(
    network: Network,
    threshold: float,
    state: CacheState,
    *,
    last: float = 0.0,
    regime: Callable[[float], int] = lambda t: 0,
) -> Network:
    """`network`, asked only where a forecast is expected to be off by more than `threshold` (relative, mean absolute), or cannot be made.

    A call has one sampler's time, the greatest of its tokens'. At `last` and below the network is always asked: what it says there is the
    result. `regime` says which of several networks answers at a time; no forecast reaches from one to another. Raises `ConfigError`.
    """
    if not threshold > 0:
        raise ConfigError(f"cache threshold {threshold} must be above 0")

    def cached(x: Tensor, t: Tensor) -> Tensor:
        now = float(t.max())
        if state.num_calls and regime(now) != state.regime:
            state.times, state.tensors, state.curvature = [], [], None
        state.regime, state.num_calls = regime(now), state.num_calls + 1
        reach = _reach(state.times, now)
        is_trusted = (
            reach is not None and state.curvature is not None and state.curvature * reach <= threshold
        )
        if is_trusted and now > last and _is_near(state.times, now):
            return _forecast(state, now)
        estimate = network(x, t)
        state.num_computed += 1
        if reach is not None:
            error = (_forecast(state, now) - estimate).abs().mean() / estimate.abs().mean().clamp_min(1e-12)
            state.curvature = float(error) / reach
        state.times, state.tensors = [*state.times, now][-2:], [*state.tensors, estimate][-2:]
        return estimate

    return cached


def _reach(times: list[float], now: float) -> float | None:
    """What the error of a line through `times` grows with: the product of the distances to both. None where there is no line."""
    if len(times) < 2 or not times[0] > times[1] > now:
        return None
    return (times[0] - now) * (times[1] - now)


def _is_near(times: list[float], now: float) -> bool:
    """Whether the line through `times` may be trusted as far as `now`."""
    return times[1] - now <= MAX_LEAP * (times[0] - times[1])


def _forecast(state: CacheState, now: float) -> Tensor:
    """The line through the two estimates at the time `now`."""
    (before, latest), (earlier, later) = state.tensors, state.times
    return latest + (latest - before) * ((now - later) / (later - earlier))
