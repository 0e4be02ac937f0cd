"""The parts of the video VAE: norm, residual block, attention within a frame, resampling, encoder and
decoder.

Names follow the diffusers layout of Wan's VAE, so that a published file loads without renaming. Without a
`FeatureCache` the input of a part is the whole video; with one it is the next chunk. Tensors are in the
channels-last memory format: convolutions on a CPU are up to 1.4 times faster in it, and frames merge into the
batch without a copy.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from kinema.nn.causal_conv import CausalConv3d, FeatureCache, conv3d
from kinema.shapes import Float


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of each position, times a learned `gamma` (Zhang and Sennrich 2019)."""

    keeps_float32 = True

    def __init__(self, dim: int, num_axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * num_axes))

    def forward(self, x: Float[Tensor, "b c *axes"]) -> Float[Tensor, "b c *axes"]:
        """The normalised features, in the dtype of `x`."""
        # The published network divides by max(norm, 1e-12); an eps this small differs only where all channels
        # are zero. The weight takes the dtype of `x`: with two dtypes PyTorch leaves its fused kernel.
        gamma = self.gamma.flatten().to(x.dtype)
        return F.rms_norm(x.movedim(1, -1), (x.shape[1],), gamma, eps=1e-24).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and 3x3x3 causal convolution, added to the input.

    The input passes a 1x1x1 convolution if the widths differ.
    """

    uses_muon = True

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_dim, 3)
        self.conv1 = CausalConv3d(in_dim, out_dim, 3)
        self.norm2 = ChannelNorm(out_dim, 3)
        self.conv2 = CausalConv3d(out_dim, out_dim, 3)
        self.conv_shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f h w"]:
        """Features of the same size. With `cache`, `x` is the next chunk of a stream."""
        in_place = not torch.is_grad_enabled()
        y = self.conv1(F.silu(self.norm1(x), inplace=in_place), cache)
        y = self.norm2(y)  # reuses the name, so that the result of conv1 is freed before conv2
        y = self.conv2(F.silu(y, inplace=in_place), cache)
        return y.add_(self.conv_shortcut(x)) if in_place else y + self.conv_shortcut(x)


class FrameAttention(nn.Module):
    """The input plus single-head self-attention within each frame. The projection starts at zero."""

    uses_muon = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, dim * 3, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        nn.init.zeros_(self.proj.weight)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Features of the same size; frames do not attend to each other."""
        b, _, _, h, w = x.shape
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "n (qkv c) h w -> qkv n 1 (h w) c", qkv=3)
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "n 1 (h w) c -> n c h w", h=h, w=w)
        return x + rearrange(self.proj(y), "(b f) c h w -> b c f h w", b=b)


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(dim)])
        self.resnets = nn.ModuleList([ResidualBlock(dim, dim), ResidualBlock(dim, dim)])

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c f h w"]:
        """Features of the same size. With `cache`, `x` is the next chunk of a stream."""
        before, after = self.resnets
        return after(self.attentions[0](before(x, cache)), cache)


