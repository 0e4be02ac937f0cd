"""A ladder of models: sizes by one rule, the steps that a budget pays for, and the runs on fresh clips."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.world_clips import draw_clips, to_tensor
from kinema.device import pick_device
from kinema.diffusion.objectives import add_noise, target
from kinema.errors import ConfigError
from kinema.files import atomic_file
from kinema.generation.cost.counting import backbone_flops
from kinema.models.backbone import Backbone, without_weights
from kinema.models.conditioning import Conditioning
from kinema.models.dit import DiTConfig
from kinema.models.vae_conditioning import encode_conditioning
from kinema.shapes import Float
from kinema.training.task import BenchmarkBatch
from kinema.training.tasks.diffusion.loss import LatentGroup
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe, Period
from kinema.training.tasks.diffusion.sources import WorldLatents
from kinema.training.tasks.diffusion.starts import NewModel
from kinema.training.tasks.diffusion.task import DiffusionTask

WEIGHTS = "weights.safetensors"
BINS = (0.0, 0.3, 0.7, 1.0)
"""Limits of the diffusion times for which the held-out loss is also stated apart."""


@dataclass(frozen=True)
class Ladder:
    """The runs of a sweep. Budgets are in FLOPs of training, three forward passes per clip.

    A model has one block per `width_per_layer` channels. A run draws each of `clips` clips at most once, and
    budgets for less than `min_steps` steps of `batch` clips are left out. Raises `ConfigError`.
    """

    widths: tuple[int, ...] = (48, 64, 96, 128)
    width_per_layer: int = 16
    head_dim: int = 16
    budgets: tuple[float, ...] = (1e11, 3e11, 1e12, 3e12)
    batch: int = 32
    clips: int = 20_000
    min_steps: int = 40
    cooldown: float = 0.2
    """Share of a run in which the learning rate falls to zero."""
    lr_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Learning rates that are tried at the two smallest sizes, as multiples of the recipe's."""
    seeds: int = 2
    """Seeds at the smallest size."""
    held_out: int = 256
    """Clips of the held-out loss."""

    def __post_init__(self) -> None:
        rising = all(list(each) == sorted(set(each)) for each in (self.widths, self.budgets))
        if not (rising and self.widths and self.budgets and self.lr_factors):
            raise ConfigError("widths and budgets must rise, and lr_factors must not be empty")
        if not 0 < self.cooldown < 1:
            raise ConfigError(f"cooldown = {self.cooldown} is a share of a run: use more than 0, less than 1")
        if min(self.widths[0], self.width_per_layer, self.batch, self.min_steps, self.seeds) < 1:
            raise ConfigError("widths, width_per_layer, batch, min_steps and seeds must be at least 1")
        if self.held_out < 8:
            raise ConfigError(f"held_out = {self.held_out} clips are too few for a loss: use 8 or more")

    def sizes(self, width: int) -> dict[str, int]:
        """The sizes of the model of a width, for the [model] table of a recipe. Raises `ConfigError`."""
        if width % self.head_dim:
            raise ConfigError(f"width {width} is no multiple of head_dim = {self.head_dim}")
        layers, heads = max(2, round(width / self.width_per_layer)), width // self.head_dim
        return {"d": width, "num_layers": layers, "num_heads": heads, "ffn_dim": 4 * width}


@dataclass(frozen=True)
class Rung:
    """A model of the ladder."""

    width: int
    parameters: int
    flops_per_clip: float
    """Three forward passes."""
    tokens_per_clip: int

    def steps(self, flops: float, ladder: Ladder) -> int:
        """Steps that a budget pays for; 0 for too few steps or too many clips."""
        steps = int(flops / (self.flops_per_clip * ladder.batch))
        return steps if ladder.min_steps <= steps <= ladder.clips // ladder.batch else 0


