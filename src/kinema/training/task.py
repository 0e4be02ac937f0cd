"""What the loop needs to know of a part (VAE, CLIP, DiT) to train it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kinema.data.seeds import Batch
from kinema.device import Precision
from kinema.errors import ConfigError
from kinema.registry import unknown
from kinema.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class RunConfig:
    """How long and how often. `max_bad_steps` non-finite steps in a row end the run; `num_workers` processes draw batches ahead."""

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
        for name in ("steps", "log_every", "save_every", "sample_every", "keep_checkpoints", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.num_workers < 0:
            raise ConfigError(
                f"num_workers = {self.num_workers} must not be negative; 0 draws batches in the run's own process"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay = {self.ema_decay} must lie in [0, 1)")


@dataclass(frozen=True)
class Recipe:
    """The settings every recipe has; each part adds its own.

    `frozen` names modules of the part's model that keep their weights, with what is inside them: with `["vae.encoder", "vae.quant_conv"]` a
    decoder goes on learning and the latents stay those that a DiT was trained on.
    """

    run: RunConfig = field(default_factory=RunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    frozen: tuple[str, ...] | None = None


class TrainingTask(Protocol):
    """One trainable part. `model` is all that is trained; what is exported may be a piece of it."""

    recipe: Any
    model: nn.Module

    def prepare(self, out: Path, device: torch.device) -> None:
        """Load or make what batches need (frozen models, cached latents). Called once, before the first step."""

    def batch(self, step: int) -> Batch:
        """The batch of a step: a pure function of the recipe and the step."""

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The scalar to minimise and what to log; `generator` (on the CPU) belongs to the step."""

    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a picture of what the averaged model does to `path` (.png)."""

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the averaged model in its release form; `training` (steps, seconds, recipe) goes to its card."""

    def init_from(self, folder: Path) -> None:
        """Take weights, and only weights, from a released folder."""

    def plan(self) -> list[tuple[str, Batch, int]]:
        """One batch of random data for every kind of step: (name, batch, tokens or latent positions in it)."""


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Take the modules of these names out of training. Raises `ConfigError` for a name that no weights have, or when none are left."""
    weights = dict(model.named_parameters())
    for name in names:
        inside = [weight for key, weight in weights.items() if key == name or key.startswith(f"{name}.")]
        if not inside:
            raise ConfigError(
                f"frozen: {unknown('module', name, sorted({key.rpartition('.')[0] for key in weights}))}"
            )
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
