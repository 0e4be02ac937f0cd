"""Marks on modules: whose matrices Muon trains, and whose parameters stay in float32.

A mark is an attribute of the module, set by its class or by a function of this file. It does not depend on
the name under which a module is registered, and it survives `copy.deepcopy` and
`load_state_dict(assign=True)`, which replace the parameters themselves.
"""

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

MUON = "uses_muon"
"""True on a module: Muon trains the matrices and kernels in it and in its submodules."""
FLOAT32 = "keeps_float32"
"""True on a module whose tensors all stay in float32, or the names of its own parameters that do."""
NORMS = (nn.LayerNorm, nn.GroupNorm)
"""Normalisations of PyTorch, which cannot carry a mark of their own. They stay in float32."""


def use_muon(module: M) -> M:
    """`module`, marked so that Muon trains the matrices and kernels in it and in its submodules."""
    setattr(module, MUON, True)
    return module


def keep_float32(module: M, *names: str) -> M:
    """`module`, marked so that all its tensors, or only its own parameters called `names`, stay in float32.

    Raises `AttributeError` for a name that is not a parameter of `module`.
    """
    for name in names:
        module.get_parameter(name)

    setattr(module, FLOAT32, frozenset(names) or True)
    return module


def muon_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The matrices and kernels of marked modules, in the order of `model.parameters()`.

    A kernel is the matrix of its outputs by all its inputs. A tensor with one row or one column is a vector
    and is left out.
    """
    marked = {
        id(parameter)
        for module in model.modules()
        if getattr(module, MUON, False)
        for parameter in module.parameters()
    }
    return [p for p in model.parameters() if id(p) in marked and p.ndim > 1 and min(p.flatten(1).shape) > 1]


def float32_names(model: nn.Module) -> set[str]:
    """The names, as in `model.state_dict()`, of the tensors that stay in float32."""
    names: set[str] = set()
    for path, module in model.named_modules():
        mark = True if isinstance(module, NORMS) else getattr(module, FLOAT32, False)
        kept = (module.state_dict() if mark is True else mark) if mark else ()
        names.update(f"{path}.{name}" if path else name for name in kept)

    return names


def weight_dtypes(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The dtype of every tensor of `model.state_dict()` when its matrices are of `dtype`."""
    kept = float32_names(model)
    return {name: torch.float32 if name in kept else dtype for name in model.state_dict()}
