"""The diffusion transformer for images of classes (Peebles and Xie 2023), DiT-XL/2 and its sizes.

Against the DiT of video (`kinema.models.dit`), which came from it:

- a class, not text, and no cross-attention: the class is added to the embedding of the time,
- modulation is a projection of that embedding in every block, with gates that begin at zero (adaLN-Zero),
- positions are fixed sines in two dimensions, added to the patches.

Names of tensors are those of diffusers' `DiTTransformer2DModel`, but for the embedding, of which it stores a
copy in every block. Latent frames are separate images. The variances that the published network predicts too
are not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import Conditioning, TextStates, predict_each
from kinema.models.unet_blocks import Attention, TimeEmbedding, timesteps
from kinema.nn.attention import Segments
from kinema.nn.embeddings import sinusoid
from kinema.nn.norms import LayerNorm
from kinema.nn.parameters import keep_float32
from kinema.shapes import Float

TIME_DIM = 256
"""Width of the sinusoid of the time."""


@dataclass(frozen=True)
class ImageDiTConfig:
    """Sizes of an image DiT. The defaults are those of DiT-XL/2. Raises `ConfigError`."""

    in_channels: int = 4
    out_channels: int = 4
    text_dim: int = 0
    """There is no text: the class is `TextStates.pooled`."""
    text_length: int = 1
    d: int = 1152
    num_layers: int = 28
    num_heads: int = 16
    patch_size: int = 2
    sample_size: int = 32
    """Height and width of the latents in training; positions of other sizes are scaled to it."""
    num_classes: int = 1000
    """The class of this number stands for none."""
    has_variance: bool = True
    """Whether the network also predicts variances."""
    freq_shift: int = 1
    """1 in diffusers, 0 in the original code; see `sinusoid`."""

    def __post_init__(self) -> None:
        if min(self.d, self.num_heads, self.num_layers, self.patch_size) < 1 or self.d % self.num_heads:
            raise ConfigError(f"d={self.d} must be a multiple of num_heads={self.num_heads}, sizes positive")
        if self.d % 4:
            raise ConfigError(f"d={self.d} must be a multiple of 4: two positions have sines and cosines")


class ConditionEmbedding(nn.Module):
    """The embedding of a time and a class."""

    def __init__(self, d: int, num_classes: int, freq_shift: int) -> None:
        super().__init__()
        self.timestep_embedder = keep_float32(TimeEmbedding(TIME_DIM, d))
        self.class_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(num_classes + 1, d)})
        self.freq_shift = freq_shift

    def forward(self, t: Float[Tensor, " b"], classes: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The sum of the embedded times and of `classes`, activated, in float32 even under autocast."""
        with torch.autocast(t.device.type, enabled=False):
            time = self.timestep_embedder(sinusoid(timesteps(t), TIME_DIM, shift=self.freq_shift))
            return F.silu(time + classes.float())


class Modulation(nn.Module):
    """A linear layer from the condition to shifts, scales and gates."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, 6 * d)


class MLP(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, d: int) -> None:
        super().__init__()
        expand = nn.ModuleDict({"proj": nn.Linear(d, 4 * d)})
        self.net = nn.ModuleList([expand, nn.Identity(), nn.Linear(4 * d, d)])

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The rows, mapped."""
        return self.net[2](F.gelu(cast(nn.ModuleDict, self.net[0])["proj"](x), approximate="tanh"))


