"""Normalisations, computed in float32 whatever the dtype of the input."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.shapes import Float


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis, in the dtype of `x` (Zhang, Sennrich 2019)."""

    keeps_float32 = True

    def __init__(self, d: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The vectors of the last axis, normalised in float32 and returned in the dtype of `x`."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).type_as(x)

    def extra_repr(self) -> str:
        """Width and eps, for printing the module."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(variance + eps)` in float32 over the last axis; `affine` adds weight and bias."""

    keeps_float32 = True

    def __init__(self, d: int, eps: float = 1e-6, *, affine: bool = True) -> None:
        super().__init__()
        self.d, self.eps = d, eps
        self.weight = nn.Parameter(torch.ones(d)) if affine else None
        self.bias = nn.Parameter(torch.zeros(d)) if affine else None

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The vectors of the last axis, normalised, in float32."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), (self.d,), weight, bias, self.eps)

    def extra_repr(self) -> str:
        """Width and eps, for printing the module."""
        return f"{self.d}, eps={self.eps}, affine={self.weight is not None}"
