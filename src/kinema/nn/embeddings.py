"""Embeddings of scalars."""

import math

import torch
from torch import Tensor

from kinema.shapes import Float

MAX_PERIOD = 10000.0


def sinusoid(
    positions: Float[Tensor, " u"], d: int, max_period: float = MAX_PERIOD, *, shift: int = 0
) -> Float[Tensor, "u d"]:
    """`cos(p * f_i)` for the d/2 frequencies `f_i = max_period^(-2i/d)`, then the sines, in float32; `d` is
    even.

    From Vaswani et al. 2017, with the cosines first, as in Wan. With `shift` 1 the lowest frequency is
    exactly 1 / max_period (diffusers' `downscale_freq_shift`).
    """
    exponent = torch.arange(d // 2, dtype=torch.float32, device=positions.device) * (
        -math.log(max_period) / (d // 2 - shift)
    )
    angle = positions.float()[:, None] * exponent.exp()
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
