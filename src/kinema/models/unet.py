"""The U-Net of latent diffusion (Rombach et al. 2022): Stable Diffusion 1.x, 2.x, XL, its refiner and unCLIP.

- Levels of residual blocks and transformers, the way down, the middle, and the way up, which receives every
  result of the way down.
- Text enters by cross-attention. Vectors are added to the time embedding: in SDXL the pooled text and the
  sinusoids of size and crop, in unCLIP the embedding of an image.
- It is a network for images: the latent frames of a clip are separate images with one prompt and one time.
- Names of tensors are those of diffusers' `UNet2DConditionModel`, and predictions are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import Conditioning, TextStates, predict_each
from kinema.models.unet_blocks import (
    Context,
    Downsample,
    KeysValues,
    Level,
    Middle,
    Norm,
    Residual,
    TimeEmbedding,
    Transformer,
    TransformerBlock,
    Upsample,
    channels_last,
    timesteps,
)
from kinema.nn.embeddings import sinusoid
from kinema.nn.parameters import keep_float32
from kinema.shapes import Float


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net. The defaults are a small model. Raises `ConfigError` for sizes that do not fit.

    Stable Diffusion 1.5 has channels 320, 640, 1280, 1280, layers=2, depths 1, 1, 1, 0 and 8 heads.
    """

    in_channels: int = 4
    out_channels: int = 4
    text_dim: int = 256
    text_length: int = 77
    channels: tuple[int, ...] = (64, 128)
    """Width of each level."""
    layers: int = 1
    """Residual blocks of a level on the way down; the way up has one more."""
    depths: tuple[int, ...] = (1, 1)
    """Transformer blocks after each residual block of a level. 0: none."""
    middle_depth: int = 1
    heads: tuple[int, ...] = (2, 4)
    """Attention heads of each level."""
    groups: int = 32
    """Groups of the normalisations."""
    linear_projection: bool = True
    """Whether files store the projections of the transformers as matrices; else as 1x1 convolutions."""
    added_dim: int | None = None
    """Width of the pooled text and the sinusoids of the numbers in `Conditioning.vectors` together (SDXL)."""
    number_dim: int = 256
    """Width of the sinusoid of one such number."""
    class_dim: int | None = None
    """Width of `Conditioning.vectors` where they enter by themselves (unCLIP)."""

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if not levels or len(self.depths) != levels or len(self.heads) != levels:
            raise ConfigError(
                f"channels={self.channels}, depths={self.depths} and heads={self.heads} must have one number "
                "for each level"
            )
        for d, heads in zip(self.channels, self.heads):
            if d < 2 or heads < 1 or d % heads or d % self.groups:
                raise ConfigError(f"a level of {d} channels does not fit {heads} heads, {self.groups} groups")
        if self.layers < 1 or self.middle_depth < 1 or min(self.depths) < 0:
            raise ConfigError("layers and middle_depth must be at least 1, depths at least 0")
        if self.added_dim is not None and self.class_dim is not None:
            raise ConfigError("added_dim and class_dim both take the vectors of a clip: leave one out")

    @property
    def time_dim(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]


@dataclass(frozen=True, eq=False)
class PreparedText:
    """A conditioning as the U-Net takes it."""

    conditioning: Conditioning
    keys_values: tuple[KeysValues, ...]
    """Of every transformer block in the order of computation."""
    vectors: Float[Tensor, "b t"] | None
    """What is added to the time embedding of each clip."""


