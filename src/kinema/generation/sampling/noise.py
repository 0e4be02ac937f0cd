"""Noise that belongs to a latent position, however the work is divided into windows, batches or ranks."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from kinema.shapes import Float

START = "start"  # the stream for unknown tokens before the first step, with which known tokens are mixed
STEP = "step"  # the stream for the noise that a stochastic sampler adds between steps


def latent_noise(
    seed: int, stream: str, frames: Sequence[int], shape: tuple[int, int, int], step: int = 0
) -> Float[Tensor, "c lf lh lw"]:
    """Standard normal noise in float32 on the CPU for the latent frames `frames`. `shape` is (c, lh, lw).

    Latent frame i is drawn from (seed, stream, i, step) alone, so a window, a batch or a rank that draws its
    own frames gets the same bytes as one draw for all. The key has 128 bits: torch's CPU generator keeps only
    the low 32 bits of its seed, in which a hash of four numbers would collide within a few thousand requests.
    """
    if not len(frames):
        return torch.empty(shape[0], 0, *shape[1:])
    drawn = [
        _generator(seed, stream, frame, step).standard_normal(shape, dtype=np.float32) for frame in frames
    ]
    return torch.from_numpy(np.stack(drawn, axis=1))


def _generator(seed: int, stream: str, frame: int, step: int) -> np.random.Generator:
    """The counter-based generator (Philox, Salmon et al. 2011) of one latent frame and step."""
    key = blake2b(f"{stream}/{seed}/{frame}/{step}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
