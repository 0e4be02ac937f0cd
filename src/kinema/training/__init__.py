"""Training of every network by one loop: `kinema train recipes/dit.toml --out runs/dit`.

Training needs few packages: torch, numpy, einops, safetensors, Pillow and OpenCV.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kinema.config import from_dict, merge, override, read_toml
from kinema.errors import ConfigError
from kinema.registry import lookup
from kinema.training.loop import benchmark, train
from kinema.training.renamed_keys import with_current_keys
from kinema.training.task import Recipe, TrainingTask, freeze
from kinema.training.tasks.captioner import CaptionerRecipe, CaptionerTask
from kinema.training.tasks.clip import CLIPRecipe, CLIPTask
from kinema.training.tasks.decoder import DecoderRecipe, DecoderTask
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe, LoRARecipe, WanRecipe
from kinema.training.tasks.diffusion.starts import Adapter, NewModel, backbone_sizes
from kinema.training.tasks.diffusion.task import DiffusionTask
from kinema.training.tasks.diffusion.wan import WanStart
from kinema.training.tasks.expander import ExpanderRecipe, ExpanderTask
from kinema.training.tasks.oracle import OracleRecipe, OracleTask
from kinema.training.tasks.vae import VAERecipe, VAETask

log = logging.getLogger(__name__)

__all__ = ["TRAINING_TASKS", "benchmark", "load_task", "plan_lines", "train"]

TRAINING_TASKS: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
    "vae": (VAERecipe, VAETask),
    "decoder": (DecoderRecipe, DecoderTask),
    "clip": (CLIPRecipe, CLIPTask),
    "dit": (DiffusionRecipe, lambda recipe: DiffusionTask(recipe, NewModel)),
    "lora": (LoRARecipe, lambda recipe: DiffusionTask(recipe, Adapter)),
    "wan": (WanRecipe, lambda recipe: DiffusionTask(recipe, WanStart)),
    "oracle": (OracleRecipe, OracleTask),
    "captioner": (CaptionerRecipe, CaptionerTask),
    "expander": (ExpanderRecipe, ExpanderTask),
}
"""The `task` of a recipe: its settings, and the function that makes the `TrainingTask` from them."""


def load_task(
    recipe: Path, *, steps: int | None = None, assignments: Sequence[str] = (), init_from: Path | None = None
) -> TrainingTask:
    """The task that a recipe file describes, with fresh weights or those of `init_from`.

    `assignments` are settings such as "optimizer.lr=3e-4" that replace the recipe's; `steps` replaces
    run.steps. Raises `ConfigError` for an invalid recipe, and `UnknownName` for a task that does not exist.
    """
    given = with_current_keys(override({}, assignments))
    tables = merge(with_current_keys(read_toml(recipe)), given)
    if steps is not None:
        tables = override(tables, [f"run.steps={steps}"])

    if "task" not in tables:
        raise ConfigError(f"{recipe} names no task: write task = {' | '.join(map(repr, TRAINING_TASKS))}")
    name = str(tables["task"])
    recipe_type, make_task = lookup(TRAINING_TASKS, name, kind="training task")

    if "dataset" in tables and not hasattr(recipe_type, "dataset"):
        raise ConfigError(f"the task '{name}' trains on clips of a world: leave out dataset (--data)")
    if init_from is not None and name == "dit" and tables.get("dataset"):
        if "model" in given:
            raise ConfigError("a fine-tuned model keeps its sizes: leave out model or --init-from")
        tables["model"] = backbone_sizes(init_from)
    try:
        config: Recipe = from_dict(recipe_type, tables)
    except ConfigError as error:
        raise ConfigError(f"{recipe}: {error}") from None
    _check_used(config, tables, given)

    task: TrainingTask = make_task(config)
    if init_from is not None:
        _load_weights(task, init_from, recipe)
    if config.frozen is not None:
        freeze(task.model, config.frozen)
    return task


def _check_used(config: Recipe, tables: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Log the settings of a recipe that its run does not read. Raises `ConfigError` for one that was set for
    this run.
    """
    unread: dict[str, list[str]] = {}
    for name, run in config.unused_settings().items():
        if _holds(given, name):
            raise ConfigError(f"{name} does not apply to {run}: leave it out")
        if _holds(tables, name):
            unread.setdefault(run, []).append(name)
    for run, names in unread.items():
        log.info("not read by %s: %s", run, ", ".join(names))


def _holds(tables: Mapping[str, Any], name: str) -> bool:
    """Whether tables have the dotted key `name`."""
    first, _, rest = name.partition(".")
    return first in tables and (not rest or _holds(tables[first], rest))


def _load_weights(task: TrainingTask, folder: Path, recipe: Path) -> None:
    """Load the weights of `folder` into the task's model. Raises `ConfigError` when names or shapes
    differ."""
    try:
        task.init_from(folder)
    except (
        RuntimeError
    ) as error:  # load_state_dict lists every tensor of another name or shape on its own line
        lines = [line.strip() for line in str(error).splitlines()]
        raise ConfigError(f"{folder} does not fit {recipe}: {' '.join(lines[1:3]) or lines[0]}") from error


def plan_lines(task: TrainingTask) -> list[str]:
    """Estimate of a run from a few steps on random data: parameters, tokens, memory, seconds per step and in
    all."""
    run = task.recipe.run
    num_parameters = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    lines = [f"{num_parameters / 1e6:.2f} M parameters, {run.steps} steps"]

    results = benchmark(task)
    for result in results:
        lines.append(
            f"{result.name}: {result.num_tokens} tokens, {result.seconds:.2f} s a step "
            f"({result.num_tokens / result.seconds:.0f} tokens/s), "
            f"peak memory {result.peak_bytes / 2**30:.2f} GiB"
        )

    minutes = [result.seconds * run.steps / 60 for result in results]
    if len(minutes) > 1:
        lines.append(f"the whole run: {min(minutes):.0f} to {max(minutes):.0f} minutes")
    else:
        lines.append(f"the whole run: {minutes[0]:.0f} minutes")
    return lines
