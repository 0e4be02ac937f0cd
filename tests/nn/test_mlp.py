import pytest
import torch
from torch.nn import functional as F

from kinema.nn.mlp import MLP

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("activation", "function"), [("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")), ("silu", F.silu)]
)
def test_is_two_linear_layers_and_an_activation(activation, function):
    mlp = MLP(4, 9, 3, activation)
    torch.testing.assert_close(mlp(X), mlp.project(function(mlp.expand(X))))


def test_input_takes_the_dtype_of_the_weights():
    assert MLP(4, 9, 3).bfloat16()(X).dtype == torch.bfloat16
