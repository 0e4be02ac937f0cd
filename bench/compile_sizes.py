"""How many graphs one compiled block of the backbone makes for ten sizes and lengths, and its greatest relative difference from eager.

    python bench/compile_sizes.py [--backend inductor]

Prints two numbers. One graph is the first compilation; each more is a recompilation. "aot_eager" traces without generating code.
"""

import argparse

import torch
from torch._dynamo.utils import counters

from kinema.models.conditioning import TextStates
from kinema.models.dit import DiT, DiTConfig, apply_to_grid

SIZES = [
    (1, 4, 6),
    (2, 6, 4),
    (2, 8, 8),
    (3, 4, 4),
    (3, 6, 10),
    (4, 8, 4),
    (4, 4, 10),
    (5, 6, 6),
    (5, 8, 10),
    (6, 10, 8),
]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="inductor")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dit = DiT(
        DiTConfig(
            in_channels=4,
            out_channels=4,
            d=48,
            num_layers=1,
            num_heads=2,
            ffn_dim=64,
            text_dim=16,
            freq_dim=32,
            text_padding="zeros",
        )
    ).eval()
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    (block,) = dit.blocks
    compiled = torch.compile(block, backend=arguments.backend, fullgraph=True)
    worst = 0.0
    for i, size in enumerate(SIZES):
        x, t = torch.randn(1, 4, *size), torch.tensor([0.1 + 0.08 * i])
        text = dit.prepare_text(TextStates(torch.randn(3 + i, 16), (3 + i,)))
        dit.blocks[0] = block
        eager = apply_to_grid(dit, x, t, text)
        dit.blocks[0] = compiled
        error = (apply_to_grid(dit, x, t, text) - eager).abs().max() / eager.abs().max()
        worst = max(worst, error.item())
    print(counters["stats"]["unique_graphs"], worst)


if __name__ == "__main__":
    main()
