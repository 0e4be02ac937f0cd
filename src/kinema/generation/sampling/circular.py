"""Seamless loops: latents in a circle, without a first and a last frame.

A loop of 4k frames is a circle of k latent frames behind one discarded latent frame, because a video that the
model knows begins with an image latent. At every call of the network the circle is rotated by another offset,
so that no position is always the seam. A circle longer than the model was trained with is estimated in
overlapping segments, which are averaged (as MultiDiffusion does in space: Bar-Tal et al. 2023). The decoder
is causal: it decodes whole cycles until its output repeats.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from kinema.diffusion.canvas import Network
from kinema.models.autoencoder import Autoencoder
from kinema.models.pixels import to_uint8
from kinema.shapes import Float

MAX_CYCLES = 6
"""Cycles after which the decoder's output counts as settled: its receptive field is a few latent frames."""
GOLDEN_RATIO = 0.6180339887


def circular_network(network: Network, segment: int, offset_at: Callable[[Tensor], int]) -> Network:
    """`network` for latents (b, c, 1 + k, lh, lw): a discarded latent frame and a circle of k, at most
    `segment` of them per call.

    `offset_at` maps the highest of the times to the position of the circle at which the first segment begins.
    """

    def estimate(x: Tensor, times: Tensor) -> Tensor:
        k = x.shape[2] - 1
        size = min(segment, k)
        num_segments = 1 if size == k else -(-k // max(1, size // 2))
        total, count = torch.zeros_like(x), torch.zeros(x.shape[2], device=x.device)
        for index in range(num_segments):
            begin = offset_at(times.max()) + index * k // num_segments
            frames = torch.tensor([0, *(1 + (begin + i) % k for i in range(size))], device=x.device)
            total.index_add_(2, frames, network(x[:, :, frames], times[:, :, frames]))
            count.index_add_(0, frames, torch.ones_like(frames, dtype=count.dtype))
        return total / count.view(1, 1, -1, 1, 1)

    return estimate


def roll_offsets(times: Float[Tensor, "u"], k: int) -> Callable[[Tensor], int]:
    """A position of the circle for each of a sampler's times, in golden-ratio steps: they cover it evenly."""
    known = times.tolist()

    def offset_at(t: Tensor) -> int:
        index = min(range(len(known)), key=lambda i: abs(known[i] - float(t)))
        return int(index * GOLDEN_RATIO * k) % k

    return offset_at


def decode_loop(
    vae: Autoencoder, latents: Float[Tensor, "c lf lh lw"], at_once: int
) -> Iterator[tuple[Tensor, bool]]:
    """Pixels (1, 3, f, h, w) of the loop in `latents`, chunk by chunk, each with whether it belongs to the
    result.

    The result is the first cycle that equals the cycle before it, so that its end continues into its
    beginning.
    """
    z = vae.denormalise(latents.unsqueeze(0))
    circle, size = z[:, :, 1:], latents.shape[1] - 1

    def endless() -> Iterator[Tensor]:
        yield z[:, :, :1]
        while True:
            yield circle

    chunks = vae.stream_decode(endless(), at_once=at_once)
    yield next(chunks), False

    previous: list[np.ndarray] = []
    cycle: list[Tensor] = []
    for _ in range(MAX_CYCLES):
        cycle, current, num_decoded = [], [], 0
        while num_decoded < size:
            chunk = next(chunks)
            num_decoded += chunk.shape[2] // vae.config.temporal_factor
            cycle.append(chunk)
            current.append(to_uint8(chunk[0]))
            yield chunk, False
        if previous and all(np.array_equal(a, b) for a, b in zip(previous, current)):
            break
        previous = current
    yield from ((chunk, True) for chunk in cycle)
