"""Prints how many graphs one compiled block of the DiT needs for ten sizes and text lengths, and the largest
relative error.

    python tests/models/compiled_block.py [--backend inductor]

One graph is the first compilation, every further one a recompilation. The error is against the same block
without compilation. "aot_eager" traces without generating code. `test_dit.py` runs this in a process of its
own.
"""

import argparse

import torch
from torch._dynamo.utils import counters

from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig

# fmt: off
SIZES = [
    (1, 4, 6), (2, 6, 4), (2, 8, 8), (3, 4, 4), (3, 6, 10),
    (4, 8, 4), (4, 4, 10), (5, 6, 6), (5, 8, 10), (6, 10, 8),
]
# fmt: on
CONFIG = DiTConfig(
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


@torch.no_grad()
def main() -> None:
    """Compare the compiled block with the plain one at every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="inductor")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    dit = DiT(CONFIG).eval()
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    (block,) = dit.blocks
    compiled = torch.compile(block, backend=arguments.backend, fullgraph=True)

    errors = []
    for i, size in enumerate(SIZES):
        x, t = torch.randn(1, 4, *size), torch.tensor([0.1 + 0.08 * i])
        text = dit.prepare(Conditioning(TextStates(torch.randn(3 + i, 16), (3 + i,))))
        dit.blocks[0] = block
        eager = dit.predict(x, t, text)
        dit.blocks[0] = compiled  # type: ignore[assignment]
        errors.append((dit.predict(x, t, text) - eager).abs().max() / eager.abs().max())
    print(counters["stats"]["unique_graphs"], max(errors).item())


if __name__ == "__main__":
    main()
