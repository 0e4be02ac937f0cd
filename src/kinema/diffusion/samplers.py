"""Samplers: from noise to clean samples along falling times, as generators over `denoise(x, t) -> x0`.

Guidance, known tokens, previews and caches wrap `denoise`. A sampler works with one scalar time and one
network call at a time. `times` fall strictly, usually to 0 (see `time_grid`). The coefficients of a step are
computed in double precision on the host; tensors stay in the dtype and on the device of `x`.

    for step in SAMPLERS["unipc"](denoise, noise, Walk(time_grid(20, shift=3.0), Linear())):
        ...
    sample = step.x

A step holds all that the remaining ones depend on. To resume after it, give its `x` and
`Walk(..., first_step=step.i + 1, memory=step.memory)`: the result is the same bit for bit.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kinema.device import CPU
from kinema.diffusion.schedules import Schedule
from kinema.errors import ConfigError
from kinema.shapes import Float

Denoise = Callable[[Tensor, Tensor], Tensor]
"""The estimate of x0 from `x` at the 0-d time `t`, in the shape of `x`."""

Noise = Callable[[int], Tensor]
"""Standard normal noise for the step of that index, in the shape, dtype and device of `x`."""


@dataclass(frozen=True, eq=False)
class SamplerStep:
    """A step of a sampler that is done."""

    i: int
    x: Tensor
    """The sample at `times[i + 1]`."""
    x0: Tensor
    """The last estimate of the clean sample."""
    memory: tuple[Tensor, ...] = ()
    """Earlier tensors that a multistep method needs in the next step."""


@runtime_checkable
class Sampler(Protocol):
    """A function in `SAMPLERS`: the remaining steps of `walk` from the sample `x` at the time of the first
    one.

    The `x` of the last step is the sample at `walk.times[-1]`.
    """

    def __call__(self, denoise: Denoise, x: Tensor, walk: "Walk") -> Iterator[SamplerStep]:
        """The steps, in order."""
        ...


class Walk:
    """The remaining steps along `times`, with alpha, sigma and log SNR at every time as plain numbers, and
    the noise of a step.

    `first_step` and `memory` resume a sampler. Raises `ValueError` for times that do not fall strictly.
    """

    def __init__(
        self,
        times: Float[Tensor, "u"],
        schedule: Schedule,
        *,
        noise: Noise | None = None,
        first_step: int = 0,
        memory: Sequence[Tensor] = (),
    ) -> None:
        if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
            raise ValueError(f"times must be at least two numbers that fall strictly, not {times.tolist()}")

        exact = times.to(CPU).double()
        self.times = times
        self.alpha: list[float] = schedule.alpha(exact).tolist()
        self.sigma: list[float] = schedule.sigma(exact).tolist()
        self.log_snr = [_log(a) - _log(s) for a, s in zip(self.alpha, self.sigma)]
        self.num_steps = len(times) - 1
        self.noise = noise
        self.first_step = first_step
        self.memory = tuple(memory)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Index and time of every remaining step."""
        for i in range(self.first_step, self.num_steps):
            yield i, self.times[i]


def ddpm(denoise: Denoise, x: Tensor, walk: Walk) -> Iterator[SamplerStep]:
    """Steps by drawing each step from the posterior q(x_s | x_t, x0) (ancestral sampling; Ho et al.
    2020, eq. 6-7).

    Written for any alpha and sigma as in Kingma et al. 2021, appendix A, with the smaller of the two
    variances of the paper. Needs `noise`, which is not called for the step that ends at t = 0. Raises
    `ConfigError` without it.
    """
    noise = walk.noise
    if noise is None:
        raise ConfigError(
            "the sampler 'ddpm' draws noise at every step: give noise=, a function of the step index"
        )

    a, s = walk.alpha, walk.sigma
    for i, t in walk:
        x0 = denoise(x, t)
        ratio = a[i] / a[i + 1]
        fresh_variance = s[i] ** 2 - (ratio * s[i + 1]) ** 2
        x = (ratio * (s[i + 1] / s[i]) ** 2) * x + (a[i + 1] * fresh_variance / s[i] ** 2) * x0
        if s[i + 1] > 0:
            x = x + (math.sqrt(max(fresh_variance, 0.0)) * s[i + 1] / s[i]) * noise(i)
        yield SamplerStep(i, x, x0)


def ddim(denoise: Denoise, x: Tensor, walk: Walk) -> Iterator[SamplerStep]:
    """Steps by the deterministic update of DDIM (Song et al. 2021, eq. 12 with eta = 0). Order one.

    The noise (x - alpha x0) / sigma is kept, so the last step, to t = 0, gives x0 itself bit for bit.
    """
    a, s = walk.alpha, walk.sigma
    for i, t in walk:
        x0 = denoise(x, t)
        kept = s[i + 1] / s[i]
        x = kept * x + (a[i + 1] - a[i] * kept) * x0
        yield SamplerStep(i, x, x0)


def euler(denoise: Denoise, x: Tensor, walk: Walk) -> Iterator[SamplerStep]:
    """Steps by Euler's method for the probability flow in its straight form (Liu et al. 2022). Order one.

    On any schedule u = x / (alpha + sigma) moves on the linear path at the time r = sigma / (alpha + sigma),
    with velocity (u - x0) / r. There Euler's step is DDIM's, so `euler` and `ddim` differ by rounding only;
    this one rounds like flow-matching code.
    """
    scale = [a + s for a, s in zip(walk.alpha, walk.sigma)]
    r = [s / c for s, c in zip(walk.sigma, scale)]
    for i, t in walk:
        x0 = denoise(x, t)
        u = x / scale[i]
        x = scale[i + 1] * (u + (r[i + 1] - r[i]) * ((u - x0) / r[i]))
        yield SamplerStep(i, x, x0)


