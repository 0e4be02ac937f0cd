"""Trains the expander on pairs of a world's prompts: a short one, and one with every detail. Only truths are
drawn, no clips.
"""

import dataclasses
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, save_component
from kinema.data.seeds import Batch, derive_seed, numpy_rng
from kinema.errors import ConfigError
from kinema.models.expander import PROMPT_KINDS, SPECIAL, UNKNOWN, Expander, ExpanderConfig
from kinema.prompts.segment import pieces
from kinema.training.task import BenchmarkBatch, Recipe
from kinema.worlds import HasPromptPairs, WorldConfig, make_world


@dataclass(frozen=True)
class ExpanderData:
    """Pairs of captions from `truths` truths of the world, with a new wording each time.

    Raises `ConfigError` for values out of range.
    """

    batch: int = 64
    truths: int = 2000
    num_frames: int = 17
    fps: float = 8.0
    chinese: float = 0.3
    image: float = 0.2
    edit: float = 0.15
    """Shares of prompts with a first picture, and of prompts that edit a clip. The rest is text alone."""
    unknown: float = 0.3
    """Share of prompts in which some words become unknown, and of prompts with random words inserted."""
    held_out: int = 200

    def __post_init__(self) -> None:
        if min(self.batch, self.truths, self.num_frames, self.held_out) < 1 or self.fps <= 0:
            raise ConfigError("batch, truths, num_frames, held_out and fps must be positive")
        shares = (self.chinese, self.image, self.edit, self.unknown)
        if not all(0 <= share <= 1 for share in shares) or self.image + self.edit > 1:
            raise ConfigError(
                f"chinese, image, edit, unknown = {shares} must be shares from 0 to 1, "
                "and image + edit at most 1"
            )


@dataclass(frozen=True)
class ExpanderRecipe(Recipe):
    """All settings of an expander run. The model has the vocabulary of the world."""

    task: str = "expander"
    world: WorldConfig = field(default_factory=WorldConfig)
    model: ExpanderConfig = field(default_factory=ExpanderConfig)
    data: ExpanderData = field(default_factory=ExpanderData)