class Downsample(nn.Module):
    """Half the height and width. With `in_time` also 2k+1 frames to k+1 (the first chunk) or 2k to k (later
    chunks).

    In time the first frame is kept. Each later output depends on two new frames and the one before them.
    """

    uses_muon = True

    def __init__(self, dim: int, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if in_time else None
        if self.time_conv is not None:
            # Initialised to the mean of the two new frames.
            with torch.no_grad():
                self.time_conv.weight.copy_(
                    torch.eye(dim).view(dim, dim, 1, 1, 1) * torch.tensor([0.0, 0.5, 0.5]).view(3, 1, 1)
                )
                nn.init.zeros_(self.time_conv.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c f2 h2 w2"]:
        """Features of half the size. With `cache`, `x` is the next chunk of a stream."""
        x = _per_frame(self.resample, x)
        if self.time_conv is None:
            return x

        history = None if cache is None else cache.past(self)
        if history is not None:
            y = self._in_time(torch.cat([history, x], dim=2))
        elif x.shape[2] == 1:
            y = x
        else:
            y = torch.cat([x[:, :, :1], self._in_time(x)], dim=2)

        if cache is not None:
            cache.keep(self, x, 1)
        return y

    def _in_time(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f2 h w"]:
        assert self.time_conv is not None, "called only if time is halved"
        assert self.time_conv.bias is not None, "the convolution has a bias"
        return conv3d(x, self.time_conv.weight, self.time_conv.bias, stride_time=2)


class Upsample(nn.Module):
    """Twice the height and width. With `in_time` also k+1 frames to 2k+1 (the first chunk) or k to 2k (later
    chunks).

    In time the first frame is kept, and the frames after it do not depend on it.
    """

    uses_muon = True

    def __init__(self, dim: int, out_dim: int, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(dim, out_dim, 3, padding=1)
        )
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if in_time else None
        if self.time_conv is not None:
            # Initialised to each frame repeated twice.
            with torch.no_grad():
                nn.init.zeros_(self.time_conv.weight)
                self.time_conv.weight[:, :, -1, 0, 0] = repeat(
                    torch.eye(dim), "c_out c -> (two c_out) c", two=2
                )
                nn.init.zeros_(self.time_conv.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """Features of twice the size. With `cache`, `x` is the next chunk of a stream."""
        if self.time_conv is not None:
            is_first = cache is None or cache.is_first
            head, tail = (x[:, :, :1], x[:, :, 1:]) if is_first else (x[:, :, :0], x)
            if tail.shape[2]:
                tail = rearrange(self.time_conv(tail, cache), "b (two c) f h w -> b c (f two) h w", two=2)
                x = torch.cat([head, tail], dim=2) if is_first else tail

        return _per_frame(self.resample, x)


def _per_frame(layer: nn.Module, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c_out f h2 w2"]:
    """A two-dimensional layer applied to every frame."""
    frames = layer(rearrange(x, "b c f h w -> (b f) c h w"))
    return rearrange(frames, "(b f) c h w -> b c f h w", b=x.shape[0])


class AverageDown(nn.Module):
    """A shortcut without weights: blocks of (t, h, w) become channels, which are averaged in groups."""

    def __init__(self, in_dim: int, out_dim: int, factor_time: int, factor_space: int) -> None:
        super().__init__()
        self.out_dim, self.factor_time, self.factor_space = out_dim, factor_time, factor_space

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """Group means of the folded blocks; an odd number of frames is padded in front."""
        if x.shape[2] % self.factor_time:
            x = F.pad(x, (0, 0, 0, 0, 1, 0))

        pattern = "b c (f r) (h p) (w q) -> b (c r p q) f h w"
        x = rearrange(x, pattern, r=self.factor_time, p=self.factor_space, q=self.factor_space)
        return reduce(x, "b (c group) f h w -> b c f h w", "mean", c=self.out_dim)


class RepeatUp(nn.Module):
    """A shortcut without weights: channels are repeated and become blocks of (time, height, width)."""

    def __init__(self, in_dim: int, out_dim: int, factor_time: int) -> None:
        super().__init__()
        self.out_dim, self.factor_time = out_dim, factor_time
        self.num_repeats = out_dim * factor_time * 4 // in_dim

    def forward(self, x: Float[Tensor, "b c f h w"], is_first: bool) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """The unfolded blocks; the first chunk drops the frames before its first one."""
        x = repeat(x, "b c f h w -> b (c again) f h w", again=self.num_repeats)
        pattern = "b (c r p q) f h w -> b c (f r) (h p) (w q)"
        x = rearrange(x, pattern, c=self.out_dim, r=self.factor_time, p=2, q=2)
        return x[:, :, self.factor_time - 1 :] if is_first else x


class ResidualDownLevel(nn.Module):
    """A level of the Wan 2.2 encoder: residual blocks and downsampling with a shortcut around them."""

    def __init__(self, in_dim: int, out_dim: int, num_res_blocks: int, in_space: bool, in_time: bool) -> None:
        super().__init__()
        self.avg_shortcut = AverageDown(in_dim, out_dim, 2 if in_time else 1, 2 if in_space else 1)
        dims = [in_dim] + [out_dim] * num_res_blocks
        self.resnets = nn.ModuleList([ResidualBlock(a, b) for a, b in pairwise(dims)])
        self.downsampler = Downsample(out_dim, in_time) if in_space else None

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """Features of the next level. With `cache`, `x` is the next chunk of a stream."""
        y = x
        for block in self.resnets:
            y = block(y, cache)
        if self.downsampler is not None:
            y = self.downsampler(y, cache)
        return y + self.avg_shortcut(x)


class UpLevel(nn.Module):
    """A level of the decoder: one residual block more than in the encoder, then upsampling.

    Wan 2.1 halves the channels in upsampling and names the module `upsamplers.0`. Wan 2.2 (`is_residual`)
    keeps them, has a shortcut around the level and names the module `upsampler`.
    """

    def __init__(
        self, in_dim: int, out_dim: int, num_res_blocks: int, in_space: bool, in_time: bool, is_residual: bool
    ) -> None:
        super().__init__()
        dims = [in_dim] + [out_dim] * (num_res_blocks + 1)
        self.resnets = nn.ModuleList([ResidualBlock(a, b) for a, b in pairwise(dims)])
        self.upsampler = Upsample(out_dim, out_dim, in_time) if in_space and is_residual else None
        self.upsamplers = nn.ModuleList(
            [Upsample(out_dim, out_dim // 2, in_time)] if in_space and not is_residual else []
        )
        self.avg_shortcut = (
            RepeatUp(in_dim, out_dim, 2 if in_time else 1) if in_space and is_residual else None
        )

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f2 h2 w2"]:
        """Features of the next level. With `cache`, `x` is the next chunk of a stream."""
        y = x
        for block in self.resnets:
            y = block(y, cache)
        for upsample in self.upsamplers:
            y = upsample(y, cache)
        if self.upsampler is not None:
            y = self.upsampler(y, cache)

        if self.avg_shortcut is None:
            return y
        return y + self.avg_shortcut(x, cache is None or cache.is_first)


class VAEEncoder(nn.Module):
    """Pixel blocks as channels to twice the latent channels (mean and log variance).

    `dims` holds the width of the first convolution and then that of each level. `in_time` states for each
    level but the last whether it halves time too.
    """

    def __init__(
        self,
        in_channels: int,
        dims: Sequence[int],
        out_channels: int,
        num_res_blocks: int,
        in_time: Sequence[bool],
        is_residual: bool,
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(in_channels, dims[0], 3)
        blocks: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(dims)):
            in_space = i < len(in_time)
            if is_residual:
                blocks.append(ResidualDownLevel(a, b, num_res_blocks, in_space, in_space and in_time[i]))
                continue
            blocks += [ResidualBlock(a if j == 0 else b, b) for j in range(num_res_blocks)]
            if in_space:
                blocks.append(Downsample(b, in_time[i]))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = MidBlock(dims[-1])
        self.norm_out = ChannelNorm(dims[-1], 3)
        self.conv_out = CausalConv3d(dims[-1], out_channels, 3)

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out lf lh lw"]:
        """Latent features of a video. With `cache`, `x` is the next chunk of a stream."""
        x = self.conv_in(x, cache)
        for block in self.down_blocks:
            x = block(x, cache)
        x = self.mid_block(x, cache)
        return self.conv_out(F.silu(self.norm_out(x)), cache)


class VAEDecoder(nn.Module):
    """Latents to pixel blocks as channels. `dims` and `in_time` are as in the encoder, reversed."""

    def __init__(
        self,
        in_channels: int,
        dims: Sequence[int],
        out_channels: int,
        num_res_blocks: int,
        in_time: Sequence[bool],
        is_residual: bool,
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(in_channels, dims[0], 3)
        self.mid_block = MidBlock(dims[0])
        levels = []
        for i, (a, b) in enumerate(pairwise(dims)):
            in_space = i < len(in_time)
            in_dim = a if i == 0 or is_residual else a // 2
            levels.append(UpLevel(in_dim, b, num_res_blocks, in_space, in_space and in_time[i], is_residual))
        self.up_blocks = nn.ModuleList(levels)
        self.norm_out = ChannelNorm(dims[-1], 3)
        self.conv_out = CausalConv3d(dims[-1], out_channels, 3)

    def forward(
        self, x: Float[Tensor, "b c lf lh lw"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f h w"]:
        """Folded pixels of latents. With `cache`, `x` is the next chunk of a stream."""
        x = self.mid_block(self.conv_in(x, cache), cache)
        for level in self.up_blocks:
            x = level(x, cache)
        return self.conv_out(F.silu(self.norm_out(x)), cache)
