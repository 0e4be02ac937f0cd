"""Memory that `kinema plan` predicts for a phase against the measured peak, each case in a fresh process.

python bench/plan_memory.py               # all cases; a name as the argument runs one
"""

import ctypes
import os
import subprocess
import sys

import torch

from kinema.device import CPU, peak_memory_bytes
from kinema.generation.cost.counting import backbone_peak_bytes, decode_cost, encode_cost
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig

DIT = DiTConfig(
    d=512, num_layers=2, num_heads=4, ffn_dim=2048, text_dim=64, text_padding="zeros", text_length=64
)
CODEC = VAEConfig(
    base_dim=32,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    z_dim=16,
    temporal_downsample=(False, True, True),
    patch_size=1,
)
FOLDED = VAEConfig(
    base_dim=32,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    z_dim=48,
    temporal_downsample=(False, True, True),
    patch_size=2,
    residual=True,
)
CASES = {
    "backbone, 1,024 tokens, both halves of guidance": ("dit", (4, 32, 32), 2),
    "backbone, 3,840 tokens": ("dit", (6, 40, 64), 1),
    "backbone, 7,680 tokens": ("dit", (12, 40, 64), 1),
    "decoding, 17 frames of 96x96": ("decode", (5, 12, 12), CODEC),
    "decoding, 17 frames of 160x160": ("decode", (5, 20, 20), CODEC),
    "decoding, 17 frames of 192x192, 2.2": ("decode", (5, 12, 12), FOLDED),
    "encoding, 25 frames of 96x96": ("encode", (25, 96, 96), CODEC),
}


def resident_bytes() -> int:
    """What the process holds once the heap has given back what lies free in it."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@torch.inference_mode()
def measure(name: str) -> None:
    # Each network runs once on a small input before the measurement, so that libraries hold their buffers.
    kind, grid, how = CASES[name]
    if isinstance(how, int):
        planned = backbone_peak_bytes(DIT, grid, batch=how)
        dit = DiT(DIT)
        text = dit.prepare(Conditioning(TextStates(torch.randn(8 * how, 64), (8,) * how)))
        dit.predict(torch.randn(how, 16, 1, 4, 4), torch.rand(how), text)
        before = resident_bytes()
        dit.predict(torch.randn(how, 16, *grid), torch.rand(how), text)
    elif kind == "decode":
        planned = decode_cost(how, grid)[1]
        vae = VAE(how)
        list(vae.stream_decode([torch.randn(1, how.z_dim, 2, 2, 2)]))
        before = resident_bytes()
        for _ in vae.stream_decode([torch.randn(1, how.z_dim, *grid)]):
            pass
    else:
        frames, height, width = grid
        planned = encode_cost(how, width, height, frames)[1]
        vae = VAE(how)
        vae.encode(torch.zeros(1, 3, 5, 16, 16))
        before = resident_bytes()
        list(vae.stream_encode(torch.zeros(1, 3, frames, height, width).split(8, dim=2), at_once=8))
    measured = peak_memory_bytes(CPU) - before
    print(
        f"{name}: planned {planned / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB, "
        f"ratio {planned / measured:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for case in CASES:
            # Freed blocks are returned at once: the measured memory is in use, not kept by the heap.
            subprocess.run(
                [sys.executable, __file__, case],
                check=True,
                env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
            )
