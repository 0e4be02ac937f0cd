"""The report of `kinema plan --train`: the cost of a training run, and of published runs for comparison."""

import argparse
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from kinema.checkpoints.components import config_of
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.text_encoders import text_source
from kinema.cli.plan_report import model_sizes
from kinema.config import from_dict, read_toml
from kinema.data.dataset import open_dataset
from kinema.errors import ConfigError, RequestError
from kinema.models.vae import VAE, VAEConfig
from kinema.scaling.planner import (
    Cluster,
    StepKind,
    Training,
    TrainingPlan,
    alternatives,
    cluster_of,
    fits,
    plan_training,
)
from kinema.scaling.published import checks, claims
from kinema.terminal import table
from kinema.training.renamed_keys import with_current_keys
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe
from kinema.training.tasks.diffusion.text import frozen_text


def print_training_plan(arguments: argparse.Namespace) -> None:
    """Print the cost of a run on the GPUs. Raises `RequestError` with what would fit if it does not."""
    training = _training(arguments)
    cluster = _cluster(arguments)
    plan = plan_training(training, cluster, arguments.utilisation)
    print("\n".join(_lines(training, cluster, plan, arguments.utilisation)))

    if not fits(plan.peak_bytes, cluster):
        options = alternatives(training, cluster)
        raise RequestError(
            f"{training.name} needs {plan.peak_bytes / 2**30:.1f} GiB on each {cluster.name} of "
            f"{cluster.gpu.memory_gib:g} GiB: "
            f"{', or '.join(options) or 'take a smaller model, shorter clips or more GPUs'}"
        )


def print_validation() -> bool:
    """Print published runs beside the estimates, and statements about Sora; whether all are within limits."""
    found = checks()
    rows = []
    for check in found:
        limit = "" if check.limit is None else f"{check.limit:g}"
        factor = "-" if check.limit is None else f"{check.factor:.2f}"
        stated = "-" if check.limit is None else f"{check.stated:,.4g}"
        figures = (stated, f"{check.estimate:,.4g}", factor, limit)
        rows.append((check.run, check.quantity, *figures, check.note, check.source))
    header = ("run", "quantity", "stated", "estimate", "factor", "limit", "note", "source")
    print(table(rows, header=header, align="llrrrrll"))
    print("\nSora, as stated in talks and reports, and what the formulas give:")
    print("\n".join(f"- {line}" for line in claims()))
    return all(check.is_within for check in found)


def _cluster(arguments: argparse.Namespace) -> Cluster:
    """The GPUs and layout that the options give."""
    cluster = cluster_of(arguments.gpus)
    gpu = replace(
        cluster.gpu,
        memory_gib=arguments.device_memory or cluster.gpu.memory_gib,
        tflops=arguments.tflops or cluster.gpu.tflops,
        price=cluster.gpu.price if arguments.price is None else arguments.price,
    )
    return replace(
        cluster,
        gpu=gpu,
        shard=arguments.shard or cluster.shard,
        sequence=arguments.sequence or 1,
        activation_checkpointing=arguments.activation_checkpointing,
    )


def _training(arguments: argparse.Namespace) -> Training:
    """The run of a recipe, with the backbone, size, length, batch and steps that the options give."""
    path: Path = arguments.train
    tables = with_current_keys(read_toml(path))
    if tables.get("task") != "dit":
        raise ConfigError(
            f"{path} has task = {tables.get('task')!r}: --train plans recipes of a backbone (task = 'dit'); "
            f"'kinema train {path} --plan' measures any recipe on this machine"
        )
    recipe = from_dict(DiffusionRecipe, tables)
    if arguments.model is None:
        name, vae = recipe.name, config_of(resolve_model(recipe.vae), VAE)
        backbone = _backbone(recipe, vae)
    else:
        _, sizes = model_sizes(arguments.model)
        name, vae, backbone = arguments.model, sizes.vae, sizes.backbone

    kinds = _step_kinds(recipe, vae, backbone, arguments)
    if arguments.steps is not None:
        factor = arguments.steps / sum(kind.steps for kind in kinds)
        kinds = [replace(kind, steps=kind.steps * factor) for kind in kinds]
    if arguments.batch is not None:
        kinds = [replace(kind, clips=arguments.batch) for kind in kinds]
    return Training(name, backbone, tuple(kinds), uses_muon=recipe.optimizer.name == "muon")


