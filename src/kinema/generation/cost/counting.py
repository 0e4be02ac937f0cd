"""Operations and memory of networks, counted by running them on fake tensors, which have shapes but no
contents.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kinema.checkpoints.components import with_weights
from kinema.generation.sampling.picture_channels import PIECE_FRAMES
from kinema.models.conditioning import TextStates
from kinema.models.dit import DiT, DiTConfig, apply_to_grid
from kinema.models.vae import VAE, VAEConfig
from kinema.nn.causal_conv import FeatureCache

PROMPT_TOKENS = 128
"""Assumed text tokens of a prompt; about the length of Wan's negative prompt."""
IMAGE_TOKENS = 257
"""Hidden states of one image: a ViT with 16x16 patches and the class token."""


def dit_flops(config: DiTConfig, tokens: int) -> float:
    """FLOPs (two per multiply-add) of one forward pass of one clip; the keys and values of the text are
    cached.
    """
    d, text = config.d, config.text_length + (0 if config.image_dim is None else IMAGE_TOKENS)
    linear = (
        2.0 * tokens * (6 * d * d + 2 * d * config.ffn_dim)
    )  # q, k, v, o of self-attention, q and o of cross-attention, the MLP
    attention = 4.0 * tokens * d * (tokens + text)
    edges = 2.0 * tokens * d * (config.token_in + config.token_out)
    return config.num_layers * (linear + attention) + edges


def keys_bytes(config: DiTConfig, dtype: torch.dtype) -> int:
    """Memory of the cross-attention keys and values of one prompt of `PROMPT_TOKENS` tokens, and of an image
    if the DiT takes one.
    """
    rows = PROMPT_TOKENS + (0 if config.image_dim is None else config.image_positions or IMAGE_TOKENS)
    return 2 * config.num_layers * rows * config.d * dtype.itemsize


@lru_cache
def dit_peak_bytes(
    config: DiTConfig, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32, batch: int = 1
) -> int:
    """Peak memory of one forward pass of `batch` clips on a latent grid (lf, lh, lw), without weights and
    text.
    """
    with _fake_tensors(), torch.no_grad():
        dit = DiT(replace(config, num_layers=1))
        dit = with_weights(dit, dit.state_dict(), None, dtype)
        states = TextStates(torch.empty(batch * 8, config.text_dim, dtype=dtype), (8,) * batch)
        images = (
            None
            if config.image_dim is None
            else TextStates(
                torch.empty(batch * IMAGE_TOKENS, config.image_dim, dtype=dtype), (IMAGE_TOKENS,) * batch
            )
        )
        if config.image_positions is not None:
            images = TextStates(
                torch.empty(batch * config.image_positions, config.image_dim or 1),
                (config.image_positions,) * batch,
            )
        text = dit.prepare_text(states, images)
        x, t = torch.empty(batch, config.in_channels, *grid), torch.empty(batch)
        with PeakMemory() as peak:
            apply_to_grid(dit, x, t, text)
    return peak.max_bytes


def decode_cost(config: VAEConfig, grid: tuple[int, int, int], at_once: int = 2) -> tuple[float, int]:
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
def _decoded(config: VAEConfig, pieces: tuple[int, ...], lh: int, lw: int) -> tuple[list[float], int]:
    """FLOPs of decoding each piece of latent frames, and the peak memory."""
    cache = FeatureCache()
    flops = []
    with _fake_tensors(), torch.no_grad():
        vae = VAE(config)
        with PeakMemory() as peak:
            for size in pieces:
                with FlopCounterMode(display=False) as counter:
                    vae._decode(torch.empty(1, config.z_dim, size, lh, lw), cache)
                cache.is_first = False
                flops.append(float(counter.get_total_flops()))
    return flops, peak.max_bytes


@lru_cache
def encode_cost(
    config: VAEConfig, width: int, height: int, frames: int, at_once: int = PIECE_FRAMES
) -> tuple[float, int]:
    """FLOPs and peak memory of streaming encoding, without weights; the FLOPs of a long video are
    extrapolated.
    """
    shown = min(frames, 1 + config.temporal_factor + 2 * at_once)
    with _fake_tensors(), torch.no_grad():
        vae = VAE(config)
        pieces = (
            torch.empty(1, 3, min(at_once, shown - start), height, width)
            for start in range(0, shown, at_once)
        )
        with PeakMemory() as peak, FlopCounterMode(display=False) as counter:
            means = [posterior.mean for posterior in vae.stream_encode(pieces, at_once=at_once)]
    assert means, "a video has frames"
    return counter.get_total_flops() * frames / shown, peak.max_bytes


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors created inside the context; `max_bytes` is the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.max_bytes = 0
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
