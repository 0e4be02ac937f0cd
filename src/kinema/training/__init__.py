"""One loop for every part: `kinema train recipes/dit.toml --out runs/dit`.

The part's imports are few: torch, numpy, einops, safetensors, Pillow and OpenCV are enough to train.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kinema.config import from_dict, merge, override, read_toml
from kinema.errors import ConfigError
from kinema.registry import lookup
from kinema.training.loop import measure, train
from kinema.training.task import TrainingTask, freeze
from kinema.training.tasks.captioner import CaptionerTask, CaptionerRecipe
from kinema.training.tasks.clip import CLIPTask, CLIPRecipe
from kinema.training.tasks.dit import DiTTask, DiTRecipe
from kinema.training.tasks.dit_on_dataset import DatasetDiTTask, sizes_of
from kinema.training.tasks.expander import ExpanderTask, ExpanderRecipe
from kinema.training.tasks.lora import DatasetLoRATask, LoRATask, LoRARecipe
from kinema.training.tasks.oracle import OracleTask, OracleRecipe
from kinema.training.tasks.vae import VAETask, VAERecipe
from kinema.training.tasks.wan import WanTask, WanRecipe

__all__ = ["TRAINING_TASKS", "load_task", "measure", "plan_lines", "train"]

TRAINING_TASKS: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
    "vae": (VAERecipe, VAETask),
    "clip": (CLIPRecipe, CLIPTask),
    "dit": (DiTRecipe, lambda recipe: DatasetDiTTask(recipe) if recipe.dataset else DiTTask(recipe)),
    "lora": (LoRARecipe, lambda recipe: DatasetLoRATask(recipe) if recipe.dataset else LoRATask(recipe)),
    "wan": (WanRecipe, WanTask),
    "oracle": (OracleRecipe, OracleTask),
    "captioner": (CaptionerRecipe, CaptionerTask),
    "expander": (ExpanderRecipe, ExpanderTask),
}


def load_task(
    recipe: Path, *, steps: int | None = None, assignments: Sequence[str] = (), init_from: Path | None = None
) -> TrainingTask:
    """The part that a recipe file describes, with fresh weights or those of `init_from`. Raises `ConfigError` for anything wrong in it."""
    tables = override(read_toml(recipe), assignments)
    if steps is not None:
        tables = override(tables, [f"run.steps={steps}"])
    if "part" not in tables:
        raise ConfigError(
            f"{recipe} does not say what it trains: write part = {' | '.join(map(repr, TRAINING_TASKS))}"
        )
    if init_from is not None and tables["part"] == "dit" and tables.get("dataset"):
        tables = merge(
            tables, {"model": sizes_of(init_from)}
        )  # a fine-tune has the sizes of what it starts from
    config_type, part_type = lookup(TRAINING_TASKS, str(tables["part"]), kind="part")
    try:
        config = from_dict(config_type, tables)
    except ConfigError as error:
        raise ConfigError(f"{recipe}: {error}") from None
    part: TrainingTask = part_type(config)
    if init_from is not None:
        try:
            part.init_from(init_from)
        except (
            RuntimeError
        ) as error:  # load_state_dict lists every tensor of another name or shape, a line each
            lines = [line.strip() for line in str(error).splitlines()]
            raise ConfigError(
                f"{init_from} does not fit {recipe}: {' '.join(lines[1:3]) or lines[0]}"
            ) from error
    if config.frozen is not None:
        freeze(part.model, config.frozen)
    return part


def plan_lines(part: TrainingTask) -> list[str]:
    """What a run will take, measured by a few steps on random data: parameters, tokens, memory, seconds per step and in all."""
    params = sum(p.numel() for p in part.model.parameters() if p.requires_grad)
    lines = [f"{params / 1e6:.2f} M parameters, {part.recipe.run.steps} steps"]
    rows = measure(part)
    for row in rows:
        lines.append(
            f"{row['name']}: {row['tokens']} tokens, {row['seconds']:.2f} s a step ({row['tokens'] / row['seconds']:.0f} tokens/s), "
            f"peak memory {row['peak_bytes'] / 2**30:.2f} GiB"
        )
    times = [row["seconds"] * part.recipe.run.steps / 60 for row in rows]
    lines.append(
        f"the whole run: {min(times):.0f} to {max(times):.0f} minutes"
        if len(times) > 1
        else f"the whole run: {times[0]:.0f} minutes"
    )
    return lines
