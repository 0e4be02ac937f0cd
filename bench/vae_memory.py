"""Peak memory of decoding a long video against a short one: streaming decode should need the same for both.

    python bench/vae_memory.py                  # nano, 17 and 481 frames of 256 x 256
    python bench/vae_memory.py --encode         # the same for the encoder

Each case runs in a process of its own. Counted is the growth of the peak resident memory above its level when the model is loaded;
frames are dropped as they come, as a writer would. Random weights: memory does not depend on them.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from kinema.device import peak_memory_bytes, pick_device
from kinema.lookup import lookup
from kinema.models.vae import VAE, VAES


def latents(vae: VAE, num_frames: int, size: int, at_once: int) -> Iterator[Tensor]:
    """One latent frame, then `at_once` at a time."""
    grid = size // vae.config.spatial_factor
    yield torch.randn(1, vae.config.z_dim, 1, grid, grid)
    waiting = (num_frames - 1) // vae.config.temporal_factor
    while waiting > 0:
        yield torch.randn(1, vae.config.z_dim, min(at_once, waiting), grid, grid)
        waiting -= at_once


def measure(arguments: argparse.Namespace) -> None:
    """Print bytes of growth, frames (or latent frames) that came out and seconds, for one length."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    vae = VAE(lookup(VAES, arguments.model, kind="VAE")).eval()
    level, start = peak_memory_bytes(pick_device("cpu")), time.perf_counter()
    if arguments.encode:
        video = (torch.rand(1, 3, 1, arguments.size, arguments.size) * 2 - 1 for _ in range(arguments.frames))
        count = sum(posterior.mean.shape[2] for posterior in vae.stream_encode(video, at_once=8 * arguments.at_once))
    else:
        pieces = latents(vae, arguments.frames, arguments.size, arguments.at_once)
        count = sum(frames.shape[2] for frames in vae.stream_decode(pieces, at_once=arguments.at_once, clamp=True))
    print(peak_memory_bytes(pick_device("cpu")) - level, count, time.perf_counter() - start)


def main() -> None:
    """Run both lengths and print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help=f"one of {', '.join(VAES)}")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--short", type=int, default=17, help="frames of the short video, 4k+1")
    parser.add_argument("--long", type=int, default=481, help="frames of the long video, 4k+1")
    parser.add_argument("--at-once", type=int, default=2, help="latent frames per call")
    parser.add_argument("--encode", action="store_true", help="measure the encoder instead of the decoder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.frames:
        return measure(arguments)
    growth = []
    for num_frames in (arguments.short, arguments.long):
        command = [sys.executable, __file__, *sys.argv[1:], "--frames", str(num_frames)]
        size_bytes, count, duration_s = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        growth.append(int(size_bytes))
        print(f"{num_frames:6d} frames  +{int(size_bytes) / 2**20:7.1f} MiB  {float(duration_s):6.1f} s  ({count} came out)")
    print(f"ratio of the peaks {growth[1] / growth[0]:.3f}")


if __name__ == "__main__":
    main()
