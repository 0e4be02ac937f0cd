"""Sharded models: FSDP2 on every block, tensors gathered to one rank, and whole tensors spread again.

One mechanism serves all meshes. On a mesh (replicate, shard) FSDP2 is full sharding with one copy, hybrid
sharding (HSDP) with several, and plain data parallelism with shards of one rank (Zhao et al. 2023).
"""

import copy
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from kinema.errors import ConfigError

RELEASED = "is_released"
"""The mark of parameters that checkpoints leave out."""


@runtime_checkable
class SpreadsTokens(Protocol):
    """A backbone whose tokens may be spread over ranks."""

    def spread_over(self, group: dist.ProcessGroup) -> None:
        """Spread the tokens of a forward pass over the ranks of `group`, which call it with the same clips.

        Raises `ConfigError` for sizes that do not divide.
        """


def parallelize(model: nn.Module, mesh: DeviceMesh | None, sequence: dist.ProcessGroup | None = None) -> None:
    """Shard a model in place over a mesh of ("replicate", "shard"): every block by itself, then the rest.

    The gradients are means over all ranks. The class of the model stays a subclass of its own. Without a mesh
    nothing changes. The optimizers are made afterwards. Raises `ConfigError` for a model whose tokens cannot
    be spread over `sequence`.
    """
    if mesh is None:
        return
    if sequence is not None:
        if not isinstance(model, SpreadsTokens):
            raise ConfigError(
                f"parallel.sequence = {sequence.size()}, but {type(model).__name__} does not spread its "
                "tokens: use parallel.sequence = 1"
            )
        model.spread_over(sequence)
    released = {name for name, p in model.named_parameters() if getattr(p, RELEASED, False)}
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh)
    if type(model).forward is nn.Module.forward:  # else predict_packed calls it
        register_fsdp_forward_method(model, "predict_packed")

    for name, parameter in model.named_parameters():
        if name in released:
            setattr(parameter, RELEASED, True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards. All ranks call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any, *, keep: bool) -> Any:
    """Nested dictionaries and lists with whole tensors on the CPU in place of shards; without `keep` empty
    ones. All ranks call this. One tensor is whole at a time on the device."""
    if isinstance(value, dict):
        return {key: gathered(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list):
        return [gathered(item, keep=keep) for item in value]
    if not isinstance(value, DTensor):
        return value
    full = value.full_tensor()
    return full.cpu() if keep else full.new_empty(0)


def like(tensor: Any, target: Any) -> Any:
    """A whole tensor in the shards of `target`, which all ranks have; anything else as it is."""
    if not isinstance(target, DTensor) or not isinstance(tensor, Tensor) or tensor.ndim != target.ndim:
        return tensor
    return distribute_tensor(tensor, target.device_mesh, target.placements, src_data_rank=None)


class WholeModel:
    """A model as it is on one rank, for sampling and export. It is made before the model is sharded."""

    def __init__(self, model: nn.Module, mesh: DeviceMesh | None) -> None:
        self.model, self.is_sharded = model, mesh is not None
        if self.is_sharded:
            shapes = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
            self.shape = copy.deepcopy(model, shapes)

    def on(self, device: torch.device, *, keep: bool) -> nn.Module:
        """The model with all weights. All ranks call this; without `keep` the weights are missing."""
        if not self.is_sharded:
            return self.model
        state = gathered(self.model.state_dict(), keep=keep)
        model = copy.deepcopy(self.shape)
        if keep:
            model.load_state_dict(state, assign=True)
            model.to(device)
        return model
