"""Noise schedules: the factors of data and noise at time t, and the time grid of a sampler.

`t` is in [0, 1], 0 = data, 1 = noise, and `xt = alpha(t) * x0 + sigma(t) * noise`. DDPM's betas, the cosine
and the straight path of rectified flow are three objects of one kind: any sampler, objective or canvas takes
any of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from kinema.errors import ConfigError
from kinema.shapes import Float

BetaCurve = Literal["linear", "sqrt_linear"]
Spacing = Literal["leading", "linspace", "trailing"]
NUM_TIMESTEPS = 1000
"""Timesteps of the published models with a table of betas."""


@runtime_checkable
class Schedule(Protocol):
    """Factors of data and noise at times of any shape in [0, 1], in their shape and dtype."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the data: 1 at t = 0, falling to 0 or nearly so at t = 1."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Factor of the noise: 0 at t = 0, rising to 1 or nearly so at t = 1."""
        ...


@dataclass(frozen=True)
class Linear:
    """The straight path of rectified flow (Liu et al. 2022, Lipman et al. 2022), as in Wan."""

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """`t` as it is."""
        return t


@dataclass(frozen=True)
class Cosine:
    """The quarter circle (Nichol & Dhariwal 2021 with s = 0; Salimans & Ho 2022): alpha = cos(pi t / 2),
    sigma = sin(pi t / 2).

    The offset s of Nichol & Dhariwal only keeps a table of betas below one; without it both ends are exact.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """cos(pi t / 2), written as a sine so that it is exactly 0 at t = 1."""
        return torch.sin(math.pi / 2 * (1 - t))

    def sigma(self, t: Tensor) -> Tensor:
        """sin(pi t / 2)."""
        return torch.sin(math.pi / 2 * t)


@dataclass(frozen=True)
class DDPM:
    """The variance-preserving path of DDPM (Ho et al. 2020) in its continuous limit (Song et al. 2021, eq.
    32-33).

    beta(t) = beta_min + t (beta_max - beta_min), alpha = exp(-1/2 * integral of beta), sigma = sqrt(1 -
    alpha^2). The defaults are 1000 times Ho et al.'s betas 1e-4 ... 2e-2. Deviation: `DDPMTable` holds the
    1000 steps of the paper itself, whose product ends at alpha = 0.0064 where the limit ends at 0.0066. At t
    = 1 a trace of the data is left, as in the paper.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ConfigError(
                f"betas must rise from above 0: beta_min={self.beta_min}, beta_max={self.beta_max}"
            )

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2)."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2), without cancellation near t = 0."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))


@dataclass(frozen=True)
class DDPMTable:
    """The discrete steps of DDPM (Ho et al. 2020): `num_steps` betas, and log alpha drawn straight between
    the steps.

    Step i of a table (counted from 0, as in diffusers) is at t = (i + 1) / num_steps; t = 0 is the clean
    sample. "linear" is the paper's curve; "sqrt_linear" has straight square roots (latent diffusion, where it
    is called scaled linear).
    """

    num_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    curve: BetaCurve = "linear"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps={self.num_steps}: a table needs at least one step")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ConfigError(
                f"betas must rise within (0, 1): beta_start={self.beta_start}, beta_end={self.beta_end}"
            )

    def _log_alpha(self, t: Tensor) -> Tensor:
        table = (
            _log_alpha_table(self.num_steps, self.beta_start, self.beta_end, self.curve)
            .to(t.dtype)
            .to(t.device)
        )
        place = t.clamp(0, 1) * self.num_steps
        below = place.floor().clamp(max=self.num_steps - 1)
        index = below.long()
        return torch.lerp(table.take(index), table.take(index + 1), place - below)

    def alpha(self, t: Tensor) -> Tensor:
        """Square root of the product of (1 - beta) up to t."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2), without cancellation near t = 0."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))


