"""How sharp a VAE is, and a model with it: PSNR, PSNR of the objects, edge energy, and nouns that template
matching finds.

    python bench/round_trip.py [--vae DIR ...] [--clips 48] [--read 24] [--generated 24] [--sheet FILE]

Clips are of the held-out combinations of the model's world. "renderer" is what
the renderer's own clips score; a row per VAE follows, and with --generated another of the model's samples of
that many held-out prompts, decoded by that VAE. PSNRs pool the squared errors; edge energy is the standard
deviation of the Laplacian; the score is the winning template's (0 perfect, 1 unrelated).
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kinema
from kinema.checkpoints.components import load_vae
from kinema.evaluation.samples import ClipFormat, Sample, draw_samples, trained_world, world_of
from kinema.evaluation.vae_clip_metrics import vae_round_trip
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.vae import VAE
from kinema.video import Video, contact_sheet, save_image

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.fidelity import Fidelity, FidelityMeter, Reference, reference_clips


def line(name: str, row: Fidelity, seconds: float) -> str:
    """A row of the table."""
    psnrs = "| |" if row.psnr_db is None else f"{row.psnr_db:.2f} | {row.object_psnr_db:.2f} |"
    edges = f"{row.edge:.2f} | {row.edge_ratio:.2f}"
    found = f"{row.found}/{row.num_read} | {row.score:.3f}"
    return f"| {name} | {row.num} | {psnrs} {edges} | {found} | {seconds:.0f} |"


def sampled(pipeline: Pipeline, prompts: Sequence[Sample], size: dict[str, Any]) -> list[torch.Tensor]:
    """The latents of each prompt, before any decoder."""
    requests = [Request(sample.prompt, seed=sample.seed, **size) for sample in prompts]
    return [pipeline.sample(pipeline.plan(request)) for request in requests]


def save_sheet(file: Path, columns: dict[str, list[np.ndarray]]) -> None:
    """Every clip, from above the same one by each way."""
    videos, titles = [], []
    for index in range(min(len(clips) for clips in columns.values())):
        for name, clips in columns.items():
            videos.append(Video(clips[index], 8.0))
            titles.append(name)
    save_image(file, contact_sheet(videos, titles, columns=2, frames_per_video=5))


class Table:
    """Prints a row for each way of making the clips, and keeps the first clips of each for the sheet."""

    def __init__(self, nouns: Sequence[str], num_read: int) -> None:
        self.nouns, self.num_read = nouns, num_read
        self.columns: dict[str, list[np.ndarray]] = {}
        names = ("clips", "number", "PSNR, dB", "of objects", "edge energy", "of the renderer's")
        print(f"| {' | '.join((*names, 'noun found', 'score', 's'))} |\n{'|---' * 9}|")

    def add(
        self,
        name: str,
        clips: Iterable[np.ndarray],
        references: Sequence[Reference],
        *,
        are_copies: bool = True,
    ) -> None:
        """Measure one clip per reference."""
        begun = time.process_time()
        made = list(clips)
        seconds = time.process_time() - begun
        meter = FidelityMeter(self.nouns, are_copies, self.num_read)
        for frames, reference in zip(made, references, strict=True):
            meter.add(frames, reference)
        self.columns[name] = made[:8]
        print(line(name, meter.result(), seconds), flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shipped")
    parser.add_argument(
        "--vae", type=Path, action="append", default=[], help="another VAE of the same latents"
    )
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--height", type=int, help="pixels (default: the model's)")
    parser.add_argument("--width", type=int, help="pixels (default: the model's)")
    parser.add_argument("--read", type=int, default=24, help="clips that templates are matched in")
    parser.add_argument("--generated", type=int, default=0, help="prompts to sample")
    parser.add_argument("--sheet", type=Path, help="a picture of the first 8 clips")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(1)
    pipeline = kinema.load(arguments.model)
    trained = trained_world(pipeline.manifest)
    size = {"frames": arguments.frames, "height": arguments.height, "width": arguments.width}
    plan = pipeline.plan(Request("any", **size))
    clip_format = ClipFormat(plan.height, plan.width, plan.frames, plan.fps)
    world = world_of(trained, "held_out")
    others = {str(folder): load_vae(folder) for folder in arguments.vae}
    vaes: dict[str, VAE] = {pipeline.manifest.name: pipeline.vae} | others

    references = reference_clips(world, clip_format, arguments.clips)
    table = Table(trained.slots["noun"], arguments.read)
    table.add("renderer", (reference.frames for reference in references), references)
    for name, vae in vaes.items():
        table.add(f"round trip, {name}", (vae_round_trip(vae, one.frames) for one in references), references)

    if arguments.generated:
        samples = draw_samples(trained, "held_out", arguments.generated, clip_format)
        latents = sampled(pipeline, samples, size)
        asked = reference_clips(world, clip_format, arguments.generated)
        for name, vae in vaes.items():
            pipeline.vae = vae
            clips = (pipeline.decode(one, plan).frames for one in latents)
            table.add(f"samples, {name}", clips, asked, are_copies=False)
    if arguments.sheet:
        save_sheet(arguments.sheet, table.columns)


if __name__ == "__main__":
    main()