class UNet(nn.Module):
    """The prediction for latents from convolutions and attention. It implements `Backbone`."""

    patch = (1, 1, 1)
    time_per_token = False

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.out_channels = config.in_channels, config.out_channels
        self.text_width = config.text_dim
        channels, d_time = config.channels, config.time_dim
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = keep_float32(TimeEmbedding(channels[0], d_time))
        self.add_embedding = self._vectors(config.added_dim)
        self.class_embedding = self._vectors(config.class_dim)
        self.down_blocks = nn.ModuleList(self._down(i) for i in range(len(channels)))
        self.mid_block = Middle(
            [self._residual(channels[-1], channels[-1]) for _ in range(2)],
            self._transformer(len(channels) - 1, config.middle_depth),
        )
        self.up_blocks = nn.ModuleList(self._up(i) for i in reversed(range(len(channels))))
        self.conv_norm_out = Norm(config.groups, channels[0], 1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)
        self.init_weights()

    def _vectors(self, width: int | None) -> TimeEmbedding | None:
        return None if width is None else keep_float32(TimeEmbedding(width, self.config.time_dim))

    def _residual(self, d_in: int, d: int) -> Residual:
        return Residual(d_in, d, groups=self.config.groups, eps=1e-5, d_time=self.config.time_dim)

    def _transformer(self, level: int, depth: int) -> Transformer:
        config = self.config
        return Transformer(config.channels[level], config.heads[level], depth, config.text_dim, config.groups)

    def _down(self, i: int) -> Level:
        channels, depth, layers = self.config.channels, self.config.depths[i], self.config.layers
        widths = [channels[max(i - 1, 0)], *[channels[i]] * layers]
        return Level(
            [self._residual(*pair) for pair in pairwise(widths)],
            [self._transformer(i, depth) for _ in range(layers)] if depth else None,
            down=Downsample(channels[i], 1) if i < len(channels) - 1 else None,
        )

    def _up(self, i: int) -> Level:
        channels, depth, layers = self.config.channels, self.config.depths[i], self.config.layers
        above, below = channels[max(i - 1, 0)], channels[min(i + 1, len(channels) - 1)]
        inputs = [below, *[channels[i]] * layers]
        skips = [*[channels[i]] * layers, above]
        return Level(
            [self._residual(d_in + skip, channels[i]) for d_in, skip in zip(inputs, skips)],
            [self._transformer(i, depth) for _ in range(layers + 1)] if depth else None,
            up=Upsample(channels[i]) if i else None,
        )

    @torch.no_grad()
    def init_weights(self) -> None:
        """Put the last layer of every residual and of the network to zero, so that a new network predicts
        zero. The other weights keep PyTorch's initial values. On the meta device nothing is done."""
        last: list[nn.Module] = [self.conv_out]
        last += [module.conv2 for module in self.modules() if isinstance(module, Residual)]
        last += [module.proj_out for module in self.modules() if isinstance(module, Transformer)]
        for parameter in (parameter for layer in last for parameter in layer.parameters()):
            if not parameter.is_meta:
                nn.init.zeros_(parameter)

    def prepare(self, conditioning: Conditioning) -> PreparedText:
        """The keys and values of all blocks, and the embedded vectors; see `Backbone.prepare`."""
        if conditioning.images is not None or conditioning.frame_vectors is not None:
            raise RequestError("the U-Net takes no image states and no vectors of frames: give none")
        states = conditioning.text.states
        blocks = [module for module in self.modules() if isinstance(module, TransformerBlock)]
        keys_values = tuple(
            block.attn2.keys_values(states.to(block.attn2.to_k.weight.dtype)) for block in blocks
        )
        return PreparedText(conditioning, keys_values, self._embed_vectors(conditioning))

    def _embed_vectors(self, conditioning: Conditioning) -> Float[Tensor, "b t"] | None:
        """What is added to the time embedding. Raises `RequestError` for vectors of another width."""
        pooled, vectors, config = conditioning.text.pooled, conditioning.vectors, self.config
        if config.added_dim is not None and vectors is not None:
            numbers = sinusoid(vectors.flatten(), config.number_dim).view(len(vectors), -1)
            vectors = numbers if pooled is None else torch.cat([pooled.float(), numbers], dim=1)

        needed, given = config.added_dim or config.class_dim or 0, 0 if vectors is None else vectors.shape[1]
        if given != needed:
            raise RequestError(
                f"the U-Net takes vectors of width {needed} in all; the width given is {given}"
            )
        embedding = self.add_embedding or self.class_embedding
        if vectors is None or embedding is None:
            return None
        with torch.autocast(vectors.device.type, enabled=False):
            return embedding(vectors.float())

    def predict(
        self,
        latents: Float[Tensor, "b c lf lh lw"],
        t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
        prepared: PreparedText | Conditioning,
        first_frame: int | Sequence[int] = 0,
    ) -> Float[Tensor, "b out lf lh lw"]:
        """The prediction for every latent frame by itself; see `Backbone.predict`. All times of a clip are
        equal: the highest is used."""
        given = prepared if isinstance(prepared, PreparedText) else self.prepare(prepared)
        channels, lengths = given.conditioning.channels, given.conditioning.text.lengths
        x = latents if channels is None else torch.cat([latents, channels], dim=1)
        b, _, lf, _, _ = x.shape

        time = self._embed_time(t if t.ndim == 1 else t.flatten(1).amax(1), given.vectors)
        context = Context(repeat(time, "b t -> (b lf) t", lf=lf), iter(given.keys_values), lengths)
        out = self._forward(channels_last(rearrange(x, "b c lf lh lw -> (b lf) c lh lw")), context)
        return rearrange(out, "(b lf) c lh lw -> b c lf lh lw", b=b)

    def _embed_time(self, t: Float[Tensor, " b"], vectors: Tensor | None) -> Float[Tensor, "b t"]:
        """The activated embedding of the times and vectors, in float32 even under autocast."""
        with torch.autocast(t.device.type, enabled=False):
            time = self.time_embedding(sinusoid(timesteps(t), self.config.channels[0]))
            return F.silu(time if vectors is None else time + vectors)

    def _forward(self, x: Float[Tensor, "n c h w"], context: Context) -> Float[Tensor, "n out h w"]:
        """The prediction for images."""
        x = self.conv_in(x)
        skips = [x]
        for level in cast(list[Level], self.down_blocks):
            for i in range(len(level.resnets)):
                x = level.block(i, x, context)
                skips.append(x)
            for downsampler in level.downsamplers:
                x = downsampler(x)
                skips.append(x)

        x = self.mid_block(x, context)

        for level in cast(list[Level], self.up_blocks):
            for i in range(len(level.resnets)):
                x = level.block(i, torch.cat([x, skips.pop()], dim=1), context)
            for upsampler in level.upsamplers:
                x = upsampler(x, tuple(skips[-1].shape[2:]))
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def predict_packed(
        self,
        clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
        t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
        conditioning: Sequence[Conditioning],
        first_frames: Sequence[int],
    ) -> list[Tensor]:
        """The predictions for clips of any sizes, one by one; see `Backbone.predict_packed`."""
        return predict_each(self.predict, clips, t, conditioning, first_frames)


def unet_example(config: UNetConfig, num_clips: int, num_tokens: int, num_frames: int) -> Conditioning:
    """Conditioning of the usual shapes with values that are not initialised; see `BackboneEntry.example`."""
    pooled, vectors = None, None
    if config.added_dim is not None:
        pooled = torch.empty(num_clips, max(0, config.added_dim - config.number_dim))
        vectors = torch.empty(num_clips, 1)
    elif config.class_dim is not None:
        vectors = torch.empty(num_clips, config.class_dim)
    states = torch.empty(num_clips * num_tokens, config.text_dim)
    return Conditioning(TextStates(states, (num_tokens,) * num_clips, pooled), vectors=vectors)
