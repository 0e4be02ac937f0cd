"""A decoder that turns latents into pixels by matrices and channel-to-space shuffles (Shi et al. 2016).

- Motion and place are decided by a wide trunk on the latent grid, where a position is cheap; the convolutions
  near the pixels have no extent in time. The shipped Wan-shaped decoder spends 60 % of its operations on
  3x3x3 kernels at a quarter of the resolution.
- It is causal in time, and no layer reads further back than a fixed number of frames: attention sees the own
  latent frame and `num_past` before it. A stream therefore has constant memory and gives the frames of the
  one-pass form.
- It takes the place of `vae_blocks.Decoder` in a `VAE`: latents to folded pixels, with an optional
  `FeatureCache`.

Tensors are kept in the channels-last memory format.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.nn.causal_conv import CausalConv3d, FeatureCache
from kinema.nn.parameters import use_muon
from kinema.shapes import Float


@dataclass(frozen=True)
class SubpixelStage:
    """One doubling of height, width and frame rate, then `num_blocks` blocks of `width` whose second kernel
    spans `kernel_frames`.
    """

    width: int
    num_blocks: int
    kernel_frames: int = 1

    def __post_init__(self) -> None:
        if self.width < 1 or self.num_blocks < 0 or self.kernel_frames < 1:
            raise ConfigError(
                f"width = {self.width} and kernel_frames = {self.kernel_frames} must be at least 1, "
                f"num_blocks = {self.num_blocks} at least 0"
            )


@dataclass(frozen=True)
class SubpixelConfig:
    """Sizes of a `SubpixelDecoder`. Raises `ConfigError` for sizes that do not fit together.

    The trunk has `num_blocks` residual blocks of `width` with `hidden` channels inside, and attention of
    `num_heads` heads before the first and then before every second one. `num_past` is the number of earlier
    latent frames that attention sees. `stages` has one entry per doubling.
    """

    width: int = 256
    hidden: int = 128
    num_blocks: int = 4
    num_heads: int = 4
    num_past: int = 2
    stages: tuple[SubpixelStage, ...] = (SubpixelStage(96, 2, kernel_frames=3), SubpixelStage(48, 1))

    def __post_init__(self) -> None:
        for name, least in (
            ("width", 1),
            ("hidden", 1),
            ("num_blocks", 1),
            ("num_heads", 1),
            ("num_past", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least {least}")
        if self.width % self.num_heads:
            raise ConfigError(f"width = {self.width} must be a multiple of num_heads = {self.num_heads}")


class ChannelRMSNorm(nn.Module):
    """Each position's channels scaled to root mean square one, times a learned `gamma` (RMSNorm, Zhang and
    Sennrich 2019).

    `gamma` is cast to the dtype of the input: with two dtypes PyTorch leaves its fused kernel (0.238 against
    0.186 s a training step).
    """

    keeps_float32 = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The normalised features, in the dtype of `x`."""
        return F.rms_norm(x.movedim(1, -1), self.gamma.shape, self.gamma.to(x.dtype), 1e-6).movedim(-1, 1)


