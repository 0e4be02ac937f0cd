"""What a generation will take before anything is loaded: tokens, operations, memory of every stage, and time at a stated utilisation.

Memory is counted and not guessed: the networks run once on tensors without contents, and what is alive at a time is added up.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kinema.errors import ConfigError
from kinema.models.dit import DiT, DiTConfig, apply_to_grid
from kinema.models.text import TextStates
from kinema.models.vae import VAE, VAES, VAEConfig
from kinema.models.weights import with_weights
from kinema.nn.causal_conv import FeatureCache

UMT5_XXL = (5_680_910_336, 256_384 * 4096)
"""Numbers in the encoder of UMT5-XXL, and those of them that are the table of words."""
TOWER = 630_766_080
"""Numbers in the image tower of Wan 2.1, CLIP ViT-H/14 without its projection."""


@dataclass(frozen=True)
class Sizes:
    """What a plan needs to know of a model."""

    dit: DiTConfig
    vae: VAEConfig
    variant: str
    num_experts: int = 1


def _wan(d: int, heads: int, ffn_dim: int, layers: int, z: int = 16, beside: int = 0, image_dim: int | None = None) -> DiTConfig:
    sizes = {"d": d, "num_heads": heads, "ffn_dim": ffn_dim, "num_layers": layers, "image_dim": image_dim}
    return DiTConfig(in_channels=z + beside, out_channels=z, text_dim=4096, text_padding="zeros", **sizes)  # type: ignore[arg-type]


_14B = (5120, 40, 13824, 40)
MODELS = {
    "wan-2.1-1.3b": Sizes(_wan(1536, 12, 8960, 30), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-14b": Sizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-i2v-14b": Sizes(_wan(*_14B, beside=20, image_dim=1280), VAES["wan-2.1"], "wan-2.1-i2v"),
    "wan-2.2-t2v-a14b": Sizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.2-t2v-a14b", 2),
    "wan-2.2-i2v-a14b": Sizes(_wan(*_14B, beside=20), VAES["wan-2.1"], "wan-2.2-i2v-a14b", 2),
    "wan-2.2-5b": Sizes(_wan(3072, 24, 14336, 30, z=48), VAES["wan-2.2"], "wan-2.2-ti2v-5b"),
}
"""The published models (Wan Team 2025, and the configurations of the Wan 2.2 code)."""

IMAGES = {
    "sd": ("Stable Diffusion 1.5, 512x512", 0.803e12, 50),
    "sdxl": ("SDXL, 1024x1024", 6.761e12, 50),
}
"""Image models to compare with: name, operations of one forward pass of the UNet (bench/image_models.py counts them), steps."""


@dataclass(frozen=True)
class Stage:
    """One stage of a generation: operations, and the most memory at a time, of weights and of what is computed."""

    name: str
    flops: float
    weights_bytes: int
    activations_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Most memory at a time."""
        return self.weights_bytes + self.activations_bytes


@dataclass(frozen=True)
class Estimate:
    """A plan: what is generated, and its stages in order."""

    frames: int
    grid: tuple[int, int, int]
    """Size (lf, lh, lw) of the latents."""
    tokens: int
    forwards: int
    """Forward passes of the backbone."""
    stages: tuple[Stage, ...]

    @property
    def flops(self) -> float:
        """Operations in all."""
        return sum(stage.flops for stage in self.stages)

    @property
    def peak_bytes(self) -> int:
        """Most memory at a time when a stage's weights are there only during the stage."""
        return max(stage.peak_bytes for stage in self.stages)


