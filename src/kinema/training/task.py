"""The interface between the training loop and what it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kinema.config import check_range
from kinema.data.seeds import Batch
from kinema.device import Precision
from kinema.errors import ConfigError
from kinema.registry import unknown
from kinema.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class RunConfig:
    """Length of a run, and how often it logs, saves and samples; all `*_every` in steps.

    `max_bad_steps` non-finite steps in a row end the run. `num_workers` processes draw batches ahead; with 0
    the run's own process draws them. Raises `ConfigError` for values out of range.
    """

    steps: int = 1000
    seed: int = 0
    log_every: int = 20
    save_every: int = 200
    sample_every: int = 500
    keep_checkpoints: int = 2
    ema_decay: float = 0.999
    max_bad_steps: int = 20
    num_workers: int = 0
    precision: Precision = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        every = ("log_every", "save_every", "sample_every")
        check_range(self, ("steps", *every, "keep_checkpoints", "max_bad_steps"), 1)
        check_range(self, ("num_workers",), 0)
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay = {self.ema_decay} is out of range: use 0 or more and less than 1")


@dataclass(frozen=True)
class Recipe:
    """The settings that every recipe has. Each task adds its own.

    `frozen` names modules of the task's model whose weights do not change, including all modules inside them.
    With `["vae.encoder", "vae.quant_conv"]` only the decoder learns, and a DiT that was trained on the
    latents stays valid.
    """

    run: RunConfig = field(default_factory=RunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    frozen: tuple[str, ...] | None = None

    def unused_settings(self) -> dict[str, str]:
        """Dotted names of the settings that this run does not read, each with the kind of run."""
        return {}


class BenchmarkBatch(NamedTuple):
    """Random data for one kind of step. `num_tokens` counts tokens or latent positions."""

    name: str
    batch: Batch
    num_tokens: int


class TrainingTask(Protocol):
    """A network to train: its data, its loss and its export.

    `model` holds every trained parameter; the export may be one module of it.
    """

    recipe: Any
    model: nn.Module

    def prepare(self, out: Path, device: torch.device) -> None:
        """Load or make what batches need (frozen models, cached latents). Called once, before the first
        step."""

    def batch(self, step: int) -> Batch:
        """The batch of a step: a pure function of the recipe and the step."""

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The scalar to minimise and the metrics to log. `generator` is on the CPU and seeded for the
        step."""

    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a picture (.png) that shows the results of the averaged model."""

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the averaged model in its release form, with `training` (steps, seconds, recipe) in its
        card."""

    def init_from(self, folder: Path) -> None:
        """Load the weights, and only the weights, of a released folder."""

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """One batch of random data for every kind of step."""


def check_periods(ends: Sequence[float]) -> None:
    """Raise `ConfigError` unless the ends of a run's periods (shares of its steps) rise and the last is 1."""
    if not ends or list(ends) != sorted(ends) or ends[-1] != 1:
        raise ConfigError(f"periods end at {list(ends)}: the values must rise and the last must end at 1")


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Exclude the modules of these names from training.

    Raises `ConfigError` for a name without weights, or when no weights are left to train.
    """
    weights = dict(model.named_parameters())

    for name in names:
        inside = [weight for key, weight in weights.items() if key == name or key.startswith(f"{name}.")]
        if not inside:
            modules = sorted({key.rpartition(".")[0] for key in weights})
            raise ConfigError(f"frozen: {unknown('module', name, modules)}")
        for weight in inside:
            weight.requires_grad_(False)

    if not any(weight.requires_grad for weight in weights.values()):
        raise ConfigError(f"frozen = {list(names)} leaves nothing to train")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