class ExpanderTask:
    """Trains an expander. See `kinema.training.task.TrainingTask`."""

    def __init__(self, recipe: ExpanderRecipe):
        self.recipe = recipe
        world = make_world(recipe.world)
        if not isinstance(world, HasPromptPairs):
            raise ConfigError(f"the world '{world.name}' has no pairs of prompts, which an expander needs")
        self.world: HasPromptPairs = world
        # `an` is `a` before a vowel, which is spelling: see `kinema.models.expander.join_tokens`.
        words = tuple(sorted({piece for word in self.world.words for piece in pieces(word)} - {"an"}))
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = Expander(dataclasses.replace(recipe.model, words=words))
        self.truths: list[Mapping[str, Any]] = []

    def prepare(self, out: Path, device: torch.device) -> None:
        """Draw the truths, which takes some milliseconds each."""
        self.truths = self._draw("expander", self.recipe.data.truths)

    def _draw(self, split: str, count: int) -> list[Mapping[str, Any]]:
        """The first `count` truths of a split."""
        data = self.recipe.data
        return [
            self.world.truth(derive_seed(split, i), num_frames=data.num_frames, fps=data.fps)
            for i in range(count)
        ]

    def batch(self, step: int) -> Batch:
        """{"sources", "steps"}: token ids of prompts, and the steps that write their targets."""
        if not self.truths:
            self.prepare(Path(), torch.device("meta"))
        data, seeds = (
            self.recipe.data,
            numpy_rng(self.recipe.run.seed, "batch", step).integers(2**40, size=self.recipe.data.batch),
        )
        batch: Batch = {"sources": [], "steps": []}
        for seed in seeds.tolist():
            rng = random.Random(seed)
            kind = rng.choices(PROMPT_KINDS, [1 - data.image - data.edit, data.image, data.edit])[0]
            language = "zh" if rng.random() < data.chinese else "en"
            prompt, target = self.world.prompt_pair(rng.choice(self.truths), kind, language, rng)
            readings, steps = align(self.model, prompt, target)
            if rng.random() < data.unknown:
                readings = [
                    self.model.ids[UNKNOWN] if rng.random() < 0.2 else reading for reading in readings
                ]
            if rng.random() < data.unknown:
                readings, steps = self._disturbed(readings, steps, rng)
            batch["sources"].append(self.model.source(kind, readings))
            batch["steps"].append(steps)
        return batch

    def _disturbed(
        self, readings: list[int], steps: list[int], rng: random.Random
    ) -> tuple[list[int], list[int]]:
        """The same with one to three random words inserted, which the target copies."""
        readings, steps = list(readings), list(steps)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(readings) + 1)
            word = (
                self.model.ids[UNKNOWN]
                if rng.random() < 0.7
                else rng.randrange(len(SPECIAL), len(self.model.tokens))
            )
            copies = [index for index, step in enumerate(steps) if step == 0]
            steps.insert(copies[at], 0)
            readings.insert(at, word)
        return readings, steps

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Cross-entropy of the next step, and its accuracy."""
        assert isinstance(model, Expander), "the expander task trains an expander"
        logits, is_step = model(batch["sources"], batch["steps"])
        wanted = torch.tensor([step for steps in batch["steps"] for step in steps], device=logits.device)
        found = logits[is_step]
        return F.cross_entropy(found, wanted), {
            "right": (found.argmax(dim=1) == wanted).float().mean().detach()
        }

    def _held_out_prompts(self, count: int) -> list[tuple[str, str]]:
        """Prompts, with their languages, of truths that training does not use: half with a verb."""
        prompts = []
        for index, truth in enumerate(self._draw("expander-held-out", count)):
            language, rng = "zh" if index % 3 == 2 else "en", random.Random(index)
            prompt = self.world.subject_prompt(truth, language, rng, with_verb=index % 2 == 1)
            prompts.append((prompt, language))
        return prompts

    @torch.no_grad()
    def measure(self, model: Expander) -> dict[str, float]:
        """Share of expansions that are complete (see `HasPromptPairs`), for held-out prompts."""
        prompts = self._held_out_prompts(self.recipe.data.held_out)
        complete = [
            self.world.is_complete(model.expand(prompt, seed=index), language)
            for index, (prompt, language) in enumerate(prompts)
        ]
        return {"complete": sum(complete) / len(complete)}

    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write held-out prompts and their expansions to a .txt file next to `path`."""
        assert isinstance(model, Expander), "the expander task trains an expander"
        lines = []
        for index, (prompt, _) in enumerate(self._held_out_prompts(12)):
            expansions = (f"  {kind}: {model.expand(prompt, kind=kind, seed=index)}" for kind in PROMPT_KINDS)
            lines += [prompt, *expansions]
        path.with_suffix(".txt").write_text(
            "\n".join([*lines, json.dumps(self.measure(model))]) + "\n", encoding="utf-8"
        )

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the expander in bfloat16, with its score."""
        assert isinstance(model, Expander), "the expander task trains an expander"
        save_component(
            folder, model, card={**training, "held_out": self.measure(model)}, dtype=torch.bfloat16
        )

    def init_from(self, folder: Path) -> None:
        """Load the weights of a released expander with the same vocabulary."""
        self.model.load_state_dict(load_component(folder, Expander).state_dict())

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """A batch of prompts."""
        batch = self.batch(0)
        num_steps = sum(map(len, batch["steps"]))
        return [BenchmarkBatch(f"{len(batch['sources'])} prompts", batch, num_steps)]


def align(model: Expander, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """The token ids of `prompt`, and the steps that turn it into `target`.

    Step 0 copies the next token; the last one copies the end.
    """
    readings = [token.reading for token in model.read(prompt)]
    steps, num_copied = [], 0
    for token in model.read(target.rstrip(".")):
        if num_copied < len(readings) and token.reading == readings[num_copied]:
            steps.append(0)
            num_copied += 1
        else:
            steps.append(token.reading)
    assert num_copied == len(readings), f"'{prompt}' is not inside '{target}'"
    assert model.ids[UNKNOWN] not in steps, f"'{target}' has words that the expander does not know"
    return readings, [*steps, 0]
