"""Trains a low-rank adapter of a released model: the DiT's recipe and loss, with a frozen backbone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from kinema.checkpoints.adapters import TARGETS, LoRALinear, add_lora, read_lora, save_lora
from kinema.checkpoints.components import load_dit
from kinema.checkpoints.families.wan.model import is_wan
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import CARD
from kinema.data.seeds import derive_seed
from kinema.errors import ConfigError
from kinema.files import atomic_folder, write_json
from kinema.models.dit import DiT
from kinema.training.tasks.dit import DiTRecipe, DiTSizes, DiTTask
from kinema.training.tasks.dit_on_dataset import DatasetDiTTask

LORA = "lora.safetensors"


@dataclass(frozen=True)
class LoRARecipe(DiTRecipe):
    """All settings of an adapter's run. `base` is the adapted model ("shipped" or a folder); the run uses its
    VAE, CLIP and sizes.

    `matrices` is the precision of the frozen weights; with "bf16" they take half the memory. Trained weights
    are always float32.
    """

    task: str = "lora"
    base: str = "shipped"
    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS
    matrices: Literal["fp32", "bf16"] = "fp32"


class LoRATask(DiTTask):
    """Trains an adapter on clips of a world. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` for a base of the Wan family, which has a recipe of its own.
    """

    recipe: LoRARecipe

    def __init__(self, recipe: LoRARecipe):
        if is_wan(Path(recipe.base)):
            raise ConfigError(
                f"{recipe.base} is a model of the Wan family: train its adapters with recipes/lora_wan.toml"
            )
        dit = load_dit(resolve_model(recipe.base))
        sizes = dit.config
        model = DiTSizes(sizes.d, sizes.num_layers, sizes.num_heads, sizes.ffn_dim, sizes.patch)
        super().__init__(replace(recipe, vae=recipe.base, clip=recipe.base, model=model))

        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = add_lora(dit, recipe.rank, recipe.alpha, recipe.targets)
        if recipe.matrices == "bf16":
            for module in self.model.modules():
                if isinstance(module, LoRALinear):
                    module.base.to(torch.bfloat16)

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the adapter with diffusers' tensor names, and its card."""
        assert isinstance(model, DiT), "an adapter is trained on a DiT"
        with atomic_folder(folder, LORA) as partial:
            save_lora(partial / LORA, model)
            write_json(partial / CARD, {"base": self.recipe.base, "rank": self.recipe.rank, **training})

    def init_from(self, folder: Path) -> None:
        """Load the adapter of an exported folder. It must have the same rank and targets."""
        adapters = read_lora(folder / LORA, load_dit(resolve_model(self.recipe.base)))
        for name, module in self.model.named_modules():
            if isinstance(module, LoRALinear):
                module.take(adapters[name])


class DatasetLoRATask(LoRATask, DatasetDiTTask):
    """Trains an adapter on a data set: `kinema train recipes/lora.toml --data dataset/`."""