class BottleneckBlock(nn.Module):
    """The input plus a branch: 1x3x3 convolution to `hidden` channels, 3x1x1 convolution, projection back
    (zero at the start).
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(dim)
        self.conv_space = CausalConv3d(dim, hidden, (1, 3, 3))
        self.conv_time = CausalConv3d(hidden, hidden, (3, 1, 1))
        self.proj = CausalConv3d(hidden, dim, 1)

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c f h w"]:
        """Features of the same size. With `cache`, `x` is the next chunk of a stream."""
        y = self.conv_space(self.norm(x), cache)
        y = self.conv_time(F.silu(y), cache)
        return x + self.proj(F.silu(y), cache)


class PixelBlock(nn.Module):
    """The input plus a branch of a 1x3x3 convolution and one of `kernel_frames` x3x3 (zero at the start)."""

    def __init__(self, dim: int, kernel_frames: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(dim)
        self.conv1 = CausalConv3d(dim, dim, (1, 3, 3))
        self.conv2 = CausalConv3d(dim, dim, (kernel_frames, 3, 3))

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c f h w"]:
        """Features of the same size. With `cache`, `x` is the next chunk of a stream."""
        y = self.conv1(F.silu(self.norm(x)), cache)
        return x + self.conv2(F.silu(y), cache)


class WindowAttention(nn.Module):
    """The input plus self-attention of each frame's positions to those of that frame and of the `num_past`
    frames before it.
    """

    def __init__(self, dim: int, num_heads: int, num_past: int) -> None:
        super().__init__()
        self.num_heads, self.num_past = num_heads, num_past
        self.norm = ChannelRMSNorm(dim)
        self.to_qkv = CausalConv3d(dim, 3 * dim, 1)
        self.proj = CausalConv3d(dim, dim, 1)

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c f h w"]:
        """Features of the same size. With `cache`, `x` is the next chunk of a stream."""
        num_frames, height = x.shape[2], x.shape[3]
        q, kv = self.to_qkv(self.norm(x)).split([x.shape[1], 2 * x.shape[1]], dim=1)
        history = None if cache is None or not self.num_past else cache.past(self)
        read = kv if history is None else torch.cat([history, kv], dim=2)
        if cache is not None and self.num_past:
            cache.keep(self, kv, self.num_past)
        q = rearrange(q, "b (k d) f h w -> b k f (h w) d", k=self.num_heads)
        k, v = rearrange(read, "b (two k d) f h w -> two b k f (h w) d", two=2, k=self.num_heads)

        # Frame by frame: memory does not grow with the number of frames, and no mask is needed.
        num_before = read.shape[2] - num_frames
        outs = []
        for i in range(num_frames):
            window = slice(max(0, num_before + i - self.num_past), num_before + i + 1)
            outs.append(
                F.scaled_dot_product_attention(
                    q[:, :, i], k[:, :, window].flatten(2, 3), v[:, :, window].flatten(2, 3)
                )
            )
        return x + self.proj(rearrange(torch.stack(outs, dim=2), "b k f (h w) d -> b (k d) f h w", h=height))


class SubpixelUp(nn.Module):
    """Twice the height, width and frames by a matrix and a shuffle; of the first frame of a video only the
    second half is kept.

    So k+1 frames become 2k+1 (the first chunk) and k become 2k (later ones).
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(dim)
        self.conv = CausalConv3d(dim, 8 * out_dim, 1)

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """Features of twice the size. With `cache`, `x` is the next chunk of a stream."""
        x = rearrange(
            self.conv(self.norm(x)).movedim(1, -1),
            "b f h w (r p q c) -> b (f r) (h p) (w q) c",
            r=2,
            p=2,
            q=2,
        ).movedim(-1, 1)
        return x[:, :, 1:] if cache is None or cache.is_first else x


class SubpixelDecoder(nn.Module):
    """Latents to folded pixels: `blocks` in order are the trunk and then, for each doubling, `SubpixelUp` and
    its blocks.
    """

    def __init__(self, in_channels: int, config: SubpixelConfig, out_channels: int) -> None:
        super().__init__()
        dim = config.width
        blocks: list[nn.Module] = [CausalConv3d(in_channels, dim, (2, 3, 3))]
        for i in range(config.num_blocks):
            if i % 2 == 0:
                blocks.append(WindowAttention(dim, config.num_heads, config.num_past))
            blocks.append(BottleneckBlock(dim, config.hidden))
        for stage in config.stages:
            blocks.append(SubpixelUp(dim, stage.width))
            blocks += [PixelBlock(stage.width, stage.kernel_frames) for _ in range(stage.num_blocks)]
            dim = stage.width
        self.blocks = use_muon(nn.ModuleList(blocks))
        self.norm_out = ChannelRMSNorm(dim)
        self.conv_out = CausalConv3d(dim, out_channels, (1, 3, 3))

    def forward(
        self, x: Float[Tensor, "b c lf lh lw"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f h w"]:
        """Folded pixels. With `cache`, `x` is the next chunk of a stream."""
        for block in self.blocks:
            x = block(x, cache)
        return self.conv_out(F.silu(self.norm_out(x)), cache)