def _backbone(recipe: DiffusionRecipe, vae: VAEConfig) -> Any:
    """The configuration of the recipe's backbone between its VAE and text encoder."""
    text = text_source(recipe.text) if recipe.text else frozen_text(resolve_model(recipe.clip), None)
    fixed = {"in_channels": vae.z_dim, "out_channels": vae.z_dim}
    fixed |= {"text_dim": text.text_width, "text_length": text.max_length}
    return from_dict(recipe.backbone_entry.config, {**recipe.model, **fixed}, "model")


def _step_kinds(
    recipe: DiffusionRecipe, vae: VAEConfig, backbone: Any, arguments: argparse.Namespace
) -> list[StepKind]:
    """The steps of a run by the size of their clips. With --size or --frames all clips are equal."""
    run, space, time = recipe.run, vae.spatial_factor, vae.temporal_factor
    if recipe.dataset is not None:
        return _dataset_kinds(recipe, backbone)

    kinds, start = [], 0.0
    for period in recipe.periods:
        for shape in recipe.data.shapes:
            grid = (period.latent_frames, shape.height // space, shape.width // space)
            kinds.append(StepKind(run.steps * (period.until - start) * shape.share, period.batch, grid))
        start = period.until
    if arguments.size is None and arguments.frames is None and arguments.seconds is None:
        return kinds

    last = max(kinds, key=lambda kind: kind.grid[0])
    width, height = arguments.size or (last.grid[2] * space, last.grid[1] * space)
    frames = arguments.frames or 1 + (last.grid[0] - 1) * time
    if arguments.seconds is not None:
        frames = 1 + time * round(arguments.seconds * recipe.data.fps / time)
    if width % space or height % space or (frames - 1) % time:
        raise ConfigError(
            f"{width}x{height}, {frames} frames do not fit the VAE: use multiples of {space} pixels and "
            f"{time}k+1 frames"
        )
    return [StepKind(run.steps, last.clips, (1 + (frames - 1) // time, height // space, width // space))]


def _dataset_kinds(recipe: DiffusionRecipe, backbone: Any) -> list[StepKind]:
    """The steps of a run on a data set: a batch of `pack.tokens` tokens for every size of its clips."""
    dataset = open_dataset(str(recipe.dataset))
    names = ("latent_frames", "latent_height", "latent_width")
    grids = [tuple(map(int, grid)) for grid in zip(*(dataset.column(name) for name in names))]
    tokens = {grid: prod(grid) / prod(backbone.patch) for grid in grids}
    total = sum(tokens[grid] for grid in grids)
    return [
        StepKind(
            recipe.run.steps * grids.count(grid) * size / total,
            max(1.0, recipe.pack.tokens / size),
            (grid[0], grid[1], grid[2]),
        )
        for grid, size in tokens.items()
    ]


def _lines(training: Training, cluster: Cluster, plan: TrainingPlan, utilisation: float) -> list[str]:
    """The report of a plan."""
    rows = [(name, f"{size / 2**30:.2f}") for name, size in [*plan.memory.items(), ("peak", plan.peak_bytes)]]
    clips = [
        f"{kind.steps:.0f} steps of {kind.clips:.4g} clips of {'x'.join(map(str, kind.grid))} latents, "
        f"{training.tokens(kind)} tokens"
        for kind in training.kinds
    ]
    traffic = ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in plan.traffic.items())
    checkpointing = "with" if cluster.activation_checkpointing else "without"
    return [
        f"{training.name}: {training.parameters / 1e9:.3g} B parameters",
        *clips,
        f"in all {plan.clips:.3g} clips, {plan.tokens:.3g} tokens, {plan.flops:.3g} FLOP "
        "(three forward passes)",
        f"{cluster.count} {cluster.name}, shard {cluster.shard}, sequence {cluster.sequence}, "
        f"{checkpointing} activation checkpointing",
        table(rows, header=("memory of a GPU", "GiB"), align="lr"),
        f"sent by a GPU in a step: {traffic}",
        f"time {plan.seconds / 3600:.3g} h at {100 * utilisation:g} % of {cluster.gpu.tflops:g} TFLOP/s; "
        f"{plan.gpu_hours:.4g} GPU hours, {plan.kwh:.3g} kWh, ${plan.cost:,.2f} "
        f"at ${cluster.gpu.price:g} an hour",
    ]
