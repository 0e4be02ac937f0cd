"""Peak memory of decoding a long video against a short one: streaming decode should need the same for both.

    python bench/vae_memory.py                  # nano, 17 and 481 frames of 256 x 256
    python bench/vae_memory.py --encode         # the same for the encoder
    python bench/vae_memory.py --size 96 --short 25 --long 241 --runs 5 --model wan-small --beside hunyuan,ltx

Each case runs in its own process, `--runs` times; the median is reported, because the allocator's peak varies
by a few MiB. Memory is the peak resident memory above that of the process with the loaded model. Decoded
frames are discarded, as after writing. Weights are random: memory does not depend on them. `--beside` decodes
the long video with diffusers' VAEs of Hunyuan Video (8x8x4 to 16 channels, as Wan's) and LTX Video (32x32x8
to 128), in their default form and with 32 channels as wan-small. Times are CPU seconds.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from kinema.device import CPU, peak_memory_bytes
from kinema.models.vae import VAE, VAES, VAEConfig
from kinema.registry import lookup

WIDTHS = (32, 64, 128, 128)
SMALL = VAEConfig(
    base_dim=WIDTHS[0],
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    z_dim=16,
    temporal_downsample=(False, True, True),
    patch_size=1,
)
CODECS = {**VAES, "wan-small": SMALL}
PEERS = {"hunyuan": (8, 4, 16), "ltx": (32, 8, 128)}
"""Pixels to a side of a latent, frames to a latent, and channels."""


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
    vae = VAE(lookup(CODECS, arguments.model, kind="VAE")).eval()
    level, start = peak_memory_bytes(CPU), time.process_time()
    if arguments.encode:
        video = (torch.rand(1, 3, 1, arguments.size, arguments.size) * 2 - 1 for _ in range(arguments.frames))
        count = sum(
            posterior.mean.shape[2] for posterior in vae.stream_encode(video, at_once=8 * arguments.at_once)
        )
    else:
        pieces = latents(vae, arguments.frames, arguments.size, arguments.at_once)
        count = sum(
            frames.shape[2] for frames in vae.stream_decode(pieces, at_once=arguments.at_once, clamp=True)
        )
    print(peak_memory_bytes(CPU) - level, count, time.process_time() - start)


@torch.no_grad()
def measure_peer(arguments: argparse.Namespace) -> None:
    """The same for one of diffusers' VAEs, decoding."""
    import diffusers

    space, factor, channels = lookup(PEERS, arguments.peer, kind="VAE of diffusers")
    if arguments.peer == "hunyuan":
        vae = diffusers.AutoencoderKLHunyuanVideo(block_out_channels=WIDTHS)
    else:
        vae = diffusers.AutoencoderKLLTXVideo(block_out_channels=WIDTHS, decoder_block_out_channels=WIDTHS)
    vae.eval()
    z = torch.randn(
        1, channels, (arguments.frames - 1) // factor + 1, arguments.size // space, arguments.size // space
    )
    level, start = peak_memory_bytes(CPU), time.process_time()
    video = vae.decode(z, return_dict=False)[0]
    print(peak_memory_bytes(CPU) - level, video.shape[2], time.process_time() - start)


def growth(name: str, num_frames: int, runs: int, extra: tuple[str, ...] = ()) -> float:
    """Print a line for one case and return its median growth in MiB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--frames", str(num_frames), *extra]
    rows = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(runs)
    ]
    sizes = sorted(int(row[0]) / 2**20 for row in rows)
    print(
        f"{name:10s} {num_frames:5d} frames  +{statistics.median(sizes):7.1f} MiB "
        f"({sizes[0]:.1f} to {sizes[-1]:.1f})  "
        f"{statistics.median(float(row[2]) for row in rows):6.1f} s  ({rows[0][1]} came out)",
        flush=True,
    )
    return statistics.median(sizes)


def main() -> None:
    """Run both lengths and print the table and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help=f"one of {', '.join(CODECS)}")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--short", type=int, default=17, help="frames of the short video, 4k+1")
    parser.add_argument("--long", type=int, default=481, help="frames of the long video, 4k+1")
    parser.add_argument("--at-once", type=int, default=2, help="latent frames per call")
    parser.add_argument("--encode", action="store_true", help="measure the encoder instead of the decoder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="processes for each length")
    parser.add_argument(
        "--beside",
        default="",
        help=f"VAEs of diffusers to decode with too, between commas: {', '.join(PEERS)}",
    )
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.frames:
        return measure_peer(arguments) if arguments.peer else measure(arguments)
    short, long = (
        growth(arguments.model, num_frames, arguments.runs)
        for num_frames in (arguments.short, arguments.long)
    )
    print(f"ratio of the peaks {long / short:.3f}")
    for peer in filter(None, arguments.beside.split(",")):
        other = growth(peer, arguments.long, 1, ("--peer", peer))
        print(f"ours is {long / other:.4f} of it, 1/{other / long:.0f}")


if __name__ == "__main__":
    main()
