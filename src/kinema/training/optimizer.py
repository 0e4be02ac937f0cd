"""Optimizers, Muon for the matrices of blocks and AdamW for the rest, and the learning rate schedule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kinema.config import check_range
from kinema.device import uses_bf16
from kinema.errors import ConfigError
from kinema.nn.parameters import muon_parameters


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer settings. Learning rates are peaks: linear warmup, constant, linear decay over the last
    `decay_share` of the run.

    Raises `ConfigError` for values out of range.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    muon_lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 100
    decay_share: float = 0.3
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.muon_lr <= 0:
            raise ConfigError(f"lr = {self.lr}, muon_lr = {self.muon_lr}: learning rates must be positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas = {list(self.betas)} must lie in [0, 1)")
        if self.clip_norm <= 0:
            raise ConfigError(f"clip_norm = {self.clip_norm} must be positive")
        check_range(self, ("warmup_steps", "weight_decay"), 0)
        check_range(self, ("decay_share",), 0, 1)

    def factor(self, step: int, num_steps: int) -> float:
        """The learning rate at `step` (from 0) as a share of its peak."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = min(1.0, (num_steps - step) / max(1.0, self.decay_share * num_steps))
        return min(rise, fall)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations (Jordan et al. 2024), scaled to AdamW's update size
    (Liu et al. 2025).

    torch.optim.Muon iterates in bfloat16, which a CPU without bfloat16 units emulates: a DiT step took twice
    as long. This one iterates in float32 there, and computes all matrices of one shape in one batched
    product.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient. A kernel counts as the matrix (outputs, all inputs)."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    shapes.setdefault((len(param), param[0].numel()), []).append(param)
            for (rows, columns), params in shapes.items():
                updates = []
                for param in params:
                    assert param.grad is not None, "only parameters with a gradient are collected"
                    if param not in self.state:
                        self.state[param]["momentum"] = torch.zeros_like(param)
                    momentum = self.state[param]["momentum"]
                    momentum.lerp_(param.grad, 1 - group["momentum"])
                    updates.append(param.grad.lerp(momentum, group["momentum"]).flatten(1))
                scale = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for param, update in zip(params, orthogonalise(torch.stack(updates))):
                    param.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                        update.view_as(param).to(param.dtype), alpha=-scale
                    )


def orthogonalise(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """Matrices with singular values near 1: the quintic Newton-Schulz iteration of Jordan et al. 2024.

    `matrices` has the shape (m, rows, columns). The result is bfloat16 where that is fast, else float32.
    """
    x = matrices.bfloat16() if uses_bf16(matrices.device, "auto") else matrices.float()
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a model.

    With Muon, it updates the matrices that modules declare for it, and AdamW the rest.
    """
    matrices = [p for p in muon_parameters(model) if p.requires_grad] if config.name == "muon" else []
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]

    optimizers: list[torch.optim.Optimizer] = []
    if rest:  # an adapter has matrices only
        optimizers.append(
            torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
        )
    if matrices:
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