def estimate(sizes: Sizes, *, width: int, height: int, frames: int, steps: int, guided: bool = True, bytes_each: int = 2) -> Estimate:
    """What a video takes with matrices of `bytes_each` bytes a number and a float32 VAE. Raises `ConfigError` for sizes that do not fit."""
    space, pace = sizes.vae.spatial_factor, sizes.vae.temporal_factor
    multiple = space * max(sizes.dit.patch[1:])
    if width % multiple or height % multiple:
        near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in (width, height))
        raise ConfigError(f"{width}x{height} pixels do not fit the model: use multiples of {multiple}, e.g. {near}")
    if frames % pace != 1 % pace:
        raise ConfigError(f"{frames} frames do not fit the model: use {pace}k+1, e.g. {frames // pace * pace + 1}")
    grid = ((frames - 1) // pace + 1, height // space, width // space)
    tokens = prod(grid) // prod(sizes.dit.patch)
    forwards = steps * (2 if guided else 1)
    with torch.device("meta"):
        dit_weights = bytes_each * sum(p.numel() for p in DiT(sizes.dit).parameters())
        vae_weights = 4 * sum(p.numel() for p in VAE(sizes.vae).parameters())
    total, table = UMT5_XXL
    text_tokens = sizes.dit.text_length
    text = Stage(
        "text encoder", 2 * 2.0 * (total - table) * text_tokens, bytes_each * total, bytes_each * text_tokens * 40 * sizes.dit.text_dim
    )
    dtype = {2: torch.bfloat16, 4: torch.float32}[bytes_each]
    per_step = dit_flops(sizes.dit, tokens) * forwards
    sample = Stage("sampling", per_step, dit_weights * sizes.num_experts, dit_peak_bytes(sizes.dit, grid, dtype))
    flops, peak = decode_cost(sizes.vae, grid)
    return Estimate(frames, grid, tokens, forwards, (text, sample, Stage("decoding", flops, vae_weights, peak)))


def dit_flops(config: DiTConfig, tokens: int) -> float:
    """Operations (two for a product and its sum) of one forward pass of one clip, the text's keys and values being there already."""
    d, text = config.d, config.text_length + (0 if config.image_dim is None else 257)
    linear = 2.0 * tokens * (6 * d * d + 2 * d * config.ffn_dim)  # q, k, v, o of self-attention, q and o of cross-attention, the MLP
    attention = 4.0 * tokens * d * (tokens + text)
    edges = 2.0 * tokens * d * (config.token_in + config.token_out)
    return config.num_layers * (linear + attention) + edges


def dit_peak_bytes(config: DiTConfig, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32, batch: int = 1) -> int:
    """Most memory above the weights while the backbone looks at `batch` clips once, its text prepared, counted on empty tensors."""
    with _without_contents(), torch.no_grad():
        dit = DiT(replace(config, num_layers=1))
        dit = with_weights(dit, dit.state_dict(), None, dtype)
        states = TextStates(torch.empty(batch * 8, config.text_dim, dtype=dtype), (8,) * batch)
        images = None if config.image_dim is None else TextStates(torch.empty(batch * 257, config.image_dim, dtype=dtype), (257,) * batch)
        if config.image_positions is not None:
            images = TextStates(torch.empty(batch * config.image_positions, config.image_dim or 1), (config.image_positions,) * batch)
        text = dit.prepare_text(states, images)
        x, t = torch.empty(batch, config.in_channels, *grid), torch.empty(batch)
        with Peak() as peak:
            apply_to_grid(dit, x, t, text)
    keys = 2 * config.num_layers * config.text_length * config.d * batch * dtype.itemsize
    return peak.most_bytes + keys


def decode_cost(config: VAEConfig, grid: tuple[int, int, int], at_once: int = 2) -> tuple[float, int]:
    """Operations of decoding, and most memory above the weights while it streams, without the uint8 frames that it leaves."""
    lf, lh, lw = grid
    cache = FeatureCache()
    flops = 0.0
    with _without_contents(), torch.no_grad():
        vae = VAE(config)
        with Peak() as peak:
            pieces = [1] + [at_once] * min(2, max(0, lf - 1) // at_once)
            for i, size in enumerate(pieces):
                with FlopCounterMode(display=False) as counter:
                    vae._decode(torch.empty(1, config.z_dim, size, lh, lw), cache)
                cache.is_first = False
                last = counter.get_total_flops()
                flops += last if i < 2 else 0
            if len(pieces) > 2:
                flops += last * ((lf - 1) / at_once - 1)
    return flops, peak.most_bytes


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is entered, and the most that were alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.bytes += size
        self.most_bytes = max(self.most_bytes, self.bytes)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


@contextmanager
def _without_contents() -> Iterator[None]:
    """Tensors that are made inside have sizes and no contents, and kernels do nothing."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def advice(sizes: Sizes, plan: Estimate, memory_bytes: float) -> list[str]:
    """What to change when `plan` does not fit into `memory_bytes`; empty when it does."""
    lines = []
    for stage in plan.stages:
        if stage.peak_bytes <= memory_bytes:
            continue
        need = f"{stage.name} needs {stage.peak_bytes / 2**30:.1f} GiB"
        if stage.weights_bytes > memory_bytes:
            if stage.name == "sampling" and sizes.num_experts == 2 and stage.peak_bytes - stage.weights_bytes / 2 <= memory_bytes:
                lines.append(f"{need}: keep one expert on the device at a time")
            else:
                lines.append(f"{need}, of which {stage.weights_bytes / 2**30:.1f} are weights: run it on the host, or take a smaller model")
        else:
            share = (memory_bytes - stage.weights_bytes) / stage.activations_bytes
            lines.append(f"{need}: ask for about {100 * share:.0f} % of the pixels (a smaller size or fewer frames)")
    return lines


def compared(plan: Estimate, names: Sequence[str]) -> list[str]:
    """One line for each image model: how many times its work the video is."""
    from kinema.lookup import lookup

    lines = []
    for name in names:
        title, flops, steps = lookup(IMAGES, name, kind="image model")
        whole = 2 * steps * flops
        lines.append(f"{title}: {whole / 1e12:.0f} TFLOP in {steps} guided steps; the video is {plan.flops / whole:.0f} times as much")
    return lines
