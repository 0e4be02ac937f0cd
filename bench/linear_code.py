"""What a linear code of the stage's clips keeps: the PSNR of principal components of blocks, for a VAE to be held against.

    python bench/linear_code.py [--clips 160]

Prints a table in Markdown: blocks of 4 frames and 16x16 or 8x8 pixels, and how many numbers each is kept in.
"""

import argparse

import torch
from einops import rearrange
from torch import Tensor

from kinema.data.world_clips import draw_clips, to_tensor
from kinema.worlds.stage.world import StageWorld

NUMBERS = (24, 32, 48, 96)
HELD_OUT_CLIPS = 32


def blocks(video: Tensor, side: int) -> Tensor:
    """Blocks (n, 3*4*side*side) of all frames but the first."""
    return rearrange(video[:, :, 1:], "b c (f t) (h p) (w q) -> (b f h w) (c t p q)", t=4, p=side, q=side)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=160)
    arguments = parser.parse_args()
    world = StageWorld()
    seen, unseen = (
        to_tensor(draw_clips(world, split, range(count), height=128, width=128, num_frames=9))
        for split, count in (("vae", arguments.clips), ("vae-held-out", HELD_OUT_CLIPS))
    )
    print(f"| block | {' | '.join(map(str, NUMBERS))} |\n|---|{'---|' * len(NUMBERS)}")
    for side in (16, 8):
        known = blocks(seen, side)
        mean = known.mean(dim=0)
        components = torch.linalg.eigh((known - mean).T @ (known - mean)).eigenvectors.flip(1)
        held_out = blocks(unseen, side) - mean
        scores = []
        for count in NUMBERS:
            kept = components[:, :count]
            error = (held_out - held_out @ kept @ kept.T).square().mean()
            scores.append(f"{10 * torch.log10(4 / error):.1f} dB")
        print(f"| 4x{side}x{side} | {' | '.join(scores)} |", flush=True)


if __name__ == "__main__":
    main()
