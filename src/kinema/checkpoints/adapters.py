"""Low-rank adapters (LoRA, Hu et al. 2021): reading files of every common naming, merging, training and
writing.

A pair (down, up) adds `scale * alpha / rank * up @ down` to the matrix of a linear layer. Files name the
layers as diffusers or as the original code does, with or without one of `PREFIXES`, with dots or (kohya,
musubi) underscores, and the pair by one of `SUFFIXES`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.checkpoints.components import format_of
from kinema.checkpoints.offload import StreamedBlocks
from kinema.checkpoints.tensors import MAX_LISTED, TensorFiles
from kinema.errors import ConfigError, ModelError

M = TypeVar("M", bound=nn.Module)

PREFIXES = (
    "base_model.model.",
    "transformer_2.",
    "transformer.",
    "diffusion_model.",
    "model.diffusion_model.",
    "lora_unet_",
    "unet.",
)
SUFFIXES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
EXPERTS = ("high", "low")
TARGETS = ("to_q", "to_k", "to_v", "to_out", "mlp.expand", "mlp.project")
"""Default targets: all linear layers of the blocks."""


@dataclass(frozen=True)
class LoRAFile:
    """An adapter to apply: `FILE[:scale[:high|low]]`; `expert` selects one expert of a model that has two."""

    path: Path
    scale: float = 1.0
    expert: str | None = None

    @classmethod
    def parse(cls, text: str) -> "LoRAFile":
        """The adapter that a command-line word names. Raises `ConfigError`."""
        found = re.fullmatch(r"(.+?)(?::([-+]?[\d.]+(?:e[-+]?\d+)?))?(?::(\w+))?", text)
        if found is None or (found[3] is not None and found[3] not in EXPERTS):
            raise ConfigError(f"'{text}' is not an adapter: write FILE, FILE:0.8 or FILE:0.8:high (or :low)")
        try:
            scale = 1.0 if found[2] is None else float(found[2])
        except ValueError:
            raise ConfigError(f"'{found[2]}' in '{text}' is not a scale: write a number, e.g. 0.8") from None
        return cls(Path(found[1]), scale, found[3])


@dataclass(frozen=True, eq=False)
class Adapter:
    """The pair of one linear layer: `down` (r, d_in) and `up` (d_out, r)."""

    down: Tensor
    up: Tensor
    alpha: float

    def delta(self) -> Tensor:
        """The matrix (d_out, d_in) that is added to the layer's, in float32."""
        return (self.alpha / len(self.down)) * (self.up.float() @ self.down.float())


def linear_layers(backbone: nn.Module) -> dict[str, "nn.Linear | LoRALinear"]:
    """The linear layers of a backbone by their names."""
    adapted = {name for name, module in backbone.named_modules() if isinstance(module, LoRALinear)}
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear | LoRALinear) and name.rpartition(".")[0] not in adapted
    }


def layer_names(backbone: nn.Module) -> dict[str, str]:
    """Our name of every linear layer of a backbone, by each name that files use for it."""
    names: dict[str, str] = {}
    for layout in format_of(type(backbone)).layouts(backbone):
        for layer in linear_layers(backbone):
            other = _name_in(layout, layer)
            names |= {other: layer, other.replace(".", "_"): layer}
    return names


def _name_in(layout: Mapping[str, str], layer: str) -> str:
    """The name of a layer in a layout of tensors; layers that it lacks keep their name."""
    weight = f"{layer}.weight"
    return layout.get(weight, weight).removesuffix(".weight")


def read_lora(file: Path, backbone: nn.Module) -> dict[str, Adapter]:
    """The adapters in a file by our names of the layers of `backbone`.

    Raises `ModelError` that lists unknown layers, incomplete pairs, and shapes of another backbone.
    """
    files = TensorFiles([file])
    names, layers = layer_names(backbone), linear_layers(backbone)
    found: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name in files:
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        layer = None if suffix is None else _layer(name.removesuffix(suffix), names)
        if suffix is None or layer is None:
            strange.append(name)
        else:
            found.setdefault(layer, {})[SUFFIXES[suffix]] = files[name]
    adapters = {}
    for layer, parts in found.items():
        weight = layers[layer].weight
        if "down" not in parts or "up" not in parts:
            strange.append(f"{layer} has no {'down' if 'down' not in parts else 'up'} matrix")
            continue
        down, up = parts["down"].flatten(1), parts["up"].flatten(1)
        if (len(up), down.shape[1]) != tuple(weight.shape) or up.shape[1] != len(down):
            strange.append(
                f"{layer} is {len(up)}x{up.shape[1]} by {len(down)}x{down.shape[1]}, not for "
                f"{tuple(weight.shape)}"
            )
            continue
        adapters[layer] = Adapter(down, up, float(parts["alpha"]) if "alpha" in parts else float(len(down)))
    if strange or not adapters:
        listed = "; ".join(strange[:MAX_LISTED]) + (
            f" and {len(strange) - MAX_LISTED} more" if len(strange) > MAX_LISTED else ""
        )
        total = len(adapters) + len(strange)
        raise ModelError(
            f"{file} is not for this model: {len(adapters)}/{total} fit, these do not: "
            f"{listed or 'it holds no adapter'}"
        )
    return adapters


