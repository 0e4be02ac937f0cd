"""True loops: a cycle of latents without a first and a last.

A loop of 4k frames is k latents in a ring, with one throw-away latent in front of them, because a video that the model knows begins
with the latent of one frame. At every call of the network the ring is rolled to another place, so that no place of it is the seam; a
ring longer than the model was trained with is seen in overlapping arcs, whose estimates are averaged (as MultiDiffusion does in
space: Bar-Tal et al. 2023). The decoder is causal: it is warmed with whole turns until it repeats itself.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from kinema.diffusion.canvas import Network
from kinema.models.pixels import to_uint8
from kinema.models.vae import VAE
from kinema.shapes import Float

MOST_TURNS = 6
"""Turns after which the decoder counts as warm whatever it gives: its memory is a few latents."""


def on_ring(network: Network, arc: int, roll_at: Callable[[Tensor], int]) -> Network:
    """`network` for latents (b, c, 1 + k, lh, lw), a throw-away one and a ring of k, of which it sees at most `arc` at a time.

    `roll_at` says from the greatest of the times at which place of the ring the first arc begins.
    """

    def estimate(x: Tensor, times: Tensor) -> Tensor:
        k = x.shape[2] - 1
        size = min(arc, k)
        num_arcs = 1 if size == k else -(-k // max(1, size // 2))
        total, count = torch.zeros_like(x), torch.zeros(x.shape[2], device=x.device)
        for index in range(num_arcs):
            begin = roll_at(times.max()) + index * k // num_arcs
            places = torch.tensor([0, *(1 + (begin + i) % k for i in range(size))], device=x.device)
            total.index_add_(2, places, network(x[:, :, places], times[:, :, places]))
            count.index_add_(0, places, torch.ones_like(places, dtype=count.dtype))
        return total / count.view(1, 1, -1, 1, 1)

    return estimate


def rolls(times: Float[Tensor, "u"], k: int) -> Callable[[Tensor], int]:
    """A place of the ring for every time of a sampler, by golden-ratio steps, which cover a ring of any length evenly."""
    known = times.tolist()

    def roll_at(t: Tensor) -> int:
        index = min(range(len(known)), key=lambda i: abs(known[i] - float(t)))
        return int(index * 0.6180339887 * k) % k

    return roll_at


def decode_cycle(
    vae: VAE, latents: Float[Tensor, "c lf lh lw"], at_once: int
) -> Iterator[tuple[Tensor, bool]]:
    """Pixels (1, 3, f, h, w) of the ring in `latents`, piece by piece, each with whether it belongs to the turn that counts.

    That turn is one that equals the turn before it, so that its end runs on into its beginning.
    """
    z = vae.denormalise(latents.unsqueeze(0))
    turn, size = z[:, :, 1:], latents.shape[1] - 1

    def endless() -> Iterator[Tensor]:
        yield z[:, :, :1]
        while True:
            yield turn

    pieces = vae.stream_decode(endless(), at_once=at_once)
    yield next(pieces), False
    before: list[np.ndarray] = []
    for _ in range(MOST_TURNS):
        now, whole, done = [], [], 0
        while done < size:
            piece = next(pieces)
            done += piece.shape[2] // vae.config.temporal_factor
            whole.append(piece)
            now.append(to_uint8(piece[0]))
            yield piece, False
        if before and all(np.array_equal(a, b) for a, b in zip(before, now)):
            break
        before = now
    yield from ((piece, True) for piece in whole)