def heun(denoise: Denoise, x: Tensor, walk: Walk) -> Iterator[SamplerStep]:
    """Steps by Heun's method (Karras et al. 2022, algorithm 1) in the straight form of `euler`. Order two.

    Two network calls per step, but one in the step that ends at t = 0, where no velocity is defined: 2 n - 1
    in all.
    """
    scale = [a + s for a, s in zip(walk.alpha, walk.sigma)]
    r = [s / c for s, c in zip(walk.sigma, scale)]
    for i, t in walk:
        x0 = denoise(x, t)
        u = x / scale[i]
        velocity = (u - x0) / r[i]
        ahead = u + (r[i + 1] - r[i]) * velocity
        if r[i + 1] > 0:
            x0 = denoise(scale[i + 1] * ahead, walk.times[i + 1])
            ahead = u + (r[i + 1] - r[i]) * 0.5 * (velocity + (ahead - x0) / r[i + 1])
        x = scale[i + 1] * ahead
        yield SamplerStep(i, x, x0)


def dpmpp_2m(denoise: Denoise, x: Tensor, walk: Walk) -> Iterator[SamplerStep]:
    """Steps by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Order two, one network call per step.

    Of order one are the first step, a step at an infinite log SNR (from alpha = 0 or to t = 0), and the last
    of fewer than 15 steps.
    """
    a, s, log_snr, memory = walk.alpha, walk.sigma, walk.log_snr, walk.memory
    for i, t in walk:
        x0 = mixed = denoise(x, t)
        h = log_snr[i + 1] - log_snr[i]
        is_short_end = i == walk.num_steps - 1 and walk.num_steps < 15
        if memory and math.isfinite(log_snr[i - 1]) and math.isfinite(h) and not is_short_end:
            weight = 0.5 * h / (log_snr[i] - log_snr[i - 1])
            mixed = (1 + weight) * x0 - weight * memory[0]
        x = (s[i + 1] / s[i]) * x - (a[i + 1] * math.expm1(-h)) * mixed
        memory = (x0,)
        yield SamplerStep(i, x, x0, memory)


def unipc(denoise: Denoise, x: Tensor, walk: Walk, *, order: int = 2) -> Iterator[SamplerStep]:
    """Steps by UniPC-`order` with B(h) = e^h - 1 (Zhao et al. 2023, "bh2", predicting x0).

    Each network call is used twice: it corrects the sample at its time, then predicts the next. The order is
    lower in the first and last steps, and where a log SNR is infinite. Wan and diffusers use order 2. Raises
    `ConfigError` for an order below 1.
    """
    if order < 1:
        raise ConfigError(f"order={order}: UniPC needs an order of 1 or more; 2 and 3 are usual")

    memory = walk.memory
    for i, t in walk:
        x0 = denoise(x, t)
        estimates: list[Tensor] = []
        if memory:
            before, *estimates = memory
            x = _unified_step(walk, i - 1, before, estimates, _usable_order(walk, i - 1, order), x0)

        estimates = [*estimates, x0][-order:]
        corrected = x
        x = _unified_step(walk, i, corrected, estimates, _usable_order(walk, i, order))
        memory = (corrected, *estimates)
        yield SamplerStep(i, x, x0, memory)


def _usable_order(walk: Walk, i: int, order: int) -> int:
    """Order of step `i`, limited by the estimates with a finite log SNR and by the remaining steps."""
    most = min(order, walk.num_steps - i, i + 1)
    usable = 1
    while usable < most and math.isfinite(walk.log_snr[i - usable]):
        usable += 1
    return usable


def _unified_step(
    walk: Walk, i: int, x: Tensor, estimates: Sequence[Tensor], order: int, arrived: Tensor | None = None
) -> Tensor:
    """The sample at time i + 1 from the sample `x` at time i.

    Predicted (UniP), or with `arrived`, the estimate of x0 at time i + 1, corrected (UniC).
    """
    log_snr, x0 = walk.log_snr, estimates[-1]
    h = log_snr[i + 1] - log_snr[i]
    growth = math.expm1(-h)
    # Positions of the other estimates in units of the step, and their divided differences from the latest.
    positions = [(log_snr[i - k] - log_snr[i]) / h for k in range(1, order)]
    slopes = [(estimates[-1 - k] - x0) / position for k, position in enumerate(positions, start=1)]
    if arrived is not None:
        positions, slopes = [*positions, 1.0], [*slopes, arrived - x0]
    x = (walk.sigma[i + 1] / walk.sigma[i]) * x - (walk.alpha[i + 1] * growth) * x0
    for weight, slope in zip(_unified_weights(h, positions), slopes):
        x = x - (walk.alpha[i + 1] * growth * weight) * slope
    return x


def _unified_weights(h: float, positions: Sequence[float]) -> list[float]:
    """Weights of the divided differences: the Vandermonde system of Zhao et al. 2023, theorem 3.1.

    A single difference has the weight one half.
    """
    if len(positions) < 2:
        return [0.5] * len(positions)
    growth = math.expm1(-h)
    matrix = torch.tensor(
        [[position**row for position in positions] for row in range(len(positions))], dtype=torch.float64
    )
    right, phi, factorial = [], growth / -h - 1, 1
    for k in range(1, len(positions) + 1):
        right.append(phi * factorial / growth)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    weights: list[float] = torch.linalg.solve(matrix, torch.tensor(right, dtype=torch.float64)).tolist()
    return weights


def _log(value: float) -> float:
    """Natural logarithm, minus infinity at 0."""
    return math.log(value) if value > 0 else -math.inf


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}
