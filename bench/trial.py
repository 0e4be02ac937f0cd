"""What the benches that train small DiTs share: latents of their own, the steps that a budget buys, and what held-out clips say."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kinema.checkpoints.folders import load_clip, load_dit, load_manifest, resolve_model
from kinema.data.latents import Latents
from kinema.data.seeds import torch_rng
from kinema.data.world_clips import to_tensor
from kinema.diffusion.objectives import Prediction, add_noise, target
from kinema.diffusion.schedules import SCHEDULES, Schedule
from kinema.evaluation.trust import judge
from kinema.models.clip import CLIP
from kinema.models.dit import DiT, apply_to_grid
from kinema.models.known import encode_known
from kinema.models.oracle import Oracle
from kinema.models.vae import VAE
from kinema.training import load_part, train
from kinema.training.optimizer import build_optimizers
from kinema.training.tasks.dit import DiTPart, DiTRecipe
from kinema.worlds import Clip, StageWorld

RECIPE = Path(__file__).parents[1] / "recipes" / "dit.toml"
TIMES = torch.tensor([0.95, 0.85, 0.7])
"""Where the scene and the motion are decided."""
TRIES = 40
"""Foils drawn of a clip: enough that every slot that it has is among them."""


class LatentsPart(DiTPart):
    """The DiT part on latents and captions that a bench has made, by kind ("images", "clips") and number of the recipe's shape."""

    def __init__(self, recipe: DiTRecipe, latents: Mapping[tuple[str, int], Latents]) -> None:
        super().__init__(recipe)
        self.cached = dict(latents)

    def prepare(self, out: Path, device: torch.device) -> None:
        """Check the latents, which are made already."""
        self._check_latents(self.cached["clips", 0].latents.float())

    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Nothing: a picture would count as training, and a pipeline does not take every patch."""


def part_of(settings: Sequence[str], latents: Mapping[tuple[str, int], Latents], steps: int) -> LatentsPart:
    """The part of recipes/dit.toml with `settings`, for `steps` steps from text alone, on the CPU, saved at the end alone."""
    fixed = ["mix={tasks={text=1.0}, windows=0.0}", f"run.save_every={10**9}", "run.device=cpu"]
    recipe = load_part(RECIPE, steps=steps, assignments=[*fixed, *settings]).recipe
    assert isinstance(recipe, DiTRecipe), "recipes/dit.toml trains a DiT"
    return LatentsPart(recipe, latents)


def seconds_per_step(part: DiTPart, probes: int = 7) -> float:
    """Mean processor seconds of a step, of `probes` spread over the run; they are taken on a copy of the model."""
    model = copy.deepcopy(part.model)
    optimizers = build_optimizers(model, part.recipe.optimizer)
    steps = [round((i + 0.5) / probes * (part.recipe.run.steps - 1)) for i in range(probes)]
    seconds = 0.0
    for number, step in enumerate([steps[-1], *steps]):  # the first warms up
        begun = time.process_time()
        part.loss(model, part.batch(step), torch_rng("probe", number))[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds += (time.process_time() - begun) * (number > 0)
    return seconds / probes


def trained(part: DiTPart, out: Path) -> float:
    """The processor minutes in which the loop makes `out`/export of a part."""
    begun = time.process_time()
    train(part, out)
    return (time.process_time() - begun) / 60


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A DiT and what is needed to ask it."""

    dit: DiT
    clip: CLIP
    schedule: Schedule
    prediction: Prediction

    @classmethod
    def load(cls, model: str | Path) -> "Denoiser":
        """That of a model folder, whatever its patches are, which a pipeline is not for."""
        folder = resolve_model(str(model))
        manifest = load_manifest(folder)
        return cls(
            load_dit(folder),
            load_clip(folder),
            SCHEDULES[manifest.schedule](),
            cast(Prediction, manifest.prediction),
        )

    @torch.no_grad()
    def errors(self, x0: Tensor, noise: Tensor, t: Tensor, captions: Sequence[str]) -> Tensor:
        """Mean squared error of the prediction for each clip (b, z, lf, lh, lw) at the time `t`."""
        xt = add_noise(x0, noise, t, self.schedule)
        output = apply_to_grid(self.dit, xt, t.expand(len(x0)), self.clip.encode_prompts(captions))
        return (output - target(self.prediction, x0, noise, t, self.schedule)).square().mean(dim=(1, 2, 3, 4))


@torch.no_grad()
def encoded(vae: VAE, clips: Sequence[Clip]) -> Tensor:
    """Normalised latents of clips of one shape."""
    return torch.cat(
        [encode_known(vae, to_tensor(clips[i : i + 8]), starts_canvas=True) for i in range(0, len(clips), 8)]
    )


def foils(world: StageWorld, clips: Sequence[Clip], slot: str, form: str = "medium") -> dict[int, str]:
    """Captions that are wrong in that slot alone, by number of the clip, for the clips that can have one."""
    found = {}
    for index, clip in enumerate(clips):
        drawn = (world.foil(clip, seed, form) for seed in range(TRIES))
        if (text := next((text for text, wrong in drawn if wrong == slot), None)) is not None:
            found[index] = text
    return found


def followed(
    clips: Sequence[Clip],
    make: Callable[[int, Clip], np.ndarray],
    oracle: Oracle,
    slots: Sequence[str],
    fps: float,
) -> dict[str, float]:
    """Share of clips whose slot, and all of whose slots, the oracle reads as the truth has it in the frames that `make` makes for them."""
    right: dict[str, list[bool]] = {}
    for index, clip in enumerate(clips):
        (reading,) = oracle.read([make(index, clip)], fps)
        verdict = judge(reading, clip.truth, slots)
        for slot, is_right in {**verdict, "all": all(verdict.values())}.items():
            right.setdefault(slot, []).append(is_right)
    return {slot: sum(answers) / len(answers) for slot, answers in right.items()}


def row(*cells: Any) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*names: str) -> str:
    """The first two rows of a table in Markdown."""
    return f"{row(*names)}\n{'|---' * len(names)}|"
