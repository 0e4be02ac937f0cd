"""Latents of known pixels, wherever on the canvas they stand.

A causal VAE gives the first latent one frame and every later one four. Known content that does not begin the canvas therefore is
encoded behind a mirrored prefix of itself, whose latents are dropped: what remains are latents of lf >= 1, four frames each, made
with a past that moves as the content does. Training encodes known content by this same function.
"""

import torch
from torch import Tensor

from kinema.errors import RequestError
from kinema.models.vae import VAE
from kinema.shapes import Float

PREFIX_LATENTS = 2
"""Latents of the mirrored prefix: 1 + 4 frames for a temporal factor of 4."""
AT_ONCE = 33
"""More known frames than these are encoded as a stream, so that memory does not grow with the length of a clip."""


def encode_conditioning(
    vae: VAE, video: Float[Tensor, "b c f h w"], *, starts_canvas: bool
) -> Float[Tensor, "b z lf lh lw"]:
    """Normalised latents (posterior means) of known frames in [-1, 1].

    At the start of a canvas f must be 4k+1 and gives k+1 latents; elsewhere it must be 4k and gives k. Raises `RequestError` otherwise.
    """
    factor = vae.config.temporal_factor
    num_frames = video.shape[2]
    if starts_canvas:
        if num_frames % factor != 1 % factor:
            raise RequestError(f"{num_frames} known frames cannot start a canvas: use {factor}k+1")
        return _encode(vae, video)
    if num_frames % factor or num_frames == 0:
        raise RequestError(
            f"{num_frames} known frames cannot stand inside a canvas: use a multiple of {factor}"
        )
    prefix = video[:, :, mirrored(num_frames, 1 + (PREFIX_LATENTS - 1) * factor)]
    return _encode(vae, torch.cat([prefix, video], dim=2))[:, :, PREFIX_LATENTS:]


def _encode(vae: VAE, video: Tensor) -> Tensor:
    if video.shape[2] <= AT_ONCE:
        return vae.normalise(vae.encode(video).mean)
    return vae.normalise(torch.cat([posterior.mean for posterior in vae.stream_encode([video])], dim=2))


def mirrored(num_frames: int, length: int) -> list[int]:
    """Indices of the `length` frames before frame 0 of a clip that is reflected at its ends: ..., 2, 1 for a long one."""
    period = max(1, 2 * (num_frames - 1))
    return [
        min(place % period, period - place % period) if num_frames > 1 else 0
        for place in range(length, 0, -1)
    ]
