"""Trains the DiT on cached latents of a world: first images, then clips. Batches mix the canvas tasks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from kinema.checkpoints.components import load_clip, load_dit, load_vae
from kinema.checkpoints.families.base import LoadedModel
from kinema.checkpoints.folders import resolve_model, save_model
from kinema.checkpoints.manifest import MANIFEST, Manifest, load_card, load_manifest
from kinema.data.latents import LatentCache, LatentData, Latents, choose_by_share
from kinema.data.packing import PackConfig
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.world_clips import CaptionMix, draw_clips
from kinema.device import uses_bf16
from kinema.diffusion.objectives import Prediction, TimestepSampling, add_noise, draw_times, target
from kinema.diffusion.samplers import SAMPLERS
from kinema.diffusion.schedules import SCHEDULES
from kinema.errors import ConfigError, TrainingError
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.sampling.denoiser import Denoiser
from kinema.models.clip import CLIP
from kinema.models.conditioning import TextStates
from kinema.models.dit import DiT, DiTConfig, apply_to_grid
from kinema.models.vae import VAE
from kinema.registry import lookup
from kinema.shapes import Bool, Float
from kinema.training.canvas_mix import CANVAS_TASKS, CanvasMix
from kinema.training.task import BenchmarkBatch, Recipe, check_periods
from kinema.video import contact_sheet, save_image
from kinema.worlds import WorldConfig, make_world

log = logging.getLogger(__name__)

NUM_SAMPLES = 8
"""Clips in the sample picture of a run."""


@dataclass(frozen=True)
class DiTSizes:
    """The sizes of `DiTConfig` that a recipe sets. The VAE and the CLIP determine channels and text width."""

    d: int = 256
    num_layers: int = 8
    num_heads: int = 4
    ffn_dim: int = 1024
    patch: tuple[int, int, int] = (1, 2, 2)


@dataclass(frozen=True)
class Period:
    """A period of the run, up to the share `until` of all steps: `batch` clips of `latent_frames` latents a
    step.

    With `latent_frames` 1 the period trains on images. Raises `ConfigError` for values out of range.
    """

    until: float
    batch: int
    latent_frames: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1 or self.batch < 1 or self.latent_frames < 1:
            raise ConfigError(
                f"period until={self.until}, batch={self.batch}, latent_frames={self.latent_frames}: "
                "until must be above 0 and at most 1, the others at least 1"
            )


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule, the prediction target, and the distribution of the training timesteps."""

    schedule: str = "linear"
    prediction: Prediction = "velocity"
    timestep_sampling: TimestepSampling = "logit_normal"
    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        lookup(SCHEDULES, self.schedule, kind="noise schedule")


@dataclass(frozen=True)
class SamplingDefaults:
    """Sampling settings of the exported model for requests without their own."""

    sampler: str = "unipc"
    steps: int = 20
    guidance: float = 4.0
    shift: float = 1.0


@dataclass(frozen=True)
class DiTRecipe(Recipe):
    """All settings of a DiT run. `vae` and `clip` are "shipped" or the export folder of such a run."""

    task: str = "dit"
    name: str = "kinema-nano"
    notes: str = ""
    """Abilities and limits of the model, for its users. They go into its card."""
    vae: str = "shipped"
    clip: str = "shipped"
    world: WorldConfig = field(default_factory=WorldConfig)
    model: DiTSizes = field(default_factory=DiTSizes)
    data: LatentData = field(default_factory=LatentData)
    captions: CaptionMix = field(default_factory=CaptionMix)
    dataset: str | None = None
    """A data set to train on instead of clips of the world. See `kinema.training.tasks.dit_on_dataset`."""
    pack: PackConfig = field(default_factory=PackConfig)
    periods: tuple[Period, ...] = (Period(0.15, 96, 1), Period(1.0, 32, 5))
    mix: CanvasMix = field(default_factory=CanvasMix)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)

    def __post_init__(self) -> None:
        check_periods([period.until for period in self.periods])


