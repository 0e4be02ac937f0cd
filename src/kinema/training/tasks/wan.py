"""Trains a Wan model on a data set: an adapter, or all weights of the backbone.

    kinema data build clips/ -o dataset/ --set vae=DIR --set clips.fps=16
    kinema train recipes/lora_wan.toml --data dataset/ --set base=DIR

The data set holds latents of the model's own VAE. The captions are encoded once by its own text encoder.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kinema.checkpoints.adapters import LoRALinear, add_lora, read_lora, save_lora
from kinema.checkpoints.components import with_weights
from kinema.checkpoints.families.base import LoadedModel
from kinema.checkpoints.families.wan.convert import write_as
from kinema.checkpoints.families.wan.files import BackboneFiles, find_wan_files
from kinema.checkpoints.families.wan.model import (
    NEGATIVE_PROMPT,
    VARIANTS,
    describe_wan,
    load_encoder,
    read_tokenizer,
    wan_rules,
)
from kinema.checkpoints.families.wan.umt5 import umt5_encoder
from kinema.checkpoints.manifest import CARD
from kinema.data.seeds import Batch, derive_seed, torch_rng
from kinema.data.text_states import TextCache
from kinema.device import CPU, pick_device, uses_bf16
from kinema.diffusion.objectives import draw_times
from kinema.diffusion.schedules import SCHEDULES
from kinema.errors import ConfigError, TrainingError
from kinema.files import atomic_folder, file_fingerprint, write_json
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.sampling.denoiser import Denoiser
from kinema.models.conditioning import TextStates
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.vae import VAE
from kinema.training.task import BenchmarkBatch
from kinema.training.tasks.dit import DiTSizes
from kinema.training.tasks.dit_on_dataset import DatasetDiTTask
from kinema.training.tasks.lora import LORA, LoRARecipe
from kinema.video import contact_sheet, save_image

log = logging.getLogger(__name__)

NUM_SAMPLES = 2


@dataclass(frozen=True)
class WanRecipe(LoRARecipe):
    """All settings of a run on a Wan model. `base` is a model folder or file, in any layout.

    `rank` 0 trains all weights of the backbone. `expert` is the trained one of two experts. `matrices` is the
    precision of the frozen weights; "auto" is bf16 where it is fast. `activation_checkpointing` recomputes
    the activations of a block for the gradient, which takes a third more time and a small part of the memory.
    """

    task: str = "wan"
    base: str = ""
    expert: Literal["high", "low"] | None = None
    matrices: Literal["auto", "fp32", "bf16"] = "auto"  # type: ignore[assignment]
    activation_checkpointing: bool = True


class WanTask(DatasetDiTTask):
    """Trains a Wan model. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` for a model, expert or canvas mix that cannot be trained.
    """

    recipe: WanRecipe

    def __init__(self, recipe: WanRecipe):
        if recipe.dataset is None:
            raise ConfigError("a Wan model needs a data set: give one with --data")
        if recipe.rank == 0 and recipe.matrices == "bf16":
            raise ConfigError(
                "matrices = 'bf16' applies to frozen weights, and rank = 0 trains all weights: leave it out"
            )
        if not recipe.base:
            raise ConfigError("the recipe names no base model: give its folder or file with --set base=DIR")
        self.files = find_wan_files(Path(recipe.base))
        self.variant, self.manifest = describe_wan(self.files, name=Path(recipe.base).resolve().stem)
        config = self.files.backbones[0].config
        if config.in_channels != self.files.vae.config.z_dim:
            raise ConfigError(
                f"{recipe.base} is an image-to-video model with image channels: only text-to-video models "
                "and TI2V can be trained"
            )
        if recipe.expert is None and len(self.files.backbones) == 2:
            raise ConfigError(
                f"{recipe.base} has two experts: choose one with --set expert=high or --set expert=low"
            )
        if recipe.expert is not None and len(self.files.backbones) != 2:
            raise ConfigError(f"{recipe.base} has one backbone: leave expert out")
        if not self.manifest.time_per_token and recipe.mix.tasks.get("text") != 1:
            raise ConfigError(f"{recipe.base} has one time for all tokens: use mix.tasks = {{text = 1.0}}")

        self.sizes = DiTSizes(config.d, config.num_layers, config.num_heads, config.ffn_dim, config.patch)
        super().__init__(replace(recipe, vae=recipe.base, model=self.sizes))

        rates = set(map(float, self.dataset.column("fps")))
        if rates != {self.manifest.fps}:
            given = ", ".join(f"{rate:g}" for rate in sorted(rates))
            log.warning(
                "%s has %s fps, and the model was trained with %g", recipe.dataset, given, self.manifest.fps
            )

    def _load(self) -> None:
        recipe = self.recipe
        self.schedule = SCHEDULES["linear"]()
        with torch.device("meta"):
            vae, dit = VAE(self.files.vae.config), DiT(self.backbone.config)
        self.vae = with_weights(vae, self.files.vae.state, None, torch.float32).requires_grad_(False)
        wants_bf16 = uses_bf16(pick_device(recipe.run.device), recipe.matrices)
        dtype = torch.bfloat16 if recipe.rank and wants_bf16 else torch.float32
        self.model = with_weights(dit, self.backbone.state, None, dtype)
        self.model.activation_checkpointing = recipe.activation_checkpointing
        if recipe.rank:
            torch.manual_seed(derive_seed(recipe.run.seed, "init"))
            add_lora(self.model, recipe.rank, recipe.alpha, recipe.targets)
        self.texts = TextCache(Path(), self.backbone.config.text_dim)

    @property
    def backbone(self) -> BackboneFiles:
        """The backbone that is trained."""
        return self.files.backbones[-1 if self.recipe.expert == "low" else 0]

    def prepare(self, out: Path, device: torch.device) -> None:
        """Log the contents of the data set, and encode its captions into the folder `cache` next to the run
        folder.
        """
        self._describe_data()
        text, recipe = self.files.text, self.recipe
        captions = [
            caption for i in range(len(self.dataset)) for caption in self.dataset.captions(i).values()
        ]
        encoder = umt5_encoder(
            lambda: load_encoder(
                text,
                "UMT5EncoderModel",
                device,
                torch.bfloat16 if uses_bf16(device, "auto") else torch.float32,
            ),
            read_tokenizer(self.files.tokenizer),
            self.backbone.config.text_dim,
            max_length=self.backbone.config.text_length,
            keep=True,
        )
        folder = out.parent / "cache" / f"text-{file_fingerprint(Path(recipe.base))}"
        self.texts = TextCache(folder, self.backbone.config.text_dim, device)
        self.texts.fill([*captions, "", NEGATIVE_PROMPT], encoder)
        self.vae.to(device)

    def _text(self, batch: Batch) -> TextStates:
        if "states" in batch:
            return batch["states"]
        return self.texts.encode_prompts(batch["captions"])

    def _draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        config = self.recipe.diffusion
        times = draw_times(count, generator, sampling=config.timestep_sampling, shift=config.timestep_shift)
        if self.recipe.expert is None:
            return times
        boundary = self.files.boundary if self.files.boundary is not None else VARIANTS[self.variant].boundary
        assert boundary is not None, "a model of two experts has a boundary"
        while True:
            is_high = (TIMESTEPS * times).round() >= TIMESTEPS * boundary
            wrong = ~is_high if self.recipe.expert == "high" else is_high
            if not wrong.any():
                return times
            times[wrong] = draw_times(
                int(wrong.sum()), generator, sampling=config.timestep_sampling, shift=config.timestep_shift
            )

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """The first batch of the data set, with random latents and text states."""
        batch = self.batch(0)
        batch["clips"] = [torch.randn(clip.shape, generator=torch_rng("plan")) for clip in batch["clips"]]
        lengths = (64,) * len(batch["clips"])
        batch["states"] = TextStates(
            torch.randn(sum(lengths), self.backbone.config.text_dim, generator=torch_rng("plan")), lengths
        )
        tokens = int(self.packing.tokens[self.packing.batch(0)].sum())
        return [BenchmarkBatch(f"{len(batch['clips'])} clips of {self.recipe.dataset}", batch, tokens)]

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of clips of the data set's most common size, generated from its captions."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        if self.recipe.expert is not None:
            raise TrainingError(
                "one of two experts cannot generate a video alone: try the adapter with --lora FILE:1:"
                + self.recipe.expert
            )
        wan = LoadedModel(
            self.manifest, {"high": model.eval()}, self.vae, self.texts, wan_rules(self.variant)
        )
        denoiser = Denoiser.of(wan, precision=self.recipe.run.precision)
        pipeline = Pipeline(denoiser, self.vae, model=self.recipe.base, model_hash="training")
        shape, factor = Counter(self.shapes).most_common(1)[0][0], self.vae.config
        size: dict[str, Any] = {
            "width": shape[2] * factor.spatial_factor,
            "height": shape[1] * factor.spatial_factor,
        }
        size["frames"] = 1 + (shape[0] - 1) * factor.temporal_factor
        prompts = self._prompts()[:NUM_SAMPLES]
        fields = {**size, "steps": self.recipe.defaults.steps, "beyond_trained": True}
        requests = [Request(text, seed=seed, **fields) for seed, text in enumerate(prompts)]
        videos = [pipeline.run(request).video for request in requests]
        save_image(path, contact_sheet(videos, prompts, columns=2, frames_per_video=5))
        model.train()

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the adapter, or with `rank` 0 the whole model in diffusers' layout, and its card."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        card = {"base": self.recipe.base, "rank": self.recipe.rank, **training}
        if self.recipe.rank:
            with atomic_folder(folder, LORA) as partial:
                save_lora(partial / LORA, model)
                write_json(partial / CARD, card)
            return
        before = self.backbone.state
        trained = {
            name: tensor.detach().to(CPU, before[name].dtype) for name, tensor in model.state_dict().items()
        }
        backbones = [
            replace(one, state=trained) if one is self.backbone else one for one in self.files.backbones
        ]
        write_as(replace(self.files, backbones=tuple(backbones)), folder, "diffusers")
        write_json(folder / CARD, card)

    def init_from(self, folder: Path) -> None:
        """Load the adapter of an exported folder with the same rank and targets; with `rank` 0 the backbone
        of a model.
        """
        if not self.recipe.rank:
            source = find_wan_files(folder).backbones[-1 if self.recipe.expert == "low" else 0]
            self.model.load_state_dict({name: source.state[name].to(torch.float32) for name in source.state})
            return
        with torch.device("meta"):
            adapters = read_lora(folder / LORA, DiT(self.backbone.config))
        for name, module in self.model.named_modules():
            if isinstance(module, LoRALinear):
                module.take(adapters[name])