@lru_cache(maxsize=16)
def _log_alpha_table(
    num_steps: int, beta_start: float, beta_end: float, curve: BetaCurve
) -> Float[Tensor, "u"]:
    """Log alpha at t = 0, 1 / num_steps, ..., 1, in double precision on the host."""
    if curve == "linear":
        betas = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
    else:
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=torch.float64) ** 2
    return torch.cat([betas.new_zeros(1), 0.5 * torch.log1p(-betas).cumsum(0)])


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "ddpm": DDPM,
    "ddpm_table": DDPMTable,
    "latent_diffusion": partial(DDPMTable, 1000, 0.00085, 0.012, "sqrt_linear"),
}


def log_snr(t: Tensor, schedule: Schedule) -> Tensor:
    """log(alpha / sigma), half of the log SNR: the lambda of DPM-Solver. Infinite at exact ends."""
    return torch.log(schedule.alpha(t)) - torch.log(schedule.sigma(t))


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise: shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23); 0 and 1 stay
    where they are.

    On the linear schedule this is what sampling at `shift` times the width and height asks for; Wan uses 3 to
    12. A shift below 1 moves towards data, and `shift_time(shift_time(t, s), 1 / s)` is t.
    """
    if not shift > 0:
        raise ConfigError(f"shift={shift} must be above 0; 1 moves nothing")
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def time_grid(
    num_steps: int, *, shift: float = 1.0, start: float = 1.0, top: float = 1.0, bottom: float = 0.0
) -> Float[Tensor, "u"]:
    """The times of a sampler: float32 on the host, falling to exactly 0, one more than there are steps.

    Equal steps from `top` to `bottom` are moved by `shift_time`; then the last time is put to 0. Wan's own
    grid has `top` = 0.999; that of UniPC in diffusers has `bottom` = 0.001 (and begins 1e-6 below 1). With
    `start` below 1 (SDEdit) the same grid begins at `start` and keeps only the times below it, so that the
    share of steps above is saved. Raises `ConfigError` for a grid without steps.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps={num_steps}: a sampler needs at least one step")
    if not 0 < start <= 1 or not 0 <= bottom < top <= 1:
        raise ConfigError(
            f"start={start} must be in (0, 1], and 0 <= bottom < top <= 1, not bottom={bottom} and top={top}"
        )
    times = shift_time(torch.linspace(top, bottom, num_steps + 1, dtype=torch.float64), shift).to(
        torch.float32
    )
    times[-1] = 0
    if start < 1:
        first = torch.tensor([start], dtype=torch.float32)
        times = torch.cat([first, times[times < first]])
    return times


@dataclass(frozen=True)
class TimestepGrid:
    """The times of a sampler as the schedulers of diffusers place them: at timesteps of 1000, counted from 0.

    Timestep i is t = (i + 1) / 1000. `spacing`, `offset` and `end` are the scheduler's `timestep_spacing`,
    its `steps_offset`, and the time after its last step: 0, or 0.001 without `set_alpha_to_one`.
    """

    spacing: Spacing = "leading"
    offset: int = 0
    end: float = 0.0

    def times(self, num_steps: int, *, start: float = 1.0) -> Float[Tensor, "u"]:
        """The falling times of `num_steps` steps, float32 on the host; with `start` below 1 as `time_grid`.

        Raises `ConfigError` for more steps than the table has.
        """
        if not 1 <= num_steps <= NUM_TIMESTEPS:
            raise ConfigError(f"steps={num_steps} is out of range: use 1 to {NUM_TIMESTEPS}")
        if self.spacing == "leading":
            steps = torch.arange(num_steps).flip(0).double() * (NUM_TIMESTEPS // num_steps) + self.offset
        elif self.spacing == "linspace":
            steps = torch.linspace(0, NUM_TIMESTEPS - 1, num_steps, dtype=torch.float64).flip(0)
        else:
            steps = NUM_TIMESTEPS - torch.arange(num_steps).double() * NUM_TIMESTEPS / num_steps
            steps = steps.round() - 1

        times = ((steps.clamp(max=NUM_TIMESTEPS - 1) + 1) / NUM_TIMESTEPS).to(torch.float32)
        first, last = torch.tensor([start]), torch.tensor([self.end])
        times = torch.cat([times[times > last], last])
        return torch.cat([first, times[times < first]]) if start < 1 else times
