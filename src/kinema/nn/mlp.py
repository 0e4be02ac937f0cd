"""Two linear layers with a nonlinearity between them."""

from typing import Literal

from torch import Tensor, nn

from kinema.shapes import Float

Activation = Literal["gelu_tanh", "silu"]


class MLP(nn.Module):
    """`project(activation(expand(x)))`; "gelu_tanh" is the tanh form of GELU, which Wan uses throughout."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, activation: Activation = "gelu_tanh") -> None:
        super().__init__()
        self.expand = nn.Linear(d_in, d_hidden)
        self.activation = nn.GELU(approximate="tanh") if activation == "gelu_tanh" else nn.SiLU()
        self.project = nn.Linear(d_hidden, d_out)

    def forward(self, x: Float[Tensor, "*n d_in"]) -> Float[Tensor, "*n d_out"]:
        """The MLP applied to every vector of the last axis."""
        return self.project(self.activation(self.expand(x.to(self.expand.weight.dtype))))
