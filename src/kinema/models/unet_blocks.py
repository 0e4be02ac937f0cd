"""The parts of the image U-Net and of the image VAE: residual block, attention, transformer, resampling.

Names of tensors are those of diffusers. Images are (n, c, h, w) with channels last in memory, and tokens are
rows of one matrix, image by image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.nn.attention import Segments, attend_within
from kinema.nn.norms import LayerNorm
from kinema.shapes import Float

KeysValues = tuple[Float[Tensor, "_ _ _"], Float[Tensor, "_ _ _"]]
"""Keys and values of the text in one block, of all prompts one after the other."""


class Norm(nn.GroupNorm):
    """Group normalisation in float32, in the dtype of the input."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The groups of channels of each image, normalised."""
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


@dataclass(frozen=True, eq=False)
class Context:
    """What the blocks of one forward pass share."""

    time: Float[Tensor, "n t"] | None
    """Activated embedding of the time of each image."""
    keys_values: Iterator[KeysValues]
    """Of the blocks with attention to text, in the order of computation."""
    lengths: tuple[int, ...] = ()
    """Text tokens of each clip."""


class TimeEmbedding(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, d_in: int, d: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(d_in, d)
        self.linear_2 = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b d_in"]) -> Float[Tensor, "b d"]:
        """The embedded vectors."""
        return self.linear_2(F.silu(self.linear_1(x)))


class Residual(nn.Module):
    """A residual block of two convolutions, with a shift by the time between them if there is one."""

    def __init__(self, d_in: int, d: int, *, groups: int, eps: float, d_time: int | None = None) -> None:
        super().__init__()
        self.norm1 = Norm(groups, d_in, eps)
        self.conv1 = nn.Conv2d(d_in, d, 3, padding=1)
        self.time_emb_proj = None if d_time is None else nn.Linear(d_time, d)
        self.norm2 = Norm(groups, d, eps)
        self.conv2 = nn.Conv2d(d, d, 3, padding=1)
        self.conv_shortcut = None if d_in == d else nn.Conv2d(d_in, d, 1)

    def forward(self, x: Float[Tensor, "n d_in h w"], context: Context | None = None) -> Tensor:
        """The images (n, d, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and context is not None:
            y = y + self.time_emb_proj(context.time)[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Attention of rows to themselves, or to the keys and values of other rows of width `d_context`."""

    def __init__(self, d: int, num_heads: int, d_context: int | None = None, *, bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(d, d, bias=bias)
        self.to_k = nn.Linear(d_context or d, d, bias=bias)
        self.to_v = nn.Linear(d_context or d, d, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(d, d)])

    def keys_values(self, rows: Float[Tensor, "s d_context"]) -> KeysValues:
        """Keys and values of rows."""
        return self._heads(self.to_k(rows)), self._heads(self.to_v(rows))

    def forward(self, x: Float[Tensor, "n d"], keys_values: KeysValues | None, segments: Segments) -> Tensor:
        """The attended values (n, d), projected. `keys_values` None: those of `x`."""
        k, v = self.keys_values(x) if keys_values is None else keys_values
        out = attend_within(self._heads(self.to_q(x)), k, v, segments)
        return self.to_out[0](out.flatten(1))

    def _heads(self, x: Tensor) -> Float[Tensor, "n k dh"]:
        return x.unflatten(-1, (self.num_heads, -1))


class GEGLU(nn.Module):
    """A linear layer gated by the exact GELU of another (Shazeer 2020)."""

    def __init__(self, d: int, d_hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(d, 2 * d_hidden)

    def forward(self, x: Float[Tensor, "n d"]) -> Tensor:
        """The rows (n, d_hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """`GEGLU` and a linear layer."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(d, 4 * d), nn.Identity(), nn.Linear(4 * d, d)])

    def forward(self, x: Float[Tensor, "n d"]) -> Tensor:
        """The rows (n, d)."""
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, attention to text, and a feed-forward layer, each after a norm."""

    def __init__(self, d: int, num_heads: int, d_text: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (LayerNorm(d, 1e-5) for _ in range(3))
        self.attn1 = Attention(d, num_heads)
        self.attn2 = Attention(d, num_heads, d_text)
        self.ff = FeedForward(d)

    def forward(self, x: Float[Tensor, "n d"], text: KeysValues, own: Segments, cross: Segments) -> Tensor:
        """The rows (n, d)."""
        x = x + self.attn1(self.norm1(x), None, own)
        x = x + self.attn2(self.norm2(x), text, cross)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """Transformer blocks over the positions of each image, as a residual."""

    def __init__(self, d: int, num_heads: int, depth: int, d_text: int, groups: int) -> None:
        super().__init__()
        self.norm = Norm(groups, d, 1e-6)
        self.proj_in = nn.Linear(d, d)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(d, num_heads, d_text) for _ in range(depth))
        self.proj_out = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "n d h w"], context: Context) -> Tensor:
        """The images (n, d, h, w). The images of a clip follow each other."""
        n, _, h, w = x.shape
        per_clip = n // len(context.lengths)
        own = Segments.of((h * w,) * n, (h * w,) * n, x.device)
        cross = Segments.of((per_clip * h * w,) * len(context.lengths), context.lengths, x.device)

        rows = self.proj_in(rearrange(self.norm(x), "n d h w -> (n h w) d"))
        for block in self.transformer_blocks:
            rows = block(rows, next(context.keys_values), own, cross)
        return x + rearrange(self.proj_out(rows), "(n h w) d -> n d h w", n=n, h=h)


class Downsample(nn.Module):
    """A convolution of stride 2. `padding` None: one row below and one column to the right."""

    def __init__(self, d: int, padding: int | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d, d, 3, stride=2, padding=padding or 0)
        self.padding = padding

    def forward(self, x: Float[Tensor, "n d h w"]) -> Tensor:
        """The images (n, d, h/2, w/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.padding is None else x)


class Upsample(nn.Module):
    """Nearest neighbours and a convolution."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d, d, 3, padding=1)

    def forward(self, x: Float[Tensor, "n d h w"], size: tuple[int, int] | None = None) -> Tensor:
        """The images (n, d, *size), by default twice as large."""
        factor = None if size else 2.0
        return self.conv(F.interpolate(x, size=size, scale_factor=factor, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution: residual blocks, each with a transformer if there are `attentions`, and
    resampling if it is not the last level.
    """

    def __init__(
        self,
        resnets: list[Residual],
        attentions: list[Transformer] | None = None,
        down: Downsample | None = None,
        up: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions or [])
        self.downsamplers = nn.ModuleList([] if down is None else [down])
        self.upsamplers = nn.ModuleList([] if up is None else [up])

    def block(self, i: int, x: Tensor, context: Context) -> Tensor:
        """The result of residual block `i` and its transformer."""
        x = self.resnets[i](x, context)
        return self.attentions[i](x, context) if len(self.attentions) else x


class Middle(nn.Module):
    """A residual block, attention, and a residual block."""

    def __init__(self, resnets: list[Residual], attention: nn.Module) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList([attention])

    def forward(self, x: Float[Tensor, "n d h w"], context: Context | None = None) -> Tensor:
        """The images (n, d, h, w)."""
        x = self.attentions[0](self.resnets[0](x, context), context)
        return cast(Tensor, self.resnets[1](x, context))


def timesteps(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The timesteps of published models, 0 to 999, at times in [0, 1]: 1000 t - 1.

    They are rounded to 1/256, so that the rounding of t does not change whole timesteps.
    """
    return torch.round(256000 * t.float()) / 256 - 1


def channels_last(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The same images with channels last in memory, for which convolutions on a CPU are faster."""
    return x.contiguous(memory_format=torch.channels_last)
