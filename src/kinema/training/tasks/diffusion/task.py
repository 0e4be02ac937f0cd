"""Trains a backbone by diffusion: on latents of a world or of a data set, from new weights, as an adapter or
from a Wan model.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kinema.checkpoints.families.base import LoadedModel
from kinema.checkpoints.manifest import Manifest
from kinema.data.dataset import open_dataset
from kinema.data.seeds import Batch, torch_rng
from kinema.diffusion.samplers import SAMPLERS
from kinema.distributed.ranks import Ranks, Share
from kinema.errors import ConfigError, TrainingError
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.sampling.denoiser import Denoiser
from kinema.models.backbone import Backbone
from kinema.models.conditioning import Conditioning, TextEncoder, TextStates
from kinema.registry import lookup
from kinema.training.captions_check import check_captions
from kinema.training.task import BenchmarkBatch
from kinema.training.tasks.diffusion.loss import LatentGroup, packed_loss
from kinema.training.tasks.diffusion.sources import DatasetLatents, LatentSource, WorldLatents
from kinema.training.tasks.diffusion.starts import Start
from kinema.video import contact_sheet, save_image
from kinema.worlds import make_world

log = logging.getLogger(__name__)

NUM_SAMPLES = 8
"""Clips in the sample picture of a run; two for a base model, which takes longer."""
PLANNED_TOKENS = 64
"""Text tokens of a clip in a benchmark without the text encoder."""


class DiffusionTask:
    """Trains a backbone. See `kinema.training.task.TrainingTask`.

    It is composed of a source of latents and of a start, which `start_class` makes. Raises `ConfigError`,
    `DataError` or `ModelError` for a model that could not be trained or exported.
    """

    def __init__(self, recipe: Any, start_class: Callable[[Any, Sequence[str] | None], Start]) -> None:
        lookup(SAMPLERS, recipe.defaults.sampler, kind="sampler")
        world = make_world(recipe.world) if recipe.dataset is None else None
        dataset = open_dataset(recipe.dataset) if recipe.dataset is not None else None

        self.start = start_class(recipe, None if world is None else world.words)
        self.recipe, self.model, self.vae = self.start.recipe, self.start.model, self.start.vae
        self.text: TextEncoder | None = self.start.text
        self.ranks = Ranks.of(self.recipe.parallel)
        if not self.backbone.time_per_token and self.recipe.mix.tasks.get("text") != 1:
            raise ConfigError(
                f"the backbone '{recipe.backbone}' has one time for all tokens: "
                "use mix.tasks = {text = 1.0}"
            )

        patch = self.backbone.patch
        self.source: LatentSource
        if world is not None:
            self.source = WorldLatents(self.recipe, world, self.vae, patch)
        if dataset is not None:
            self.source = DatasetLatents(self.recipe, dataset, self.vae, patch)
            if self.text is not None:
                check_captions(
                    self.source.captions(),
                    self.text,
                    max_unknown=self.recipe.max_unknown,
                    data=str(recipe.dataset),
                    advice="train a CLIP on them (kinema train recipes/clip.toml --data "
                    f"{recipe.dataset} --out runs/clip, then --set clip=runs/clip/export)",
                )
        self.manifest()  # raises for a model that cannot be exported, before the first step

    @property
    def backbone(self) -> Backbone:
        """The trained network by its protocol."""
        return cast(Backbone, self.model)

    def manifest(self) -> Manifest:
        """The manifest of the exported model: that of the base model, or what this run trains."""
        if self.start.manifest is not None:
            return self.start.manifest
        recipe = self.recipe
        return Manifest(
            name=recipe.name,
            schedule=recipe.diffusion.schedule,
            prediction=recipe.diffusion.prediction,
            sampler=recipe.defaults.sampler,
            steps=recipe.defaults.steps,
            guidance=recipe.defaults.guidance,
            shift=recipe.defaults.shift,
            time_per_token=self.backbone.time_per_token,
            **self.source.manifest_fields(),
        )

    def describe_batch(self) -> str:
        """The size of a batch of all ranks."""
        return f"global batch: {self.source.describe_batch()}"

    def prepare(self, out: Path, device: torch.device) -> None:
        """Encode missing latents and captions into the folder `cache` next to the run folder."""
        cache = out.parent / "cache"
        self.source.prepare(cache, device)
        values = self.source.some_latents()
        mean, std = values.mean().item(), values.std().item()
        if abs(mean) > 1 or not 0.4 < std < 2.5:
            raise TrainingError(
                f"the VAE's latents have mean {mean:.2f} and std {std:.2f} instead of 0 and 1: "
                "its latents_mean and latents_std were measured on other data"
            )

        rate, trained = self.source.manifest_fields()["fps"], self.manifest().fps
        if rate != trained:
            log.warning("the clips have %g fps, and the model was trained with %g", rate, trained)
        self.vae.to(device)
        captions = chain(self.source.captions(), self.source.prompts(NUM_SAMPLES))
        self.text = self.start.prepare_text(cache, device, captions)

    def batch(self, step: int) -> Batch:
        """Latents with captions; see `LatentSource`."""
        return self.source.batch(step)

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The error of the prediction over the unknown latents; see `packed_loss`."""
        share = self._share(batch["groups"])
        captions = [batch["captions"][i] for i in share.clips]
        return packed_loss(
            cast(Backbone, model),
            batch["groups"],
            Conditioning(batch["states"] if "states" in batch else self._states(captions)),
            self.recipe.diffusion,
            self.recipe.mix,
            self.start.draw_times,
            generator,
            share,
        )

    def _share(self, groups: Sequence[LatentGroup]) -> Share:
        """The clips of a batch that this rank predicts."""
        patch = prod(self.backbone.patch)
        sizes = [prod(group.latents.shape[2:]) // patch for group in groups for _ in group.latents]
        return self.ranks.share(sizes)

    @torch.no_grad()
    def _states(self, captions: list[str]) -> TextStates:
        """Text states of the captions of a batch."""
        assert self.text is not None, "prepare() made the text encoder"
        return self.text.encode_prompts(captions)

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of clips generated from captions. Raises `TrainingError` for a start that
        cannot sample.
        """
        assert self.text is not None, "prepare() made the text encoder"
        rules = self.start.sampling_rules()
        loaded = LoadedModel(
            self.manifest(), {"high": cast(Backbone, model.eval())}, self.vae, self.text, rules
        )
        denoiser = Denoiser.of(loaded, precision=self.recipe.run.precision)
        pipeline = Pipeline(denoiser, self.vae, model_hash="training")

        fields, count = {}, NUM_SAMPLES
        if self.start.manifest is not None:
            trained, count = self.source.manifest_fields(), 2
            height, width = trained["default_size"]
            fields = {"height": height, "width": width, "frames": trained["default_frames"]}
            fields |= {"steps": self.recipe.defaults.steps, "beyond_trained": True}
        prompts = self.source.prompts(count)
        requests = [Request(prompt, seed=seed, **fields) for seed, prompt in enumerate(prompts)]
        videos = [pipeline.run(request).video for request in requests]
        save_image(path, contact_sheet(videos, prompts, columns=2, frames_per_video=5))
        model.train()

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the averaged model or adapter in its release form."""
        self.start.export(model, folder, self.manifest(), training)

    def init_from(self, folder: Path) -> None:
        """Load the weights, and only the weights, of an exported folder."""
        self.start.init_from(folder)

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """One batch of random latents for every kind of step."""
        rows = self.source.benchmark_batches()
        if isinstance(self.text, nn.Module):
            self.text.to(next(self.model.parameters()).device)
            return rows

        for row in rows:
            lengths = (PLANNED_TOKENS,) * len(row.batch["captions"])
            states = torch.randn(sum(lengths), self.backbone.text_width, generator=torch_rng("plan"))
            row.batch["states"] = TextStates(states, lengths)
        return rows
