"""Objectives: the prediction of the network, its conversion to x0, training times and loss weights.

Every prediction is `p * x0 + q * noise`, and the noisy sample is `alpha * x0 + sigma * noise`: two lines and
two unknowns, so that all conversions follow from the pair (p, q). Times broadcast: one for all (0-d), one per
sample `(b, 1, ..., 1)`, or one per token.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from kinema.diffusion.schedules import Schedule, shift_time
from kinema.registry import lookup

Prediction = Literal["noise", "x0", "velocity", "v"]
Weighting = Literal["uniform", "min_snr", "truncated_snr"]
TimestepSampling = Literal["uniform", "stratified", "logit_normal"]

# Predictions as (p, q) at (alpha, sigma). "noise": Ho et al. 2020. "velocity": rectified flow, the derivative
# of the linear path, and here noise - x0 on every schedule. "v": Salimans & Ho 2022, the derivative along the
# quarter circle.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "noise": lambda alpha, sigma: (torch.zeros_like(alpha), torch.ones_like(sigma)),
    "x0": lambda alpha, sigma: (torch.ones_like(alpha), torch.zeros_like(sigma)),
    "velocity": lambda alpha, sigma: (-torch.ones_like(alpha), torch.ones_like(sigma)),
    "v": lambda alpha, sigma: (-sigma, alpha),
}


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """Times `(b,)` reshaped to `(b, 1, ..., 1)` with the axes of `x`. `ValueError` for other shapes."""
    if t.shape != x.shape[:1]:
        raise ValueError(f"times of shape {tuple(t.shape)} are not one per sample of {tuple(x.shape)}")
    return t.reshape(-1, *[1] * (x.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noisy sample `alpha(t) * x0 + sigma(t) * noise`; at t = 0 exactly `x0`."""
    _check_times(t, x0)
    return schedule.alpha(t) * x0 + schedule.sigma(t) * noise


def target(prediction: Prediction, x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The target of the network at time `t`, in the shape of `x0`. Raises `UnknownName` for a prediction."""
    _check_times(t, x0)
    p, q = lookup(OBJECTIVES, prediction, kind="prediction")(schedule.alpha(t), schedule.sigma(t))
    return p * x0 + q * noise


def to_x0(prediction: Prediction, output: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The estimate of the clean sample in the `output` of a network at `xt` and `t`.

    Well posed at every time for "x0", "velocity" and "v". For "noise" the error of the network is multiplied
    by sigma / alpha: without bound as t nears 1, and infinite at t = 1 on schedules whose alpha ends at 0:
    begin the grid below it (`time_grid(top=0.999)`).
    """
    _check_times(t, xt)
    rule = lookup(OBJECTIVES, prediction, kind="prediction")
    if prediction == "x0":
        return output
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    p, q = rule(alpha, sigma)
    return (q * xt - sigma * output) / (alpha * q - sigma * p)


def to_noise(prediction: Prediction, output: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The estimate of the noise in the `output` of a network at `xt` and `t`.

    For "x0" its error grows as alpha / sigma, without bound as t approaches 0.
    """
    _check_times(t, xt)
    rule = lookup(OBJECTIVES, prediction, kind="prediction")
    if prediction == "noise":
        return output
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    p, q = rule(alpha, sigma)
    return (alpha * output - p * xt) / (alpha * q - sigma * p)


# Weights of the squared error of x0, times sigma^2, at (alpha^2, sigma^2, gamma): scaled so that both ends
# stay finite.
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor, float], Tensor] | None] = {
    "uniform": None,
    "min_snr": lambda signal, noise, gamma: torch.minimum(signal, gamma * noise),
    "truncated_snr": lambda signal, noise, gamma: torch.maximum(signal, noise),
}


def loss_weight(
    weighting: Weighting, prediction: Prediction, t: Tensor, schedule: Schedule, *, gamma: float = 5.0
) -> Tensor:
    """Factor of the squared error of the prediction at `t`, in the shape of `t`.

    "uniform" is 1: each prediction as its paper trains it. "min_snr" weighs the error of x0 by min(SNR,
    gamma) (Hang et al. 2023) and "truncated_snr" by max(SNR, 1) (Salimans & Ho 2022); both are carried over
    to the prediction at hand by the square of d x0 / d output, so that e.g. "min_snr" is min(SNR, gamma) /
    SNR for "noise" and / (SNR + 1) for "v" on variance-preserving schedules. alpha and sigma are kept above
    1e-6, which gives the limits at exact ends ("truncated_snr" of "x0" is without bound there).
    """
    rule = lookup(WEIGHTINGS, weighting, kind="loss weighting")
    coefficients = lookup(OBJECTIVES, prediction, kind="prediction")
    if rule is None:
        return torch.ones_like(t)
    alpha, sigma = schedule.alpha(t).clamp_min(1e-6), schedule.sigma(t).clamp_min(1e-6)
    p, q = coefficients(alpha, sigma)
    return rule(alpha**2, sigma**2, gamma) / (alpha * q - sigma * p) ** 2


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in (0, 1]."""
    return 1 - torch.rand(*shape, generator=generator, device=generator.device)


def _stratified(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in (0, 1], one per stratum of the batch in random order (Kingma et al. 2021)."""
    size = torch.Size(shape).numel()
    offset = torch.rand(1, generator=generator, device=generator.device)
    order = torch.randperm(size, generator=generator, device=generator.device)
    return 1 - ((order + offset) / size).reshape(*shape).clamp(max=1 - 2**-24)


def _logit_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Sigmoid of a standard normal (Esser et al. 2024, section 3.1). A shift adds log(shift) to its mean."""
    return torch.sigmoid(torch.randn(*shape, generator=generator, device=generator.device))


TIMESTEP_SAMPLINGS: dict[str, Callable[[Sequence[int], torch.Generator], Tensor]] = {
    "uniform": _uniform,
    "stratified": _stratified,
    "logit_normal": _logit_normal,
}


def draw_times(
    shape: int | Sequence[int],
    generator: torch.Generator,
    *,
    sampling: TimestepSampling = "uniform",
    shift: float = 1.0,
    device: torch.device | None = None,
) -> Tensor:
    """Random training times of the given shape, float32 in (0, 1], moved by `shift_time`, on `device`
    (default: the generator's).

    `shape` is the batch size, or e.g. `(b, 1, lf, 1, 1)` for one time a latent frame. They are drawn on the
    device of the generator: a CPU generator gives the same times for every device. Raises `UnknownName` for
    an unknown sampling.
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    times = shift_time(
        lookup(TIMESTEP_SAMPLINGS, sampling, kind="timestep sampling")(sizes, generator), shift
    )
    return times if device is None else times.to(device)


def _check_times(t: Tensor, x: Tensor) -> None:
    """Raise `ValueError` for times `(b,)`, which would silently broadcast along the last axis of `x`."""
    if t.ndim not in (0, x.ndim):
        raise ValueError(
            f"times of shape {tuple(t.shape)} do not fit {tuple(x.shape)}: "
            "give a 0-d time, per_sample(t, x) or one per token"
        )