class Canvases(NamedTuple):
    """What a batch of clips shows the network: the known latents, the content of the known ones and each
    latent's time."""

    known: Bool[Tensor, "b 1 lf lh lw"]
    clean: Float[Tensor, "b z lf lh lw"]
    times: Float[Tensor, "b 1 lf lh lw"]
    tasks: list[str]


class DiTTask:
    """Trains a DiT on latents of a world's clips. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` or `ModelError` for a model that could not be exported.
    """

    def __init__(self, recipe: DiTRecipe):
        self.recipe = recipe
        lookup(SAMPLERS, recipe.defaults.sampler, kind="sampler")
        self._load()

    def _load(self) -> None:
        """Load the frozen networks and make the one that is trained."""
        recipe = self.recipe
        self.world = make_world(recipe.world)
        self.vae: VAE = load_vae(resolve_model(recipe.vae)).eval().requires_grad_(False)
        self.clip: CLIP = load_clip(resolve_model(recipe.clip)).eval().requires_grad_(False)
        self.cards = {
            "vae": _card(resolve_model(recipe.vae), "vae"),
            "clip": _card(resolve_model(recipe.clip), "clip"),
        }
        if recipe.dataset is None:
            self.clip.tokenizer = self.clip.tokenizer.limited(self.world.words)

        self.schedule = lookup(SCHEDULES, recipe.diffusion.schedule, kind="noise schedule")()
        longest = 1 + (recipe.data.num_frames - 1) // self.vae.config.temporal_factor
        if recipe.dataset is None and max(period.latent_frames for period in recipe.periods) > longest:
            raise ConfigError(
                f"a period has more latent frames than clips of {recipe.data.num_frames} frames have "
                f"({longest}): lower its latent_frames or raise data.num_frames"
            )

        sizes = recipe.model
        config = DiTConfig(
            in_channels=self.vae.config.z_dim,
            out_channels=self.vae.config.z_dim,
            d=sizes.d,
            num_layers=sizes.num_layers,
            num_heads=sizes.num_heads,
            ffn_dim=sizes.ffn_dim,
            patch=sizes.patch,
            text_dim=self.clip.config.text_width,
            text_length=self.clip.config.max_length,
        )
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = DiT(config)
        self._manifest({})  # raises for a model that cannot be exported, before the first step
        self.cached: dict[tuple[str, int], Latents] = {}

    def prepare(self, out: Path, device: torch.device) -> None:
        """Encode the missing latents into the folder `cache` next to the run folder, and load all of them."""
        self.vae.precision = "bf16" if uses_bf16(device, self.recipe.run.precision) else "fp32"
        cache = LatentCache(out.parent / "cache", self.vae, self.world, self.recipe.data)
        cache.fill(device, self.recipe.run.num_workers)

        for kind in ("images", "clips"):
            for index in range(len(self.recipe.data.shapes)):
                self.cached[kind, index] = cache.load(kind, index)

        self._check_latents(self.cached["clips", 0].latents.float())
        self.vae.to(device)
        self.clip.to(device)

    def _check_latents(self, values: Tensor) -> None:
        """Raise `TrainingError` for latents that are far from mean 0 and std 1."""
        mean, std = values.mean().item(), values.std().item()
        if abs(mean) > 1 or not 0.4 < std < 2.5:
            raise TrainingError(
                f"the VAE's latents have mean {mean:.2f} and std {std:.2f} instead of 0 and 1: "
                "its latents_mean and latents_std were measured on other data"
            )

    def period_at(self, step: int) -> Period:
        """The period of a step."""
        return next(
            period
            for period in self.recipe.periods
            if step < period.until * self.recipe.run.steps or period is self.recipe.periods[-1]
        )

    def batch(self, step: int) -> Batch:
        """Latents of one shape with captions: {"latents", "tails", "tail_lengths", "captions", "first_frame",
        "step"}."""
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        period = self.period_at(step)
        shape_index = choose_by_share([shape.share for shape in self.recipe.data.shapes], rng.random())
        source = self.cached["images" if period.latent_frames == 1 else "clips", shape_index]
        indices = rng.integers(len(source), size=period.batch)

        latents, first_frame = source.latents[indices].float(), 0
        batch: Batch = {
            "captions": [self.recipe.captions.draw(source.captions[i], rng) for i in indices],
            "step": step,
        }

        total = latents.shape[2]
        if period.latent_frames > 2 and rng.random() < self.recipe.mix.windows:
            latents = latents[:, :, max(1, total - period.latent_frames) :]
            first_frame = int(rng.integers(1, 9))
        else:
            latents = latents[:, :, : period.latent_frames]

        shows_end = first_frame > 0 or period.latent_frames == total
        if source.tails is not None and source.tail_lengths is not None and shows_end:
            batch |= {"tails": source.tails[indices].float(), "tail_lengths": source.tail_lengths[indices]}
        return {"latents": latents, "first_frame": first_frame, **batch}

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean squared error of the prediction over the unknown latents; `text` is that of the text-to-video
        clips."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        config, x0 = self.recipe.diffusion, batch["latents"]
        known, clean, t, tasks = self._draw_canvases(batch, generator, model.config.patch)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        known, clean, t = known.to(x0.device), clean.to(x0.device), t.to(x0.device)

        x = torch.where(known, clean, add_noise(x0, noise, t, self.schedule))
        output = apply_to_grid(model, x, t.masked_fill(known, 0), self._text(batch), batch["first_frame"])

        wanted = target(config.prediction, x0, noise, t, self.schedule)
        errors = reduce((output.float() - wanted).square(), "b c lf lh lw -> b 1 lf lh lw", "mean")
        unknown = (~known).expand_as(errors).float()
        loss = (errors * unknown).sum() / unknown.sum()

        from_text = torch.tensor([task == "text" for task in tasks], device=x0.device)
        per_clip = errors.detach().mean(dim=(1, 2, 3, 4))
        return loss, {"text": per_clip[from_text].mean()} if from_text.any() else {}

    @torch.no_grad()
    def _text(self, batch: Batch) -> TextStates:
        """Text states of the captions of a batch."""
        return self.clip.encode_text(batch["captions"])[0]

    def _draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1]."""
        config = self.recipe.diffusion
        return draw_times(count, generator, sampling=config.timestep_sampling, shift=config.timestep_shift)

    def _draw_canvases(
        self, batch: Batch, generator: torch.Generator, patch: tuple[int, int, int]
    ) -> Canvases:
        """A canvas task for each clip of the batch. `known` is constant within a patch."""
        x0 = batch["latents"].cpu()
        b, _, lf, lh, lw = x0.shape
        clean, known = x0.clone(), torch.zeros(b, 1, lf, lh, lw, dtype=torch.bool)
        times = self._draw_times(b, generator)
        t = rearrange(times, "b -> b 1 1 1 1").expand(b, 1, lf, lh, lw).clone()

        tasks = [self.recipe.mix.draw(generator, is_window=batch["first_frame"] > 0) for _ in range(b)]
        for i, task in enumerate(tasks):
            mask = CANVAS_TASKS[task]((lf // patch[0], -(-lh // patch[1]), -(-lw // patch[2])), generator)
            for axis, size in enumerate(patch):
                mask = mask.repeat_interleave(size, dim=axis)
            known[i, 0] = mask[:lf, :lh, :lw]

            if task == "noise_per_frame":
                t[i, 0] = rearrange(self._draw_times(lf, generator), "lf -> lf 1 1")
            if task in ("ending", "both_ends") and "tails" in batch:
                tail = int(batch["tail_lengths"][i])
                if tail and bool(known[i, 0, -tail:].all()) and not bool(known[i, 0, -tail - 1].all()):
                    clean[i, :, -tail:] = batch["tails"][i, :, -tail:].cpu()
        return Canvases(known, clean, t, tasks)

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of clips generated from captions that training does not use."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        loaded = LoadedModel(self._manifest({}), {"high": model.eval()}, self.vae, self.clip)
        denoiser = Denoiser.of(loaded, precision=self.recipe.run.precision)
        pipeline = Pipeline(denoiser, self.vae, model_hash="training")
        prompts = self._prompts()
        videos = [pipeline.run(Request(prompt, seed=seed)).video for seed, prompt in enumerate(prompts)]
        save_image(path, contact_sheet(videos, prompts, columns=2, frames_per_video=5))
        model.train()

    def _prompts(self) -> list[str]:
        """Captions of the world that training does not use."""
        clips = draw_clips(self.world, "dit-held-out", range(NUM_SAMPLES), height=16, width=16, num_frames=1)
        return [clip.captions["medium"] for clip in clips]

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write a model folder: the averaged DiT with the VAE and the CLIP of the run."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        save_model(
            folder,
            model,
            self.vae,
            self.clip,
            self._manifest({"notes": self.recipe.notes, "dit": training, **self.cards}),
        )

    def _manifest(self, card: dict[str, Any]) -> Manifest:
        """The manifest of the model: trained sizes and lengths, vocabulary, sampling defaults."""
        recipe = self.recipe
        sides = [side for shape in recipe.data.shapes for side in (shape.height, shape.width)]
        factor = self.vae.config.spatial_factor
        first = max(recipe.data.shapes, key=lambda shape: shape.share)
        longest = (
            1 + (max(period.latent_frames for period in recipe.periods) - 1) * self.vae.config.temporal_factor
        )
        return Manifest(
            name=recipe.name,
            licence="Apache-2.0",
            fps=recipe.data.fps,
            sides=(min(sides), max(sides), factor * max(recipe.model.patch[1:])),
            frames=(1, longest),
            default_size=(first.height, first.width),
            default_frames=longest,
            schedule=recipe.diffusion.schedule,
            prediction=recipe.diffusion.prediction,
            sampler=recipe.defaults.sampler,
            steps=recipe.defaults.steps,
            guidance=recipe.defaults.guidance,
            shift=recipe.defaults.shift,
            vocabulary=dict(self.world.vocabulary),
            card=card,
        )

    def init_from(self, folder: Path) -> None:
        """Load the DiT weights of a model folder, or of the model "shipped"."""
        self.model.load_state_dict(load_dit(resolve_model(str(folder))).state_dict())

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """One batch for every period, at the first shape."""
        self.clip.to(next(self.model.parameters()).device)
        shape, factor = self.recipe.data.shapes[0], self.vae.config.spatial_factor
        grid = (shape.height // factor, shape.width // factor)
        captions = [
            clip.captions["medium"]
            for clip in draw_clips(self.world, "plan", range(8), height=16, width=16, num_frames=1)
        ]
        rows = []

        for period in self.recipe.periods:
            latents = torch.randn(
                period.batch, self.vae.config.z_dim, period.latent_frames, *grid, generator=torch_rng("plan")
            )
            batch = {
                "latents": latents,
                "captions": [captions[i % 8] for i in range(period.batch)],
                "first_frame": 0,
                "step": 0,
            }
            pt, ph, pw = self.recipe.model.patch
            tokens = period.batch * (period.latent_frames // pt) * -(-grid[0] // ph) * -(-grid[1] // pw)
            name = f"{period.batch} x {period.latent_frames} latent frames of {shape.height}x{shape.width}"
            rows.append(BenchmarkBatch(name, batch, tokens))
        return rows


def _card(folder: Path, component: str) -> dict[str, Any]:
    """The card of a component ("vae" or "clip"), from the folder of that component alone or of a whole
    model."""
    if not (folder / MANIFEST).is_file():
        return load_card(folder)
    return dict(load_manifest(folder).card.get(component, {}))
