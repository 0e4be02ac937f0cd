"""The image VAE of latent diffusion (Rombach et al. 2022), for every frame of a video by itself.

Names of tensors are those of diffusers' `AutoencoderKL`, and results are equal. The methods are those of the
video VAE (`kinema.models.vae`), with one frame per latent frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.device import Precision, autocast
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.models.unet_blocks import (
    Context,
    Downsample,
    Level,
    Middle,
    Norm,
    Residual,
    Upsample,
    channels_last,
)
from kinema.models.vae import Posterior
from kinema.nn.attention import Segments, attend_within
from kinema.shapes import Float

EPS = 1e-6
TEMPORAL_FACTOR = 1


@dataclass(frozen=True)
class ImageVAEConfig:
    """Sizes of an image VAE. The defaults are those of Stable Diffusion 1.x and 2.x. Raises `ConfigError`."""

    z_dim: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Width of each level, in the order of the encoder."""
    layers: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    groups: int = 32
    """Groups of the normalisations."""
    scaling_factor: float = 0.18215
    """A diffusion model works on latents times this, after `shift_factor` is subtracted."""
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        if min(self.z_dim, self.layers, self.groups, *self.channels) < 1 or self.scaling_factor <= 0:
            raise ConfigError("z_dim, layers, groups, channels and scaling_factor must be positive")
        if any(d % self.groups for d in self.channels):
            raise ConfigError(f"channels={self.channels} must be multiples of groups={self.groups}")

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position, in height and in width."""
        return 2 ** (len(self.channels) - 1)

    @property
    def temporal_factor(self) -> int:
        """Frames per latent frame: 1."""
        return TEMPORAL_FACTOR


class ImageAttention(nn.Module):
    """Attention of one head over the positions of each image, as a residual."""

    def __init__(self, d: int, groups: int) -> None:
        super().__init__()
        self.group_norm = Norm(groups, d, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(d, d) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(d, d)])

    def forward(self, x: Float[Tensor, "n d h w"], context: Context | None = None) -> Tensor:
        """The images (n, d, h, w)."""
        n, _, h, w = x.shape
        rows = rearrange(self.group_norm(x), "n d h w -> (n h w) d")
        q, k, v = (layer(rows)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        out = attend_within(q, k, v, Segments.of((h * w,) * n, (h * w,) * n, x.device))
        return x + rearrange(self.to_out[0](out[:, 0]), "(n h w) d -> n d h w", n=n, h=h)


def _middle(d: int, groups: int) -> Middle:
    resnets = [Residual(d, d, groups=groups, eps=EPS) for _ in range(2)]
    return Middle(resnets, ImageAttention(d, groups))


def _level(d_in: int, d: int, layers: int, groups: int) -> list[Residual]:
    return [Residual(d if i else d_in, d, groups=groups, eps=EPS) for i in range(layers)]


class ImageEncoder(nn.Module):
    """From pixels to the moments of the posterior."""

    def __init__(self, config: ImageVAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels, config.groups
        inputs, last = (channels[0], *channels), len(channels) - 1
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(_level(inputs[i], d, config.layers, groups), down=Downsample(d, None) if i < last else None)
            for i, d in enumerate(channels)
        )
        self.mid_block = _middle(channels[-1], groups)
        self.conv_norm_out = Norm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.z_dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n z2 lh lw"]:
        """Means and log variances."""
        x = self.conv_in(x)
        for level in cast(list[Level], self.down_blocks):
            for module in (*level.resnets, *level.downsamplers):
                x = module(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class ImageDecoder(nn.Module):
    """From latents to pixels."""

    def __init__(self, config: ImageVAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels[::-1], config.groups
        inputs, last = (channels[0], *channels), len(channels) - 1
        self.conv_in = nn.Conv2d(config.z_dim, channels[0], 3, padding=1)
        self.mid_block = _middle(channels[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(_level(inputs[i], d, config.layers + 1, groups), up=Upsample(d) if i < last else None)
            for i, d in enumerate(channels)
        )
        self.conv_norm_out = Norm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "n z lh lw"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels."""
        x = self.mid_block(self.conv_in(z))
        for level in cast(list[Level], self.up_blocks):
            for module in (*level.resnets, *level.upsamplers):
                x = module(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class ImageVAE(nn.Module):
    """The image VAE. It implements `kinema.models.autoencoder.Autoencoder`."""

    def __init__(self, config: ImageVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = "fp32"
        """Of the convolutions; see `VAE`."""
        self.encoder = ImageEncoder(config)
        self.decoder = ImageDecoder(config)
        self.quant_conv = nn.Conv2d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.z_dim, config.z_dim, 1)

    def encode(self, video: Float[Tensor, "b 3 f h w"]) -> Posterior:
        """The latents of videos in [-1, 1], with gradients. Raises `RequestError` for wrong sizes."""
        factor = self.config.spatial_factor
        height, width = video.shape[3:]
        if height % factor or width % factor:
            nearest = " x ".join(str(max(1, round(size / factor)) * factor) for size in (height, width))
            raise RequestError(
                f"{height} x {width} pixels do not fit the VAE: use multiples of {factor}, e.g. {nearest}"
            )
        with autocast(video.device, self.precision):
            moments = self.quant_conv(self.encoder(_images(video)))
        mean, logvar = _videos(moments.to(video.dtype), len(video)).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, z: Float[Tensor, "b c lf lh lw"], *, clamp: bool = False) -> Float[Tensor, "b 3 f h w"]:
        """Videos, limited to [-1, 1] with `clamp`. Raises `ModelError` for another number of channels."""
        if z.shape[1] != self.config.z_dim:
            raise ModelError(f"latents have {z.shape[1]} channels; this VAE takes {self.config.z_dim}")
        with autocast(z.device, self.precision):
            images = self.decoder(self.post_quant_conv(_images(z)))
        video = _videos(images.to(z.dtype), len(z))
        return video.clamp(-1, 1) if clamp else video

    @torch.no_grad()
    def stream_encode(self, frames: Iterable[Tensor], *, at_once: int = 16) -> Iterator[Posterior]:
        """The latents of one video that arrives in chunks (b, 3, f, h, w), `at_once` frames at a time."""
        for chunk in frames:
            yield from map(self.encode, chunk.split(at_once, dim=2))

    @torch.no_grad()
    def stream_decode(
        self, latents: Iterable[Tensor], *, at_once: int = 2, clamp: bool = False
    ) -> Iterator[Tensor]:
        """The frames of one video whose latents arrive in chunks (b, c, lf, lh, lw), `at_once` latent frames
        at a time."""
        for chunk in latents:
            for z in chunk.split(at_once, dim=2):
                yield self.decode(z, clamp=clamp)

    def normalise(self, z: Float[Tensor, "b c lf lh lw"]) -> Float[Tensor, "b c lf lh lw"]:
        """Latents with a standard deviation of about 1, as a diffusion model takes them."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def denormalise(self, z: Float[Tensor, "b c lf lh lw"]) -> Float[Tensor, "b c lf lh lw"]:
        """Raw latents from normalised ones: the inverse of `normalise`."""
        return z / self.config.scaling_factor + self.config.shift_factor


def _images(video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "bf c h w"]:
    return channels_last(rearrange(video, "b c f h w -> (b f) c h w"))


def _videos(images: Float[Tensor, "bf c h w"], b: int) -> Float[Tensor, "b c f h w"]:
    return rearrange(images, "(b f) c h w -> b c f h w", b=b)
