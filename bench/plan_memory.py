"""What `kinema plan` says a stage needs, beside the measured peak above the loaded process, each case in a fresh process.

python bench/plan_memory.py
"""

import os
import subprocess
import sys

import torch

from kinema.device import CPU, peak_memory_bytes
from kinema.models.dit import DiT, DiTConfig, apply_to_grid
from kinema.models.text import TextStates
from kinema.models.vae import VAE, VAEConfig
from kinema.wan.plan import decode_cost, dit_peak_bytes

DIT = DiTConfig(d=512, num_layers=2, num_heads=4, ffn_dim=2048, text_dim=64, text_padding="zeros", text_length=64)
CODEC = VAEConfig(base_dim=32, dim_mult=(1, 2, 4, 4), num_res_blocks=2, z_dim=16, temporal_downsample=(False, True, True), fold=1)
CASES = {
    "backbone, 3,840 tokens": ("dit", (6, 40, 64)),
    "backbone, 7,680 tokens": ("dit", (12, 40, 64)),
    "decoding, 17 frames of 160x160": ("vae", (5, 20, 20)),
    "decoding, 33 frames of 160x160": ("vae", (9, 20, 20)),
}


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@torch.inference_mode()
def measure(name: str) -> None:
    kind, grid = CASES[name]
    if kind == "dit":
        planned = dit_peak_bytes(DIT, grid)
        dit = DiT(DIT)
        text = dit.prepare_text(TextStates(torch.randn(8, 64), (8,)))
        apply_to_grid(dit, torch.randn(1, 16, 1, 4, 4), torch.rand(1), text)  # so that libraries have what they keep
        before = resident_bytes()
        apply_to_grid(dit, torch.randn(1, 16, *grid), torch.rand(1), text)
    else:
        planned = decode_cost(CODEC, grid)[1]
        vae = VAE(CODEC)
        list(vae.stream_decode([torch.randn(1, 16, 2, 2, 2)]))
        before = resident_bytes()
        for _ in vae.stream_decode([torch.randn(1, 16, *grid)]):
            pass
    measured = peak_memory_bytes(CPU) - before
    ratio = planned / measured
    print(f"{name}: planned {planned / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for case in CASES:
            # Freed blocks go back at once, so that what is measured is what is in use and not what the heap keeps.
            subprocess.run([sys.executable, __file__, case], check=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"})