def _layer(name: str, names: Mapping[str, str]) -> str | None:
    """Our name of the layer that a file calls `name`, or None."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return (
                _layer(name.removeprefix(prefix), names)
                if name.removeprefix(prefix) not in names
                else names[name.removeprefix(prefix)]
            )
    return names.get(name)


@torch.no_grad()
def merge_lora(backbone: nn.Module, adapters: Mapping[str, Adapter], scale: float = 1.0) -> None:
    """Add adapters to the matrices of `backbone`, each sum rounded once.

    `-scale` removes them again, up to rounding.
    """
    layers = linear_layers(backbone)
    streamed = {name: part for name, part in backbone.named_modules() if isinstance(part, StreamedBlocks)}
    for layer, adapter in adapters.items():
        blocks = next((name for name in streamed if layer.startswith(f"{name}.")), None)
        if blocks is not None:
            tensor = f"{layer.removeprefix(f'{blocks}.')}.weight"
            streamed[blocks].change(tensor, partial(_merged, adapter, scale))
        else:
            weight = layers[layer].weight
            weight.copy_(_merged(adapter, scale, weight))


def _merged(adapter: Adapter, scale: float, weight: Tensor) -> Tensor:
    return (weight.float() + scale * adapter.delta().to(weight.device)).to(weight.dtype)


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained pair.

    `up` is initialised to zero, so that the layer is unchanged at first.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        if not self.down.is_meta:
            nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def take(self, adapter: Adapter) -> None:
        """Initialise the pair from `adapter`, which has the same rank."""
        scale = adapter.alpha / len(adapter.down) / self.scale
        self.load_state_dict({"down": adapter.down.float(), "up": scale * adapter.up.float()}, strict=False)

    @property
    def weight(self) -> Tensor:
        """The frozen matrix; other layers read its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """The base layer's output plus the scaled low-rank update."""
        added = F.linear(F.linear(x.to(self.down.dtype), self.down), self.up)
        return self.base(x) + (self.scale * added).to(self.base.weight.dtype)


def add_lora(backbone: M, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> M:
    """`backbone` itself, frozen, with a trained pair at every linear layer whose name ends with one of
    `targets`. If the backbone has blocks, only their layers are adapted.

    Its own parameters are marked `is_released`: checkpoints leave out what is reloaded from the released
    model. Raises `ConfigError` for an invalid rank or alpha, or a target that matches no layer.
    """
    if rank < 1 or alpha <= 0:
        raise ConfigError(f"rank={rank} and alpha={alpha:g} of an adapter must be positive")
    backbone.requires_grad_(False)
    for parameter in backbone.parameters():
        parameter.is_released = True  # type: ignore[attr-defined]

    layers = linear_layers(backbone)
    inside = {name: layer for name, layer in layers.items() if name.startswith("blocks.")}
    layers = inside or layers
    if idle := [target for target in targets if not any(name.endswith(target) for name in layers)]:
        known = sorted({re.sub(r"^blocks\.\d+\.", "", name) for name in layers})
        raise ConfigError(
            f"no layer ends with {', '.join(map(repr, idle))}: the layers of a block are {', '.join(known)}"
        )

    for name, layer in layers.items():
        if name.endswith(tuple(targets)) and isinstance(layer, nn.Linear):
            backbone.set_submodule(name, LoRALinear(layer, rank, alpha))
    return backbone


def lora_state(backbone: nn.Module) -> dict[str, Tensor]:
    """The adapters of `backbone` under the names of its first layout, `transformer.LAYER.lora_A.weight`.

    The second matrix includes the scale, so that readers need no alpha, which diffusers would ignore.
    """
    layout = format_of(type(backbone)).layouts(backbone)[0]
    state = {}
    for name, module in linear_layers(backbone).items():
        if isinstance(module, LoRALinear):
            layer = f"transformer.{_name_in(layout, name)}"
            state[f"{layer}.lora_A.weight"] = module.down.detach().cpu().contiguous()
            state[f"{layer}.lora_B.weight"] = (module.scale * module.up.detach()).cpu().contiguous()
    return state


def save_lora(file: Path, backbone: nn.Module) -> None:
    """Write the adapters of `backbone`; see `lora_state`."""
    save_file(lora_state(backbone), file, metadata={"format": "pt"})