class ImageDiTBlock(nn.Module):
    """Self-attention and an MLP, each modulated and gated by the condition."""

    def __init__(self, d: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = Modulation(d)
        self.attn1 = Attention(d, num_heads, bias=True)
        self.ff = MLP(d)
        self.before_attention, self.before_mlp = (
            LayerNorm(d, 1e-6, affine=False),
            LayerNorm(d, 1e-5, affine=False),
        )

    def forward(self, x: Float[Tensor, "n d"], condition: Float[Tensor, "b d"], segments: Segments) -> Tensor:
        """The rows (n, d); every image has as many of them."""
        b = len(condition)
        parts = repeat(self.norm1.linear(condition), "b (s d) -> s (b n) d", s=6, n=len(x) // b)
        y = self.before_attention(x) * (1 + parts[1]) + parts[0]
        x = x + parts[2] * self.attn1(y, None, segments)
        y = self.before_mlp(x) * (1 + parts[4]) + parts[3]
        return x + parts[5] * self.ff(y)


@dataclass(frozen=True, eq=False)
class PreparedClass:
    """A conditioning with the embedded classes (b, d)."""

    conditioning: Conditioning
    classes: Float[Tensor, "b d"]


class ImageDiT(nn.Module):
    """The prediction for latents of a class. It implements `kinema.models.backbone.Backbone`."""

    time_per_token = False

    def __init__(self, config: ImageDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.out_channels = config.in_channels, config.out_channels
        self.text_width, self.patch = config.text_dim, (1, config.patch_size, config.patch_size)
        d, p = config.d, config.patch_size
        num_outputs = p * p * config.out_channels * (2 if config.has_variance else 1)
        self.pos_embed = nn.ModuleDict({"proj": nn.Conv2d(config.in_channels, d, p, stride=p)})
        self.embedder = ConditionEmbedding(d, config.num_classes, config.freq_shift)
        self.transformer_blocks = nn.ModuleList(
            ImageDiTBlock(d, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm_out = LayerNorm(d, 1e-6, affine=False)
        self.proj_out_1 = nn.Linear(d, 2 * d)
        self.proj_out_2 = nn.Linear(d, num_outputs)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Put modulation and head to zero, so that a new network predicts zero. The other weights keep
        PyTorch's initial values. On the meta device nothing is done."""
        blocks = cast(Sequence[ImageDiTBlock], self.transformer_blocks)
        for layer in (self.proj_out_1, self.proj_out_2, *(block.norm1.linear for block in blocks)):
            if not layer.weight.is_meta:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def prepare(self, conditioning: Conditioning) -> PreparedClass:
        """The embedded classes; see `Backbone.prepare`."""
        pooled = conditioning.text.pooled
        if pooled is None or pooled.shape[1] != 1 or len(conditioning.text.states):
            raise RequestError("the image DiT takes the number of a class and no text: give one per clip")
        if int(pooled.min()) < 0 or int(pooled.max()) > self.config.num_classes:
            raise RequestError(f"classes are numbers from 0 to {self.config.num_classes}")
        table = self.embedder.class_embedder["embedding_table"]
        return PreparedClass(conditioning, table(pooled[:, 0].long()))

    def predict(
        self,
        latents: Float[Tensor, "b c lf lh lw"],
        t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
        prepared: PreparedClass | Conditioning,
        first_frame: int | Sequence[int] = 0,
    ) -> Float[Tensor, "b out lf lh lw"]:
        """The prediction for every latent frame by itself; see `Backbone.predict`. All times of a clip are
        equal: the highest is used. Raises `RequestError` for sizes that are no multiples of the patch."""
        given = prepared if isinstance(prepared, PreparedClass) else self.prepare(prepared)
        channels, p = given.conditioning.channels, self.config.patch_size
        x = latents if channels is None else torch.cat([latents, channels], dim=1)
        b, _, lf, lh, lw = x.shape
        if lh % p or lw % p:
            raise RequestError(f"{lh}x{lw} latents do not fit the image DiT: use multiples of {p}")

        condition = self.embedder(t if t.ndim == 1 else t.flatten(1).amax(1), given.classes)
        condition = repeat(condition, "b d -> (b lf) d", lf=lf)
        patches = self.pos_embed["proj"](rearrange(x, "b c lf lh lw -> (b lf) c lh lw"))
        h, w = patches.shape[2:]
        rows = rearrange(patches + self._positions(h, w, x.device), "n d h w -> (n h w) d")

        segments = Segments.of((h * w,) * (b * lf), (h * w,) * (b * lf), x.device)
        for block in self.transformer_blocks:
            rows = block(rows, condition, segments)
        shift, scale = repeat(self.proj_out_1(condition), "b (s d) -> s (b n) d", s=2, n=h * w)
        out = self.proj_out_2(self.norm_out(rows) * (1 + scale) + shift)
        form = "(b lf h w) (p q c) -> b c lf (h p) (w q)"
        return rearrange(out, form, b=b, lf=lf, h=h, w=w, p=p, q=p)[:, : self.out_channels]

    def _positions(self, h: int, w: int, device: torch.device) -> Float[Tensor, "d h w"]:
        """Sines and cosines of the columns, then of the rows."""
        half, base = self.config.d // 2, self.config.sample_size // self.config.patch_size

        def axis(length: int) -> Float[Tensor, "length half"]:
            cos, sin = sinusoid(torch.arange(length, device=device) * (base / length), half).chunk(2, dim=1)
            return torch.cat([sin, cos], dim=1)

        columns = repeat(axis(w), "w d -> d h w", h=h)
        rows = repeat(axis(h), "h d -> d h w", w=w)
        return torch.cat([columns, rows])

    def predict_packed(
        self,
        clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
        t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
        conditioning: Sequence[Conditioning],
        first_frames: Sequence[int],
    ) -> list[Tensor]:
        """The predictions for clips of any sizes, one by one; see `Backbone.predict_packed`."""
        return predict_each(self.predict, clips, t, conditioning, first_frames)


def image_dit_example(
    config: ImageDiTConfig, num_clips: int, num_tokens: int, num_frames: int
) -> Conditioning:
    """Conditioning of the usual shapes; see `BackboneEntry.example`."""
    return Conditioning(TextStates(torch.zeros(0, 0), (0,) * num_clips, torch.zeros(num_clips, 1)))