class LadderData:
    """What the runs of a ladder share: encoded clips, text encoder and held-out clips.

    Raises `ConfigError` for a recipe that is not of a DiT on clips of a world, and for a model narrower than
    twice the channels of a token, which cannot emit the noise at any scale.
    """

    def __init__(self, recipe: DiffusionRecipe, ladder: Ladder, out: Path) -> None:
        if recipe.task != "dit" or recipe.backbone != "dit" or recipe.dataset is not None:
            raise ConfigError(
                "a ladder needs a recipe with task = 'dit' on clips of a world, without dataset"
            )
        shape, frames = replace(recipe.data.shapes[0], share=1.0), recipe.periods[-1].latent_frames
        data = replace(recipe.data, num_clips=ladder.clips, num_images=1, shapes=(shape,))
        self.recipe = replace(
            recipe,
            data=data,
            periods=(Period(1.0, ladder.batch, frames),),
            mix=replace(recipe.mix, tasks={"text": 1.0}, windows=0.0),
        )
        self.ladder, self.task = ladder, DiffusionTask(self.recipe, NewModel)
        self.device = pick_device(recipe.run.device)
        factor = self.task.vae.config.spatial_factor
        self.grid = (frames, shape.height // factor, shape.width // factor)
        self.config = cast(DiTConfig, self.task.backbone.config)
        out_channels = self.config.token_out
        if ladder.widths[0] < 2 * out_channels:
            raise ConfigError(
                f"a width of {ladder.widths[0]} is below twice the {out_channels} channels of a token: use "
                f"widths from {2 * out_channels} on, or smaller patches (--set model.patch=[1,1,1])"
            )
        self.task.prepare(out / "runs", self.device)
        self.clean, self.captions = self._held_out()

    def rung(self, width: int) -> Rung:
        """The model of a width."""
        config = replace(self.config, **self.ladder.sizes(width))  # type: ignore[arg-type]
        network = cast(Backbone, without_weights(config))
        pt, ph, pw = network.patch
        tokens = self.grid[0] // pt * -(-self.grid[1] // ph) * -(-self.grid[2] // pw)
        parameters = sum(p.numel() for p in cast(nn.Module, network).parameters())
        return Rung(width, parameters, 3 * backbone_flops(config, self.grid), tokens)

    def run(self, rung: Rung, steps: int, lr_factor: float, seed: int, cooldown: float) -> "LadderRun":
        """A run of `steps` steps. Its warm-up has about as many tokens as the model has parameters."""
        per_step = rung.tokens_per_clip * self.ladder.batch
        warmup = min(max(5, round(rung.parameters / per_step)), self.ladder.min_steps // 2)
        old = self.recipe.optimizer
        optimizer = replace(
            old,
            lr=old.lr * lr_factor,
            muon_lr=old.muon_lr * lr_factor,
            warmup_steps=warmup,
            decay_share=cooldown,
        )
        run = replace(
            self.recipe.run, steps=steps, seed=seed, ema_decay=0.9999, keep_checkpoints=1, num_workers=0
        )
        run = replace(run, log_every=max(1, steps // 4), sample_every=steps)
        model = {**self.recipe.model, **self.ladder.sizes(rung.width)}
        return LadderRun(replace(self.recipe, model=model, optimizer=optimizer, run=run), self.task)

    @torch.no_grad()
    def held_out_loss(self, weights: Path, rung: Rung) -> dict[str, float]:
        """The loss of exported weights on held-out clips, in all ("loss") and by diffusion time ("0-0.3").

        The noise is fixed, and the times are evenly spaced in (0, 1)."""
        run = self.run(rung, 1, 1.0, 0, 0.0)
        run.model.load_state_dict(load_file(weights))
        backbone, config = cast(Backbone, run.model.to(self.device).eval()), self.recipe.diffusion
        times = (torch.arange(len(self.clean)) + 0.5) / len(self.clean)
        noise = torch.randn(self.clean.shape, generator=torch_rng("scaling-held-out"))
        schedule, errors = config.make_schedule(), []
        assert self.task.text is not None, "prepare() made the text encoder"
        for i in range(0, len(self.clean), 32):
            x0, eps, t = (x[i : i + 32].to(self.device) for x in (self.clean, noise, times))
            per_clip = t[:, None, None, None, None]
            states = Conditioning(self.task.text.encode_prompts(self.captions[i : i + 32]))
            output = backbone.predict(add_noise(x0, eps, per_clip, schedule), t, states)
            error = output.float() - target(config.prediction, x0, eps, per_clip, schedule)
            errors.append(error.square().mean(dim=(1, 2, 3, 4)).cpu())
        error = torch.cat(errors)
        bins = {
            f"{low:g}-{high:g}": error[(times > low) & (times <= high)].mean().item()
            for low, high in pairwise(BINS)
        }
        return {"loss": error.mean().item(), **bins}

    @torch.no_grad()
    def _held_out(self) -> tuple[Float[Tensor, "b z lf lh lw"], list[str]]:
        """Latents and captions of clips that no run draws."""
        source, shape, vae = self._source(), self.recipe.data.shapes[0], self.task.vae
        frames = 1 + (self.grid[0] - 1) * vae.config.temporal_factor
        latents, captions = [], []
        for i in range(0, self.ladder.held_out, 8):
            indices = range(i, min(i + 8, self.ladder.held_out))
            sizes = {"height": shape.height, "width": shape.width, "num_frames": frames}
            clips = draw_clips(source.world, "scaling-held-out", indices, **sizes, fps=self.recipe.data.fps)
            latents.append(
                encode_conditioning(vae, to_tensor(clips).to(self.device), starts_canvas=True).cpu()
            )
            captions += [clip.captions["medium"] for clip in clips]
        return torch.cat(latents).float(), captions

    def _source(self) -> WorldLatents:
        source = self.task.source
        assert isinstance(source, WorldLatents), "the recipe has no dataset"
        return source


class LadderRun:
    """A run that draws every clip once, writes no samples and exports the averaged weights only.

    See `kinema.training.task.TrainingTask`.
    """

    def __init__(self, recipe: DiffusionRecipe, shared: DiffusionTask) -> None:
        self.recipe, self.shared = recipe, shared
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        own = shared.backbone.config
        fixed = {
            name: getattr(own, name) for name in ("in_channels", "out_channels", "text_dim", "text_length")
        }
        self.model = recipe.backbone_entry.build(recipe.model, **fixed)

    def prepare(self, out: Path, device: torch.device) -> None:
        """The shared task is prepared already."""

    def batch(self, step: int) -> Batch:
        """The next clips in their order."""
        source, period = self.shared.source, self.recipe.periods[0]
        assert isinstance(source, WorldLatents), "a ladder draws clips of a world"
        clips, rng = source.cached["clips", 0], numpy_rng(self.recipe.run.seed, "batch", step)
        indices = range(step * period.batch, (step + 1) * period.batch)
        latents = clips.latents[indices.start : indices.stop, :, : period.latent_frames].float()
        captions = [self.recipe.captions.draw(clips.captions[i], rng) for i in indices]
        return {"groups": [LatentGroup(latents)], "captions": captions, "step": step}

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss of the recipe."""
        return self.shared.loss(model, batch, generator)

    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """No samples."""

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the averaged weights."""
        with atomic_file(folder / WEIGHTS) as partial:
            save_file({name: x.contiguous() for name, x in model.state_dict().items()}, partial)

    def init_from(self, folder: Path) -> None:
        """Load exported weights."""
        self.model.load_state_dict(load_file(folder / WEIGHTS))

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """Those of the shared task."""
        return self.shared.benchmark_batches()
