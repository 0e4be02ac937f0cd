"""Seconds and PSNR of cheaper sampling with the shipped model against its own full result: 50 steps of UniPC with guidance, same seed.

    python bench/cheap_sampling.py [--prompts 2] [--seeds 2] [--model DIR]

CPU seconds of sampling alone, one thread; the ratio is that of the sums over prompts and seeds, PSNR of decoded frames is given as the mean
and the worst. "asked" counts passes through the backbone for both halves of guidance. Fewer steps of the plain sampler are in the table
too, because they are what a cache has to beat.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import kinema
from kinema.generation import pipeline as module
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request

PROMPTS = ("a red fox hops to the left over grass", "a rocket rises into the night sky over a snowy plain")
FULL: dict[str, Any] = {"steps": 50, "sampler": "unipc"}
WAYS: tuple[dict[str, Any], ...] = (
    {"cache": 0.03},
    {"cache": 0.1},
    {"cache": 0.2},
    {"cache": 0.4},
    {"cache": 0.4, "guidance_interval": (0.5, 1.0)},
    {"steps": 25, "cache": 0.2},
    {"steps": 25, "cache": 0.4},
    {"guidance_interval": (0.5, 1.0)},
    {"steps": 20},
    {"steps": 14},
    {"steps": 12},
)


@dataclass
class Row:
    """Sums over prompts and seeds for one way of sampling."""

    seconds: float = 0.0
    num_passes: int = 0
    psnrs: tuple[float, ...] = ()


def psnr(found: np.ndarray, full: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 frames in dB."""
    error = np.square(found.astype(np.float64) - full).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def sampled(pipeline: Pipeline, request: Request, passes: list[int]) -> tuple[np.ndarray, float]:
    """Decoded frames and the CPU seconds of their sampling."""
    passes.clear()
    plan = pipeline.plan(request)
    begun = time.process_time()
    latents = pipeline.sample(plan)
    seconds = time.process_time() - begun
    return pipeline.decode(latents, plan).frames, seconds


def counting(apply: Callable[..., torch.Tensor], passes: list[int]) -> Callable[..., torch.Tensor]:
    """`apply` (a network on a batch), which notes how many clips it is given."""

    def counted(dit: object, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(x))
        return apply(dit, x, *rest)

    return counted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help=f"how many of the {len(PROMPTS)}")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = kinema.load(arguments.model)
    passes: list[int] = []
    module.apply_to_grid = counting(module.apply_to_grid, passes)  # type: ignore[assignment]
    rows = [Row() for _ in range(1 + len(WAYS))]
    sampled(
        pipeline, Request(PROMPTS[0], steps=2), passes
    )  # so that what is slow the first time is not counted
    for prompt in PROMPTS[: arguments.prompts]:
        for seed in range(arguments.seeds):
            base = Request(prompt, seed=seed, **FULL)
            full: np.ndarray | None = None
            for row, way in zip(rows, ({}, *WAYS), strict=True):
                frames, seconds = sampled(pipeline, replace(base, **way), passes)
                row.seconds, row.num_passes = row.seconds + seconds, row.num_passes + sum(passes)
                if full is None:
                    full = frames
                else:
                    row.psnrs += (psnr(frames, full),)
                    print(
                        f"{seed} {way} {sum(passes)} passes {seconds:.2f} s {row.psnrs[-1]:.1f} dB",
                        file=sys.stderr,
                        flush=True,
                    )
    count = len(PROMPTS[: arguments.prompts]) * arguments.seeds
    print(
        "| sampling | asked | s a clip | times as fast | PSNR, dB: mean | worst |\n|---|---|---|---|---|---|"
    )
    for row, way in zip(rows, ({}, *WAYS), strict=True):
        name = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in (FULL | way).items() if key != "sampler"
        )
        close = f"{np.mean(row.psnrs):.1f} | {min(row.psnrs):.1f}" if row.psnrs else "|"
        print(
            f"| {name} | {row.num_passes / count:.0f} | {row.seconds / count:.2f} | {rows[0].seconds / row.seconds:.2f} | {close} |"
        )
    print(
        f"\n{count} clips, {pipeline.manifest.name} {pipeline.model_hash}, UniPC, guidance {pipeline.manifest.guidance:g}"
    )


if __name__ == "__main__":
    main()
