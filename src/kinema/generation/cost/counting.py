"""Operations and memory of networks, counted by running them on fake tensors: shapes without contents."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from kinema.checkpoints.components import with_weights
from kinema.device import CPU, Precision, autocast
from kinema.generation.sampling.picture_channels import PIECE_FRAMES
from kinema.models.autoencoder import AutoencoderConfig, new_autoencoder
from kinema.models.backbone import Backbone, entry_of
from kinema.models.vae import VAE
from kinema.nn.causal_conv import FeatureCache

PROMPT_TOKENS = 128
"""Assumed text tokens of a prompt; about the length of Wan's negative prompt."""
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *options, **more: sdpa_flop_count(q, k, v)
    )
}
"""The FLOPs of an operator that PyTorch does not count."""


@dataclass(frozen=True)
class BackboneTrace:
    """What one forward pass takes: operations per clip, and memory beside weights and text."""

    flops: float
    peak_bytes: int
    prepared_bytes: int
    """Memory of one prepared prompt of `PROMPT_TOKENS` tokens."""


def backbone_flops(config: Any, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> float:
    """FLOPs (2 per multiply-add) of a forward pass on a latent grid (lf, lh, lw), with a prepared prompt."""
    return _of_all_blocks(config, lambda config: _trace(config, grid, dtype, 1).flops)


def backbone_peak_bytes(
    config: Any, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32, batch: int = 1
) -> int:
    """Peak memory of one forward pass of `batch` clips, without weights and text."""
    return _trace(entry_of(config).with_blocks(config, 1), grid, dtype, batch).peak_bytes


def prepared_bytes(config: Any, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> int:
    """Memory of one prepared prompt, and of an image if the backbone takes one."""
    return int(_of_all_blocks(config, lambda config: _trace(config, grid, dtype, 1).prepared_bytes))


def _of_all_blocks(config: Any, count: Callable[[Any], float]) -> float:
    """`count` of a backbone whose blocks are equal, from its values for one and for two blocks."""
    entry = entry_of(config)
    one, two = (count(entry.with_blocks(config, number)) for number in (1, 2))
    return one + (entry.num_blocks(config) - 1) * (two - one)


@lru_cache
def _trace(config: Any, grid: tuple[int, int, int], dtype: torch.dtype, batch: int) -> BackboneTrace:
    entry = entry_of(config)
    precision: Precision = "fp32" if dtype == torch.float32 else "bf16"
    with _fake_tensors(), torch.no_grad(), autocast(CPU, precision):
        network = entry.network(config)
        backbone = with_weights(network, network.state_dict(), None, dtype)
        assert isinstance(backbone, Backbone), "a network of BACKBONES is a backbone"
        conditioning = entry.example(config, batch, min(PROMPT_TOKENS, config.text_length), grid[0])
        weights = list(network.state_dict().values())
        with PeakMemory(weights) as kept:
            prepared = backbone.prepare(conditioning)
        x, t = torch.empty(batch, backbone.in_channels, *grid), torch.empty(batch)
        with (
            PeakMemory(weights) as peak,
            FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter,
        ):
            backbone.predict(x, t, prepared)
    return BackboneTrace(counter.get_total_flops() / batch, peak.max_bytes, kept.bytes // batch)


def training_bytes(config: Any, grid: tuple[int, int, int], *, activation_checkpointing: bool) -> float:
    """Peak memory of a training step in bfloat16 for one clip on a latent grid (lf, lh, lw): activations that
    the gradient needs, and the working memory of one block with its gradients. Weights do not count."""
    entry = entry_of(config)
    one, two = (
        _training_trace(entry.with_blocks(config, number), grid, activation_checkpointing)
        for number in (1, 2)
    )
    return one.peak_bytes + (entry.num_blocks(config) - 1) * (two.kept_bytes - one.kept_bytes)


@dataclass(frozen=True)
class TrainingTrace:
    """Memory of a training step beside weights: what is kept for the gradient, and the peak."""

    kept_bytes: int
    peak_bytes: int


@lru_cache
def _training_trace(config: Any, grid: tuple[int, int, int], activation_checkpointing: bool) -> TrainingTrace:
    entry = entry_of(config)
    with _fake_tensors(), autocast(CPU, "bf16"):
        network = entry.network(config)
        backbone = with_weights(network, network.state_dict(), None, torch.bfloat16).requires_grad_(True)
        assert isinstance(backbone, Backbone), "a network of BACKBONES is a backbone"
        backbone.activation_checkpointing = activation_checkpointing  # type: ignore[assignment]
        conditioning = entry.example(config, 1, min(PROMPT_TOKENS, config.text_length), grid[0])
        x, t = torch.empty(1, backbone.in_channels, *grid), torch.empty(1)
        with PeakMemory(backbone.state_dict().values()) as peak:
            prediction = backbone.predict(x, t, conditioning)
            kept = peak.bytes
            prediction.float().square().mean().backward()
    return TrainingTrace(kept, peak.max_bytes)


def decode_cost(config: AutoencoderConfig, grid: tuple[int, int, int], at_once: int = 2) -> tuple[float, int]:
    """FLOPs and peak memory of streaming decoding, without weights and the resulting uint8 frames.

    `grid` is (lf, lh, lw), `at_once` the latent frames per piece. At most two whole pieces are run; the FLOPs
    of the rest are extrapolated from the last.
    """
    lf, lh, lw = grid
    whole = min(2, (lf - 1) // at_once)
    pieces = [1] + [at_once] * whole
    if not whole and lf > 1:
        pieces.append(lf - 1)
    flops, peak = _decoded(config, tuple(pieces), lh, lw)
    rest = lf - sum(pieces)
    return sum(flops) + flops[-1] * rest / pieces[-1], peak


@lru_cache
def _decoded(config: AutoencoderConfig, pieces: tuple[int, ...], lh: int, lw: int) -> tuple[list[float], int]:
    """FLOPs of decoding each piece of latent frames, and the peak memory."""
    cache = FeatureCache()
    flops = []
    with _fake_tensors(), torch.no_grad():
        vae = new_autoencoder(config)
        with PeakMemory() as peak:
            for size in pieces:
                with FlopCounterMode(display=False) as counter:
                    z = torch.empty(1, config.z_dim, size, lh, lw)
                    _ = vae._decode(z, cache) if isinstance(vae, VAE) else vae.decode(z)
                cache.is_first = False
                flops.append(float(counter.get_total_flops()))
    return flops, peak.max_bytes


@lru_cache
def encode_cost(
    config: AutoencoderConfig, width: int, height: int, frames: int, at_once: int = PIECE_FRAMES
) -> tuple[float, int]:
    """FLOPs and peak memory of streaming encoding, without weights; extrapolated for a long video."""
    shown = min(frames, 1 + config.temporal_factor + 2 * at_once)
    with _fake_tensors(), torch.no_grad():
        vae = new_autoencoder(config)
        pieces = (
            torch.empty(1, 3, min(at_once, shown - start), height, width)
            for start in range(0, shown, at_once)
        )
        with PeakMemory() as peak, FlopCounterMode(display=False) as counter:
            means = [posterior.mean for posterior in vae.stream_encode(pieces, at_once=at_once)]
    assert means, "a video has frames"
    return counter.get_total_flops() * frames / shown, peak.max_bytes


class PeakMemory(TorchDispatchMode):
    """Counts bytes of tensors created in it; `max_bytes` is the peak. Views of `ignored` do not count."""

    def __init__(self, ignored: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.bytes = self.max_bytes = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in ignored}

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
        self.max_bytes = max(self.max_bytes, self.bytes)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


@contextmanager
def _fake_tensors() -> Iterator[None]:
    """Tensors created inside have shapes but no contents, and kernels do nothing."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
