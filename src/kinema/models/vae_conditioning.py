"""Latents of known frames, at the start of a latent canvas or inside it.

A causal VAE encodes one frame into the first latent and four frames into every later one. Known frames that
do not start the canvas are therefore encoded after a mirrored prefix of themselves, whose latents are
dropped. The remaining latents hold four frames each (lf >= 1) and have a past that moves like the content.
Training encodes its known frames with the same function.
"""

import torch
from torch import Tensor

from kinema.errors import RequestError
from kinema.models.autoencoder import Autoencoder
from kinema.shapes import Float

PREFIX_LATENTS = 2
"""Latents of the mirrored prefix: 1 + 4 frames for a temporal factor of 4."""
MAX_FRAMES_AT_ONCE = 33
"""A longer clip is encoded as a stream, so that memory does not grow with its length."""


def encode_conditioning(
    vae: Autoencoder, video: Float[Tensor, "b c f h w"], *, starts_canvas: bool
) -> Float[Tensor, "b z lf lh lw"]:
    """Normalised latents (posterior means) of known frames in [-1, 1].

    At the start of a canvas f must be 4k+1, which gives k+1 latents. Elsewhere f must be 4k, which gives k
    latents. Raises `RequestError` for other lengths.
    """
    factor = vae.config.temporal_factor
    num_frames = video.shape[2]

    if starts_canvas:
        if (num_frames - 1) % factor:
            raise RequestError(f"{num_frames} known frames cannot start a canvas: use {factor}k+1")
        return _encode(vae, video)

    if num_frames % factor or num_frames == 0:
        raise RequestError(
            f"{num_frames} known frames do not fit inside a canvas: use a multiple of {factor}"
        )
    prefix = video[:, :, mirrored(num_frames, 1 + (PREFIX_LATENTS - 1) * factor)]
    return _encode(vae, torch.cat([prefix, video], dim=2))[:, :, PREFIX_LATENTS:]


def _encode(vae: Autoencoder, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b z lf lh lw"]:
    if video.shape[2] <= MAX_FRAMES_AT_ONCE:
        return vae.normalise(vae.encode(video).mean)
    return vae.normalise(torch.cat([posterior.mean for posterior in vae.stream_encode([video])], dim=2))


def mirrored(num_frames: int, length: int) -> list[int]:
    """Indices of the `length` frames before frame 0 of a clip that is reflected at both ends: ..., 2, 1."""
    if num_frames < 2:
        return [0] * length

    period = 2 * (num_frames - 1)
    return [min(i % period, period - i % period) for i in range(length, 0, -1)]
