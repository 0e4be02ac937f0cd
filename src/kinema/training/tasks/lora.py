"""Training a low-rank adapter on a released model: the DiT's recipe and loss, with a frozen backbone and a pair at each layer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from kinema.checkpoints.adapters import TARGETS, LoRALinear, add_lora, read_lora, save_lora
from kinema.checkpoints.families.wan.model import is_wan
from kinema.checkpoints.folders import CARD, load_dit, resolve_model
from kinema.data.seeds import derive_seed
from kinema.errors import ConfigError
from kinema.files import atomic_folder, write_json
from kinema.models.dit import DiT
from kinema.training.tasks.dit import DiTRecipe, DiTSizes, DiTTask
from kinema.training.tasks.dit_on_dataset import DatasetDiTTask

LORA = "lora.safetensors"


@dataclass(frozen=True)
class LoRARecipe(DiTRecipe):
    """Everything of an adapter's run. `base` is the model that is adapted ("shipped" or a folder); its VAE, CLIP and sizes are used.

    `matrices` "bf16" keeps the frozen matrices in half the memory; what is trained is float32 always.
    """

    task: str = "lora"
    base: str = "shipped"
    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS
    matrices: Literal["fp32", "bf16"] = "fp32"


class LoRATask(DiTTask):
    """See `kinema.training.task.TrainingTask`."""

    recipe: LoRARecipe

    def __init__(self, recipe: LoRARecipe):
        if is_wan(Path(recipe.base)):
            raise ConfigError(
                f"{recipe.base} is a model of the Wan family: its adapters are trained with recipes/lora_wan.toml"
            )
        dit = load_dit(resolve_model(recipe.base))
        sizes = dit.config
        own = DiTSizes(sizes.d, sizes.num_layers, sizes.num_heads, sizes.ffn_dim, sizes.patch)
        super().__init__(replace(recipe, vae=recipe.base, clip=recipe.base, model=own))
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = add_lora(dit, recipe.rank, recipe.alpha, recipe.targets)
        if recipe.matrices == "bf16":
            for module in self.model.modules():
                if isinstance(module, LoRALinear):
                    module.base.to(torch.bfloat16)

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """The adapter alone, under diffusers' names, and its card."""
        assert isinstance(model, DiT), "an adapter is trained on a DiT"
        with atomic_folder(folder, LORA) as partial:
            save_lora(partial / LORA, model)
            write_json(partial / CARD, {"base": self.recipe.base, "rank": self.recipe.rank, **training})

    def init_from(self, folder: Path) -> None:
        """The adapter of an exported folder; of the same rank and targets."""
        adapters = read_lora(folder / LORA, load_dit(resolve_model(self.recipe.base)))
        for name, module in self.model.named_modules():
            if isinstance(module, LoRALinear):
                module.take(adapters[name])


class DatasetLoRATask(LoRATask, DatasetDiTTask):
    """An adapter trained on a data set of files: `kinema train recipes/lora.toml --data dataset/`."""
