"""Seconds of a text-to-video call, prompt to frames, alternating with diffusers' pipeline on the same folder.

    python bench/wan_call.py [--pairs 3] [--steps 10] [--size 96] [--frames 17]

The model has Wan 2.1's structure and random float32 weights: 4 layers of width 768, a VAE with 32 channels
instead of 96, a tiny text encoder. Both use the same noise, UniPC steps and guidance. Times are CPU seconds
of one thread, with wall-clock seconds in brackets. The ratio is the median of the pairs' CPU seconds, with
minimum and maximum. The error is the largest difference of a pixel.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import diffusers
import numpy as np
import torch

from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.generation.sampling.noise import START, latent_noise

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.checkpoints.families.wan.wan_folders import peer, with_random_weights

BACKBONE = {"num_attention_heads": 6, "attention_head_dim": 128, "num_layers": 4, "ffn_dim": 3072}
CODEC = {
    "base_dim": 32,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
PROMPT, NEGATIVE, GUIDANCE, SHIFT, SEED = "a red fox runs in the snow", "blue ball", 5.0, 3.0, 5


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--frames", type=int, default=17, help="4k+1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frames, size, steps = arguments.frames, arguments.size, arguments.steps
    theirs = peer("2.1-t2v", **BACKBONE)
    theirs.register_modules(
        vae=with_random_weights(diffusers.AutoencoderKLWan(**CODEC), 1, 0.05),
        transformer=with_random_weights(theirs.transformer, 3, 0.02),
        scheduler=type(theirs.scheduler).from_config(theirs.scheduler.config, flow_shift=SHIFT),
    )
    theirs.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, safe_serialization=True)
        ours = load(folder, device="cpu", precision="fp32")
        request = Request(
            PROMPT,
            NEGATIVE,
            width=size,
            height=size,
            frames=frames,
            steps=steps,
            guidance=GUIDANCE,
            shift=SHIFT,
            seed=SEED,
            beyond_trained=True,
        )
        noise = latent_noise(SEED, START, range((frames + 3) // 4), (16, size // 8, size // 8)).unsqueeze(0)

        def run_ours() -> np.ndarray:
            return ours.run(request).video.frames / 255

        def run_theirs() -> np.ndarray:
            return theirs(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                width=size,
                height=size,
                num_frames=frames,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                latents=noise,
            ).frames[0]

        error, times = 0.0, []
        for _ in range(arguments.pairs):
            row, made = [], []
            for run in (run_ours, run_theirs):
                begun, begun_wall = time.process_time(), time.perf_counter()
                made.append(run())
                row += [time.process_time() - begun, time.perf_counter() - begun_wall]
            error = max(error, float(np.abs(made[0] - made[1]).max()))
            times.append(row)
    ratios = sorted(row[2] / row[0] for row in times)
    mine, mine_wall, other, other_wall = (statistics.median(column) for column in zip(*times))
    print(
        f"{size}x{size}, {frames} frames, {steps} steps: {mine:.2f} s ({mine_wall:.2f}), "
        f"diffusers {other:.2f} s ({other_wall:.2f}), "
        f"{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"error {255 * error:.2f}/255, "
        f"spread of the frames {255 * made[0].std():.0f}/255"
    )


if __name__ == "__main__":
    main()
