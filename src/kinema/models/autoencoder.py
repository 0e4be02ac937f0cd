"""The interface of the networks between pixels and latents, and the table of all such networks."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kinema.device import Precision
from kinema.models.image_vae import ImageVAE, ImageVAEConfig
from kinema.models.vae import VAE, Posterior, VAEConfig
from kinema.shapes import Float


@runtime_checkable
class AutoencoderConfig(Protocol):
    """Sizes of an autoencoder, a frozen dataclass."""

    def __hash__(self) -> int:
        """Equal sizes have equal hashes."""
        ...

    @property
    def z_dim(self) -> int:
        """Channels of the latents."""
        ...

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, in height and in width."""
        ...

    @property
    def temporal_factor(self) -> int:
        """Frames per latent frame, after the first."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """A module that encodes videos in [-1, 1] and decodes latents: `VAE`, or `ImageVAE` for every frame by
    itself. See `VAE` for the methods."""

    precision: Precision
    """Of the convolutions."""

    @property
    def config(self) -> Any:
        """The sizes, an `AutoencoderConfig`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""
        ...

    def encode(self, video: Float[Tensor, "b 3 f h w"]) -> Posterior:
        """The latents of whole videos."""
        ...

    def decode(self, z: Float[Tensor, "b c lf lh lw"], *, clamp: bool = False) -> Float[Tensor, "b 3 f h w"]:
        """Whole videos."""
        ...

    def stream_encode(self, frames: Iterable[Tensor], *, at_once: int = 16) -> Iterator[Posterior]:
        """The latents of one video that arrives in chunks."""
        ...

    def stream_decode(
        self, latents: Iterable[Tensor], *, at_once: int = 2, clamp: bool = False
    ) -> Iterator[Tensor]:
        """The frames of one video whose latents arrive in chunks."""
        ...

    def normalise(self, z: Float[Tensor, "b c lf lh lw"]) -> Float[Tensor, "b c lf lh lw"]:
        """Latents as a diffusion model takes them."""
        ...

    def denormalise(self, z: Float[Tensor, "b c lf lh lw"]) -> Float[Tensor, "b c lf lh lw"]:
        """The inverse of `normalise`."""
        ...


AUTOENCODERS: dict[type[Any], type[nn.Module]] = {VAEConfig: VAE, ImageVAEConfig: ImageVAE}
"""The network of each class of configurations."""


def new_autoencoder(config: Any) -> Autoencoder:
    """A network of a configuration, with initial weights."""
    network = AUTOENCODERS[type(config)](config)
    assert isinstance(network, Autoencoder), "a network of AUTOENCODERS is an autoencoder"
    return network


@lru_cache
def autoencoder_without_weights(config: Any) -> nn.Module:
    """The network of a configuration on the meta device."""
    with torch.device("meta"):
        return AUTOENCODERS[type(config)](config)
