"""Noise that belongs to a place: a latent frame's noise depends on what it is for, not on how the work was cut up."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from kinema.shapes import Float

START = "start"  # what an unknown token is before the first step, and what a known one is mixed with
STEP = "step"  # what a stochastic sampler adds between steps


def place_noise(
    seed: int, stream: str, frames: Sequence[int], shape: tuple[int, int, int], step: int = 0
) -> Float[Tensor, "c lf lh lw"]:
    """Standard normal noise in float32 on the CPU for the latent frames `frames`; `shape` is (c, lh, lw).

    Frame i is drawn from (seed, stream, i, step) alone, so that a window, a batch or a rank that draws its own frames gets
    the bytes that one draw of everything would have given them. The key is 128 bits wide: torch's CPU generator keeps
    only the low 32 bits of its seed, in which a hash of four numbers would collide within a few thousand requests.
    """
    if not len(frames):
        return torch.empty(shape[0], 0, *shape[1:])
    drawn = [
        _generator(seed, stream, frame, step).standard_normal(shape, dtype=np.float32) for frame in frames
    ]
    return torch.from_numpy(np.stack(drawn, axis=1))


def _generator(seed: int, stream: str, frame: int, step: int) -> np.random.Generator:
    """The counter-based generator (Philox, Salmon et al. 2011) of one place."""
    key = blake2b(f"{stream}/{seed}/{frame}/{step}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
