"""DDPM and rectified flow on one small model: same network, data, batches, optimizer and time; 64 px, 8 nouns.

    python bench/ddpm_vs_flow.py [--minutes 15] [--vae DIR --clip DIR] [--out runs/compare]

Each draws its training times as its authors do: DDPM evenly (Ho et al. 2020), flow by the logit-normal law, shifted (Esser et al. 2024).
Prints a table in Markdown. `x0 error` is the mean squared error of the clean latents that the network makes of held-out clips, at equal
log(alpha / sigma), so the two losses, which cannot be compared, are not. The other columns are the share of 96 prompts whose slot the
oracle reads in the generated clip as asked, and all at once. The renderer's own clips after the VAE are the ceiling.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from trial import RECIPE, followed, header, row, seconds_per_step, trained

from kinema.checkpoints.folders import load_oracle
from kinema.data.seeds import torch_rng
from kinema.data.world_clips import draw_clips, to_tensor
from kinema.diffusion.objectives import add_noise, to_x0
from kinema.diffusion.schedules import Schedule, log_snr
from kinema.evaluation.trust import scored_slots, through
from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.dit import apply_to_grid
from kinema.models.known import encode_known
from kinema.training import load_part
from kinema.training.tasks.dit import DiTPart
from kinema.worlds import Clip

OBJECTIVES = {
    "flow, velocity": ("linear", "velocity", "logit_normal", 1.0),
    "flow, velocity, shift 2.5": ("linear", "velocity", "logit_normal", 2.5),
    "DDPM, noise": ("ddpm", "noise", "uniform", 1.0),
    "DDPM, v": ("ddpm", "v", "uniform", 1.0),
}
"""Name: noise schedule, what is predicted, the law of training times and its shift."""
COMPARED = ["flow, velocity, shift 2.5", "DDPM, noise", "flow, velocity"]
LEVELS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SHIFTS = (1.0, 2.5)
"""Of the sampling times: what suits a schedule is not known beforehand."""
SLOTS = ("sky", "ground", "noun", "verb", "direction", "size", "all")
NUM_PROMPTS = 96


def part_of(name: str, arguments: argparse.Namespace, steps: int) -> DiTPart:
    """The recipe's part with this objective, for `steps` steps."""
    schedule, prediction, time_law, time_shift = OBJECTIVES[name]
    settings = [
        "stage.nouns=8",
        f"vae={arguments.vae}",
        f"clip={arguments.clip}",
        f"diffusion.schedule={schedule}",
        f"diffusion.prediction={prediction}",
        f"diffusion.time_law={time_law}",
        f"diffusion.time_shift={time_shift}",
        "data.num_clips=2000",
        "data.num_frames=17",
        "mix.windows=0.1",
        "data.num_images=4000",
        "data.shapes=[{height=64, width=64}]",
        "model={d=192, num_layers=6, num_heads=3, ffn_dim=768, patch=[1, 1, 1]}",
        f"run.sample_every={10**9}",
        f"run.save_every={10**9}",
    ]
    part = load_part(RECIPE, steps=steps, assignments=settings)
    assert isinstance(part, DiTPart), "recipes/dit.toml trains a DiT"
    return part


def time_at(level: float, schedule: Schedule) -> Tensor:
    """The time at which log(alpha / sigma) is `level`, by bisection."""
    low, high = 1e-4, 1 - 1e-4
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if log_snr(torch.tensor(middle), schedule) > level else (low, middle)
    return torch.tensor(low)


@torch.no_grad()
def x0_error(pipeline: Pipeline, part: DiTPart, num_clips: int = 64) -> float:
    """Mean squared error of x0 on held-out clips over `LEVELS`."""
    clips = draw_clips(part.world, "compare-held-out", range(num_clips), height=64, width=64, num_frames=17)
    x0 = encode_known(pipeline.vae, to_tensor(clips), starts_canvas=True)
    text, _ = pipeline.clip.encode_text([clip.captions["medium"] for clip in clips])
    noise = torch.randn(x0.shape, generator=torch_rng("compare-noise"))
    errors = []
    for level in LEVELS:
        t = time_at(level, pipeline.schedule)
        xt = add_noise(x0, noise, t, pipeline.schedule)
        output = apply_to_grid(pipeline.dit, xt, t.expand(num_clips), text)
        errors.append(
            (to_x0(part.recipe.diffusion.prediction, output, xt, t, pipeline.schedule) - x0)
            .square()
            .mean()
            .item()
        )
    return sum(errors) / len(errors)


def shares(scores: dict[str, float]) -> list[str]:
    """The cells of `SLOTS`."""
    return [f"{scores[slot]:.0%}" for slot in SLOTS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="processor minutes of each training")
    parser.add_argument(
        "--steps", type=int, help="in place of the minutes, on a machine that does other work too"
    )
    parser.add_argument("--vae", default="shipped")
    parser.add_argument("--clip", default="shipped")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=COMPARED)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    device = torch.device("cpu")
    first = part_of(arguments.objectives[0], arguments, 100)
    first.prepare(arguments.out / "probe", device)
    steps = arguments.steps or max(20, round(arguments.minutes * 60 / seconds_per_step(first)))
    print(header("objective", "steps", "minutes", "x0 error", "shift", *SLOTS))
    oracle, slots, fps = load_oracle(), scored_slots(first.recipe.stage), first.recipe.data.fps
    clips = draw_clips(first.world, "compare-prompts", range(NUM_PROMPTS), height=64, width=64, num_frames=17)
    pipeline = None
    for name in arguments.objectives:
        part = part_of(name, arguments, steps)
        out = arguments.out / name.replace(", ", "-")
        minutes = trained(part, out)
        pipeline = load(out / "export")
        error = x0_error(pipeline, part)
        for shift in SHIFTS:

            def sampled(
                index: int, clip: Clip, model: Pipeline = pipeline, shift: float = shift
            ) -> np.ndarray:
                request = Request(clip.captions["medium"], seed=index, sampler="ddim", steps=25, shift=shift)
                return model.run(request).video.frames

            scores = followed(clips, sampled, oracle, slots, fps)
            print(
                row(name, steps, f"{minutes:.1f}", f"{error:.3f}", f"{shift:g}", *shares(scores)), flush=True
            )
    assert pipeline is not None, "at least one objective is compared"
    vae = pipeline.vae
    scores = followed(clips, lambda index, clip: through(vae, clip.frames), oracle, slots, fps)
    print(row("the renderer, after the VAE", "", "", "", "", *shares(scores)))


if __name__ == "__main__":
    main()
