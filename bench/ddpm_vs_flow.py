"""DDPM and rectified flow on one small model: same network, data, batches, optimizer and time; 64 px, 8 nouns.

    python bench/ddpm_vs_flow.py [--minutes 15] [--vae DIR --clip DIR] [--out runs/compare]

Each draws its training times as its authors do: DDPM evenly (Ho et al. 2020), flow by the logit-normal law, shifted (Esser et al. 2024).
Prints a table in Markdown. `x0 error` is the mean squared error of the clean latents that the network makes of held-out clips, at equal
log(alpha / sigma), so the two losses, which cannot be compared, are not. The other columns are the share of 96 prompts whose slot the
oracle reads in the generated clip as asked, and all at once. The renderer's own clips after the VAE are the ceiling.
"""

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from kinema.data.render import draw_clips, to_tensor
from kinema.data.steps import torch_rng
from kinema.diffusion.objective import add_noise, to_x0
from kinema.diffusion.schedule import Schedule, log_snr
from kinema.evaluate.eye import judge, load_oracle, scored_slots, through
from kinema.generate.loading import load
from kinema.generate.pipeline import Pipeline
from kinema.generate.request import Request
from kinema.models.dit import apply_to_grid
from kinema.models.known import encode_known
from kinema.models.oracle import Oracle
from kinema.train import load_part, train
from kinema.train.dit import DiTPart
from kinema.train.part import to_device

RECIPE = Path(__file__).parents[1] / "recipes" / "dit.toml"
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
        "data.num_images=4000",
        "data.shapes=[{height=64, width=64}]",
        "model={d=192, num_layers=6, num_heads=3, ffn_dim=768, patch=[1, 1, 1]}",
        f"run.sample_every={10**9}",
        f"run.save_every={10**9}",
    ]
    part = load_part(RECIPE, steps=steps, assignments=settings)
    assert isinstance(part, DiTPart), "recipes/dit.toml trains a DiT"
    return part


def seconds_per_step(part: DiTPart, device: torch.device) -> float:
    """Mean over the stages, weighted by their share of the run, of the time of a step without the optimizer's."""
    total, begun = 0.0, 0.0
    for stage in part.recipe.stages:
        step = int(begun * part.recipe.run.steps)
        batch = to_device(part.batch(step), device)
        times = []
        for repeat in range(3):
            started = time.perf_counter()
            part.loss(part.model, batch, torch_rng("warm", repeat))[0].backward()
            times.append(time.perf_counter() - started)
        total += (stage.until - begun) * min(times)
        begun = stage.until
    return total


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
        errors.append((to_x0(part.recipe.diffusion.prediction, output, xt, t, pipeline.schedule) - x0).square().mean().item())
    return sum(errors) / len(errors)


@torch.no_grad()
def followed(pipeline: Pipeline, part: DiTPart, oracle: Oracle, *, shift: float | None, num_clips: int = 96) -> dict[str, float]:
    """Share of prompts whose slot the oracle reads as asked, in clips sampled with `shift`; with none, in the renderer's after the VAE."""
    slots = scored_slots(part.recipe.stage)
    right: dict[str, list[bool]] = {}
    for i in range(num_clips):
        clip = draw_clips(part.world, "compare-prompts", [i], height=64, width=64, num_frames=17)[0]
        if shift is None:
            frames = through(pipeline.vae, clip.frames)
        else:
            request = Request(clip.captions["medium"], width=64, height=64, frames=17, seed=i, sampler="ddim", steps=25, shift=shift)
            frames = pipeline.run(request).video.frames
        (reading,) = oracle.read([frames], part.recipe.data.fps)
        verdict = judge(reading, clip.truth, slots)
        for slot, is_right in {**verdict, "all": all(verdict.values())}.items():
            right.setdefault(slot, []).append(is_right)
    return {slot: sum(answers) / len(answers) for slot, answers in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="training time of each")
    parser.add_argument("--steps", type=int, help="in place of the minutes, on a machine that does other work too")
    parser.add_argument("--vae", default="shipped")
    parser.add_argument("--clip", default="shipped")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=COMPARED)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    device = torch.device("cpu")
    first = part_of(arguments.objectives[0], arguments, 100)
    first.prepare(arguments.out / "probe", device)
    steps = arguments.steps or max(20, round(arguments.minutes * 60 / (1.25 * seconds_per_step(first, device))))
    print(f"| objective | steps | minutes | x0 error | shift | {' | '.join(SLOTS)} |\n|---|---|---|---|---|{'---|' * len(SLOTS)}")
    oracle, pipeline = load_oracle(), None
    for name in arguments.objectives:
        part = part_of(name, arguments, steps)
        out = arguments.out / name.replace(", ", "-")
        started = time.perf_counter()
        train(part, out)
        minutes = (time.perf_counter() - started) / 60
        pipeline = load(out / "export")
        error = x0_error(pipeline, part)
        for shift in SHIFTS:
            scores = followed(pipeline, part, oracle, shift=shift)
            row = " | ".join(f"{scores[slot]:.0%}" for slot in SLOTS)
            print(f"| {name} | {steps} | {minutes:.1f} | {error:.3f} | {shift:g} | {row} |", flush=True)
    assert pipeline is not None, "at least one objective is compared"
    scores = followed(pipeline, first, oracle, shift=None)
    row = " | ".join(f"{scores[slot]:.0%}" for slot in SLOTS)
    print(f"| the renderer, after the VAE | | | | | {row} |")


if __name__ == "__main__":
    main()
