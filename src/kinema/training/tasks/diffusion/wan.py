"""The start of a run on a model of the Wan family: an adapter, or all weights of the backbone.

    kinema data build clips/ -o dataset/ --set vae=DIR --set clips.fps=16
    kinema train recipes/lora_wan.toml --data dataset/ --set base=DIR

The data set holds latents of the model's own VAE, or pixels. The captions are encoded once by its own text
encoder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kinema.checkpoints.adapters import add_lora
from kinema.checkpoints.components import with_weights
from kinema.checkpoints.families.base import SamplingRules
from kinema.checkpoints.families.wan.convert import write_as
from kinema.checkpoints.families.wan.files import BackboneFiles, WanFiles, find_wan_files
from kinema.checkpoints.families.wan.model import (
    NEGATIVE_PROMPT,
    describe_wan,
    load_encoder,
    read_tokenizer,
    wan_rules,
)
from kinema.checkpoints.families.wan.umt5 import umt5_encoder
from kinema.checkpoints.manifest import CARD, Manifest
from kinema.data.seeds import derive_seed
from kinema.data.shard_cache import ShardCache
from kinema.data.text_states import TextCache
from kinema.device import CPU, pick_device, uses_bf16
from kinema.errors import ConfigError, TrainingError
from kinema.files import file_fingerprint, write_json
from kinema.models.backbone import BACKBONES
from kinema.models.conditioning import TextEncoder
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.vae import VAE
from kinema.training.tasks.diffusion.recipe import WanRecipe
from kinema.training.tasks.diffusion.starts import take_adapter, write_adapter

RECORDED_SIZES = ("d", "num_layers", "num_heads", "ffn_dim", "patch")
"""Sizes of the backbone that the recipe of a run records."""


class WanStart:
    """The backbone of a Wan model, with an adapter or (`rank` 0) with all its weights. See `Start`.

    Raises `ConfigError` for a model, expert or canvas mix that cannot be trained.
    """

    text = None

    def __init__(self, recipe: WanRecipe, words: Sequence[str] | None) -> None:
        if not recipe.base:
            raise ConfigError("the recipe names no base model: give its folder or file with --set base=DIR")
        if recipe.dataset is None:
            raise ConfigError("a Wan model needs a data set: give one with --data")
        if recipe.rank == 0 and recipe.matrices == "bf16":
            raise ConfigError(
                "matrices = 'bf16' applies to frozen weights, and rank = 0 trains all weights: leave it out"
            )
        self.files = find_wan_files(Path(recipe.base))
        variant, self.manifest = describe_wan(self.files, name=Path(recipe.base).resolve().stem)
        _check(recipe, self.files, self.manifest)
        self.backbone: BackboneFiles = self.files.backbones[-1 if recipe.expert == "low" else 0]
        self.rules = wan_rules(variant, self.files.boundary)
        sizes = {name: getattr(self.backbone.config, name) for name in RECORDED_SIZES}
        self.recipe = replace(recipe, vae=recipe.base, model=sizes)

        with torch.device("meta"):
            vae, dit = VAE(self.files.vae.config), BACKBONES["dit"].network(self.backbone.config)
        self.vae = with_weights(vae, self.files.vae.state, None, torch.float32).requires_grad_(False)
        wants_bf16 = uses_bf16(pick_device(recipe.run.device), recipe.matrices)
        dtype = torch.bfloat16 if recipe.rank and wants_bf16 else torch.float32
        self.model = cast(DiT, with_weights(dit, self.backbone.state, None, dtype))
        self.model.activation_checkpointing = recipe.activation_checkpointing
        if recipe.rank:
            torch.manual_seed(derive_seed(recipe.run.seed, "init"))
            add_lora(self.model, recipe.rank, recipe.alpha, recipe.targets)

    def prepare_text(self, cache: Path, device: torch.device, captions: Iterable[str]) -> TextEncoder:
        """The states of the captions, which the model's own encoder makes, in a folder in `cache`."""
        files, config = self.files, self.backbone.config
        dtype = torch.bfloat16 if uses_bf16(device, "auto") else torch.float32
        encoder = umt5_encoder(
            lambda: load_encoder(files.text, "UMT5EncoderModel", device, dtype),
            read_tokenizer(files.tokenizer),
            config.text_dim,
            max_length=config.text_length,
            keep=True,
        )
        shards = ShardCache(cache, [file_fingerprint(Path(self.recipe.base)), config.text_length], "text")
        texts = TextCache(shards, config.text_dim, config.text_length, device)
        texts.fill([*captions, "", NEGATIVE_PROMPT], encoder)
        return texts

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1], of one of two experts those on its side of the boundary."""
        draw, expert, boundary = self.recipe.diffusion.draw_times, self.recipe.expert, self.rules.boundary
        times = draw(count, generator)
        while expert is not None and boundary is not None:
            is_high = (TIMESTEPS * times).round() >= TIMESTEPS * boundary
            wrong = ~is_high if expert == "high" else is_high
            if not wrong.any():
                break
            times[wrong] = draw(int(wrong.sum()), generator)
        return times

    def sampling_rules(self) -> SamplingRules:
        """Those of the variant. Raises `TrainingError` for one of two experts."""
        if self.recipe.expert is not None:
            raise TrainingError(
                "one of two experts cannot generate a video alone: try the adapter with --lora FILE:1:"
                + self.recipe.expert
            )
        return self.rules

    def export(self, model: nn.Module, folder: Path, manifest: Manifest, training: dict[str, Any]) -> None:
        """Write the adapter, or with `rank` 0 the whole model in diffusers' layout, and its card."""
        if self.recipe.rank:
            write_adapter(folder, model, self.recipe, training)
            return

        before = self.backbone.state
        trained = {
            name: tensor.detach().to(CPU, before[name].dtype) for name, tensor in model.state_dict().items()
        }
        backbones = [
            replace(one, state=trained) if one is self.backbone else one for one in self.files.backbones
        ]
        write_as(replace(self.files, backbones=tuple(backbones)), folder, "diffusers")
        write_json(folder / CARD, {"base": self.recipe.base, "rank": 0, **training})

    def init_from(self, folder: Path) -> None:
        """Load the adapter of an exported folder with the same rank and targets; with `rank` 0 the backbone
        of a model.
        """
        if self.recipe.rank:
            take_adapter(self.model, folder)
            return
        source = find_wan_files(folder).backbones[-1 if self.recipe.expert == "low" else 0]
        self.model.load_state_dict({name: source.state[name].to(torch.float32) for name in source.state})


def _check(recipe: WanRecipe, files: WanFiles, manifest: Manifest) -> None:
    """Raise `ConfigError` for a model that cannot be trained, or an expert or a mix that it does not have."""
    num_experts = len(files.backbones)
    if (recipe.diffusion.schedule, recipe.diffusion.prediction) != ("linear", "velocity"):
        raise ConfigError(
            f"{recipe.base} was trained with diffusion.schedule = 'linear' and diffusion.prediction = "
            "'velocity': leave both out"
        )
    if files.backbones[0].config.in_channels != files.vae.config.z_dim:
        raise ConfigError(
            f"{recipe.base} is an image-to-video model with image channels: only text-to-video models "
            "and TI2V can be trained"
        )
    if recipe.expert is None and num_experts == 2:
        raise ConfigError(
            f"{recipe.base} has two experts: choose one with --set expert=high or --set expert=low"
        )
    if recipe.expert is not None and num_experts != 2:
        raise ConfigError(f"{recipe.base} has one backbone: leave expert out")
    if not manifest.time_per_token and recipe.mix.tasks.get("text") != 1:
        raise ConfigError(f"{recipe.base} has one time for all tokens: use mix.tasks = {{text = 1.0}}")
