"""One compiled block serves many sizes."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from kinema.models.dit import DiT, DiTConfig, apply_to_grid
from kinema.models.text import TextStates

SIZES = [(1, 4, 6), (2, 6, 4), (2, 8, 8), (3, 4, 4), (3, 6, 10), (4, 8, 4), (4, 4, 10), (5, 6, 6), (5, 8, 10), (6, 10, 8)]


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on a CPU")],
        ),
    ],
)
def test_a_compiled_block_serves_ten_sizes_and_lengths_with_at_most_two_recompilations(backend):
    torch.manual_seed(0)
    dit = DiT(DiTConfig(in_channels=4, out_channels=4, d=48, num_layers=1, num_heads=2, ffn_dim=64, text_dim=16, freq_dim=32)).eval()
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    (block,) = dit.blocks
    torch._dynamo.reset()
    counters["stats"].clear()
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    with torch.no_grad():
        for i, size in enumerate(SIZES):
            x, t = torch.randn(1, 4, *size), torch.tensor([0.1 + 0.08 * i])
            text = dit.prepare_text(TextStates(torch.randn(3 + i, 16), (3 + i,)))
            dit.blocks[0] = block
            eager = apply_to_grid(dit, x, t, text)
            dit.blocks[0] = compiled
            torch.testing.assert_close(apply_to_grid(dit, x, t, text), eager, atol=1e-5, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] <= 3
