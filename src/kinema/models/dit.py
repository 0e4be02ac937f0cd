"""The diffusion transformer (Peebles and Xie 2023) in the shape of Wan 2.1 and 2.2, on packed tokens.

- Tokens of any number of clips and sizes are rows of one matrix; coordinates, a time index and segment lengths say what they are.
- Every token has its own diffusion time, through a table of the few distinct times.
- Modulation is one learned table per block plus one projection of the time for all blocks (adaLN-single).
- Queries and keys are RMS-normalised over the full width, before it is split into heads.
- Positions are three-dimensional rotations, in self-attention only; text comes in by cross-attention without a gate.
- Where the configuration has `image_dim`, states of still images come in beside the text, with keys and values of their own (Wan 2.1).
- The residual stream, the norms and the modulation stay in float32 whatever the dtype of the weights.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Literal, cast, overload

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import TextStates
from kinema.models.patches import grid_coordinates, patchify, unpatchify
from kinema.nn.attention import Segments, attend_within
from kinema.nn.embeddings import sinusoid
from kinema.nn.mlp import MLP
from kinema.nn.norms import LayerNorm, RMSNorm
from kinema.nn.parameters import keep_float32
from kinema.nn.rotary import rotate, rotations
from kinema.shapes import Float, Int

TIMESTEPS = 1000.0  # Wan's time embedding takes timestep = 1000 * t


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT. The defaults are a small model; Wan 2.1 1.3B is d=1536, 30 layers, 12 heads, ffn_dim=8960, text_dim=4096.

    `freq_dim` is the width of the sinusoid that the time embedding starts from; `patch` is the latents along (lf, lh, lw) that make a
    token; `text_length` is the most text tokens of a prompt. With `text_padding` "masked" a token sees only its prompt's own text tokens;
    with "zeros" prompts are filled up with zeros to `text_length`, and the filling is seen, as in Wan. `image_dim` is the width of
    the image states that Wan 2.1's image-to-video takes, `image_positions` how many have learned positions. Raises `ConfigError`.
    """

    in_channels: int = 16
    out_channels: int = 16
    d: int = 256
    num_layers: int = 8
    num_heads: int = 4
    ffn_dim: int = 1024
    text_dim: int = 256
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    text_padding: Literal["masked", "zeros"] = "masked"
    text_length: int = 512
    eps: float = 1e-6
    image_dim: int | None = None
    image_positions: int | None = None

    def __post_init__(self) -> None:
        sizes = (
            "in_channels",
            "out_channels",
            "d",
            "num_layers",
            "num_heads",
            "ffn_dim",
            "text_dim",
            "freq_dim",
            "text_length",
            "eps",
        )
        for name in sizes:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be more than 0")
        if min(self.patch) < 1:
            raise ConfigError(f"patch={self.patch} must be three numbers of 1 or more")
        if self.d % self.num_heads:
            raise ConfigError(f"d={self.d} does not divide into num_heads={self.num_heads}")
        if self.head_dim % 2 or self.head_dim < 6:
            raise ConfigError(
                f"d={self.d} with num_heads={self.num_heads} makes heads of {self.head_dim}: RoPE needs an even size of 6 or more"
            )
        if self.image_positions is not None and self.image_dim is None:
            raise ConfigError(
                f"image_positions={self.image_positions} needs image_dim, the width of the image states"
            )
        for name in ("image_dim", "image_positions"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.freq_dim % 2:
            raise ConfigError(f"freq_dim={self.freq_dim} must be even")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.d // self.num_heads

    @property
    def token_in(self) -> int:
        """Channels of a token that comes in: those of a patch."""
        return self.in_channels * prod(self.patch)

    @property
    def token_out(self) -> int:
        """Channels of a token that goes out."""
        return self.out_channels * prod(self.patch)


@dataclass(frozen=True, eq=False)
class KeysValues:
    """Keys and values (s, k, dh) of one block's cross-attention: those of the text, and those of images where there are any."""

    text: tuple[Tensor, Tensor]
    images: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """What prompts and images are cut into: rows of each segment. `bias` is added to the scores of each row of the text.

    Padding that is seen is the same row many times over; one row stands for all of it, with the logarithm of their number as its bias.
    """

    lengths: tuple[int, ...]
    bias: Float[Tensor, " s"] | None = None
    image_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """Text (s, d) and images (m, d) as wide as the backbone, before a block makes keys and values of them."""

    text: Tensor
    images: Tensor | None
    context: Context

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each prompt."""
        return self.context.lengths


@dataclass(frozen=True, eq=False)
class PreparedText:
    """The cross-attention keys and values of every block for some prompts, so that sampling makes them once for all steps."""

    blocks: tuple[KeysValues, ...]
    context: Context

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each prompt."""
        return self.context.lengths

    @classmethod
    def cat(cls, texts: "Sequence[PreparedText]") -> "PreparedText":
        """All prompts of `texts` (at least one, prepared by one backbone), in order."""

        def joined(pairs: Sequence[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
            known = [pair for pair in pairs if pair is not None]
            return (
                (torch.cat([keys for keys, _ in known]), torch.cat([values for _, values in known]))
                if known
                else None
            )

        blocks = []
        for parts in zip(*(text.blocks for text in texts)):
            text = joined([part.text for part in parts])
            assert text is not None, "every block has keys of the text"
            blocks.append(KeysValues(text, joined([part.images for part in parts])))
        contexts = [text.context for text in texts]
        biases = [context.bias for context in contexts if context.bias is not None]
        lengths, image_lengths = (
            tuple(length for context in contexts for length in getattr(context, name))
            for name in ("lengths", "image_lengths")
        )
        return cls(tuple(blocks), Context(lengths, torch.cat(biases) if biases else None, image_lengths))


@dataclass(frozen=True, eq=False)
class Attended:
    """What tokens attend to: those of their clip, of its prompt, and of its images where there are any."""

    clip: Segments
    text: Segments
    images: Segments | None = None

    @classmethod
    def of(cls, lengths: tuple[int, ...], context: Context, device: torch.device) -> "Attended":
        """For clips of so many tokens, one with each prompt of `context`."""
        images = Segments.of(lengths, context.image_lengths, device) if context.image_lengths else None
        return cls(
            Segments.of(lengths, lengths, device),
            Segments.of(lengths, context.lengths, device, context.bias),
            images,
        )


class SelfAttention(nn.Module):
    """Attention among the tokens of a clip, with rotated queries and keys."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        d = config.d
        self.heads = (config.num_heads, config.head_dim)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, config.eps), RMSNorm(d, config.eps)

    def forward(self, x: Float[Tensor, "n d"], rotation: Tensor, seen: Segments) -> Float[Tensor, "n d"]:
        q = rotate(self.norm_q(self.to_q(x)).unflatten(-1, self.heads), rotation)
        k = rotate(self.norm_k(self.to_k(x)).unflatten(-1, self.heads), rotation)
        v = self.to_v(x).unflatten(-1, self.heads)
        return self.to_out(attend_within(q, k, v, seen).flatten(-2))


class CrossAttention(nn.Module):
    """Attention from the tokens of a clip to those of its prompt, plus that to its images where the configuration has them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        d = config.d
        self.heads = (config.num_heads, config.head_dim)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, config.eps), RMSNorm(d, config.eps)
        if config.image_dim is not None:
            self.to_k_image, self.to_v_image = nn.Linear(d, d), nn.Linear(d, d)
            self.norm_k_image = RMSNorm(d, config.eps)

    def keys_values(self, embedded: EmbeddedText) -> KeysValues:
        """Keys and values (s, k, dh) of embedded text and images."""
        keys = self.norm_k(self.to_k(embedded.text)).unflatten(-1, self.heads)
        text = keys, self.to_v(embedded.text).unflatten(-1, self.heads)
        if embedded.images is None:
            return KeysValues(text)
        keys = self.norm_k_image(self.to_k_image(embedded.images)).unflatten(-1, self.heads)
        return KeysValues(text, (keys, self.to_v_image(embedded.images).unflatten(-1, self.heads)))

    def forward(self, x: Float[Tensor, "n d"], known: KeysValues, seen: Attended) -> Float[Tensor, "n d"]:
        q = self.norm_q(self.to_q(x)).unflatten(-1, self.heads)
        out = attend_within(q, *known.text, seen.text)
        if known.images is not None:
            assert seen.images is not None, "images have segments"
            out = out + attend_within(q, *known.images, seen.images)
        return self.to_out(out.flatten(-2))


class ImageEmbedding(nn.Module):
    """Image states as wide as the backbone: norm, MLP with the exact GELU, norm; before them learned positions where there are any."""

    def __init__(self, image_dim: int, d: int, num_positions: int | None) -> None:
        super().__init__()
        self.positions = (
            None if num_positions is None else nn.Parameter(torch.zeros(1, num_positions, image_dim))
        )
        self.norm_in, self.norm_out = nn.LayerNorm(image_dim), nn.LayerNorm(d)
        self.expand, self.project = nn.Linear(image_dim, image_dim), nn.Linear(image_dim, d)

    def forward(self, images: TextStates) -> Float[Tensor, "m d"]:
        """The states of the images of all clips. Raises `RequestError` when their number is not that of the positions."""
        states = images.states.to(self.expand.weight.dtype)
        if self.positions is not None:
            num_positions = self.positions.shape[1]
            if set(images.lengths) != {num_positions}:
                raise RequestError(
                    f"the backbone takes {num_positions} image states a clip, not {images.lengths}: give first and last image"
                )
            states = (states.unflatten(0, (-1, num_positions)) + self.positions).flatten(0, 1)
        return self.norm_out(self.project(F.gelu(self.expand(self.norm_in(states)))))


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and MLP around a residual stream; the time shifts, scales and gates the first and the last."""

    uses_muon = True

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        d, eps = config.d, config.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, d))
        keep_float32(self, "modulation")
        self.norm_self = LayerNorm(d, eps, affine=False)
        self.self_attention = SelfAttention(config)
        self.norm_cross = LayerNorm(d, eps)
        self.cross_attention = CrossAttention(config)
        self.norm_mlp = LayerNorm(d, eps, affine=False)
        self.mlp = MLP(d, config.ffn_dim, d)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        time: Float[Tensor, "u six d"],
        time_index: Int[Tensor, " n"],
        rotation: Tensor,
        text: KeysValues,
        seen: Attended,
    ) -> Float[Tensor, "n d"]:
        dtype = self.mlp.expand.weight.dtype
        shift_self, scale_self, gate_self, shift_mlp, scale_mlp, gate_mlp = (
            self.modulation.float() + time
        ).unbind(1)
        hidden = _modulate(self.norm_self(x), shift_self, scale_self, time_index).to(dtype)
        x = x + self.self_attention(hidden, rotation, seen.clip) * _of_tokens(gate_self, time_index)
        x = x + self.cross_attention(self.norm_cross(x).to(dtype), text, seen)
        hidden = _modulate(self.norm_mlp(x), shift_mlp, scale_mlp, time_index).to(dtype)
        return x + self.mlp(hidden) * _of_tokens(gate_mlp, time_index)


class Head(nn.Module):
    """Norm, shift and scale by the time, and the linear layer to patches in the order (pt, ph, pw, c)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, config.d))
        keep_float32(self, "modulation")
        self.norm = LayerNorm(config.d, config.eps, affine=False)
        self.projection = nn.Linear(config.d, config.token_out)

    def forward(
        self, x: Float[Tensor, "n d"], time: Float[Tensor, "u d"], time_index: Int[Tensor, " n"]
    ) -> Float[Tensor, "n token_out"]:
        shift, scale = (self.modulation.float() + time[:, None]).unbind(1)
        return self.projection(
            _modulate(self.norm(x), shift, scale, time_index).to(self.projection.weight.dtype)
        )


def _modulate(x: Tensor, shift: Tensor, scale: Tensor, time_index: Tensor) -> Tensor:
    """`x * (1 + scale) + shift` with the shift and scale (u, d) of each token's time."""
    return x * _of_tokens(1 + scale, time_index) + _of_tokens(shift, time_index)


def _of_tokens(table: Float[Tensor, "u d"], time_index: Int[Tensor, " n"]) -> Float[Tensor, "n_or_one d"]:
    """The row of each token's time; where there is one time, that row for all, which needs no copies of it."""
    return table if len(table) == 1 else F.embedding(time_index, table)


class DiT(nn.Module):
    """A network from noisy tokens, their places and times and a prompt to the objective's prediction for each token."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d
        self.patch_embedding = nn.Linear(config.token_in, d)
        self.text_embedding = MLP(config.text_dim, d, d)
        self.time_embedding = keep_float32(MLP(config.freq_dim, d, d, "silu"))
        self.time_projection = keep_float32(nn.Linear(d, 6 * d))
        self.image_embedding = (
            None if config.image_dim is None else ImageEmbedding(config.image_dim, d, config.image_positions)
        )
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self.activation_checkpointing = False
        """Whether training keeps a block's input alone and computes its insides again for the gradient."""
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights as Wan does: the head is zero, so a new network predicts zero.

        | Linear (also the patch embedding) | Xavier uniform, zero bias |
        | text and time embedding           | normal, std 0.02          |
        | modulation                        | normal, std 1/sqrt(d)     |
        | head                              | zero                      |

        On the meta device there is nothing to draw.
        """
        if self.head.projection.weight.is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, DiTBlock | Head):
                nn.init.normal_(module.modulation, std=self.config.d**-0.5, generator=generator)
            elif isinstance(module, RMSNorm | LayerNorm | nn.LayerNorm) and module.weight is not None:
                nn.init.ones_(module.weight)
        for mlp in (self.text_embedding, self.time_embedding):
            nn.init.normal_(mlp.expand.weight, std=0.02, generator=generator)
            nn.init.normal_(mlp.project.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.projection.weight)

    def embed_text(self, text: TextStates, images: TextStates | None = None) -> EmbeddedText:
        """Text, and images where the configuration has them, as the blocks take them.

        `images` holds the image states of each prompt's clip, packed as the text is. Raises `RequestError` for a prompt that is longer than
        `text_length`, and for images that are missing or not wanted.
        """
        length = self.config.text_length
        if max(text.lengths, default=0) > length:
            raise RequestError(
                f"a prompt of {max(text.lengths)} tokens is longer than the backbone's text_length={length}: shorten it"
            )
        if (images is None) != (self.image_embedding is None):
            raise RequestError(
                "the backbone needs an image: give one"
                if images is None
                else "the backbone takes no image states: give none"
            )
        states, lengths, bias = text.states, text.lengths, None
        if self.config.text_padding == "zeros":
            prompts = states.split(lengths)
            paddings = [length - len(prompt) for prompt in prompts]
            states = torch.cat(
                [F.pad(prompt, (0, 0, 0, min(padding, 1))) for prompt, padding in zip(prompts, paddings)]
            )
            lengths = tuple(len(prompt) + min(padding, 1) for prompt, padding in zip(prompts, paddings))
            biases = [
                [0.0] * len(prompt) + [math.log(max(padding, 1))] * min(padding, 1)
                for prompt, padding in zip(prompts, paddings)
            ]
            bias = torch.tensor([value for row in biases for value in row], device=states.device)
        embedded_images = (
            None if images is None or self.image_embedding is None else self.image_embedding(images)
        )
        context = Context(lengths, bias, () if images is None else images.lengths)
        return EmbeddedText(self.text_embedding(states), embedded_images, context)

    def prepare_text(self, text: TextStates, images: TextStates | None = None) -> PreparedText:
        """The part of the forward pass that depends only on text and images; pass the result to `forward` in place of the text."""
        embedded = self.embed_text(text, images)
        blocks = cast(Iterable[DiTBlock], self.blocks)
        return PreparedText(
            tuple(block.cross_attention.keys_values(embedded) for block in blocks), embedded.context
        )

    def embed_time(self, times: Float[Tensor, " u"]) -> tuple[Float[Tensor, "u d"], Float[Tensor, "u 6 d"]]:
        """The embedding of diffusion times in [0, 1], for the head and for the blocks, in float32 even under autocast."""
        with torch.autocast(times.device.type, enabled=False):
            embedded = self.time_embedding(sinusoid(TIMESTEPS * times.float(), self.config.freq_dim))
            return embedded.float(), self.time_projection(F.silu(embedded)).float().unflatten(-1, (6, -1))

    @overload
    def forward(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        times: Tensor,
        time_index: Tensor,
        text: TextStates | PreparedText,
        lengths: tuple[int, ...],
        *,
        features_at: None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        times: Tensor,
        time_index: Tensor,
        text: TextStates | PreparedText,
        lengths: tuple[int, ...],
        *,
        features_at: int,
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        tokens: Float[Tensor, "n token_in"],
        coordinates: Int[Tensor, "n 3"],
        times: Float[Tensor, " u"],
        time_index: Int[Tensor, " n"],
        text: TextStates | PreparedText,
        lengths: tuple[int, ...],
        *,
        features_at: int | None = None,
    ) -> Float[Tensor, "n token_out"] | tuple[Float[Tensor, "n token_out"], Float[Tensor, "n d"]]:
        """The prediction for each token, in head order (pt, ph, pw, c).

        Segment i holds `lengths[i]` tokens and goes with prompt i. `coordinates` are (t, h, w) in patches. Token j has the diffusion time
        `times[time_index[j]]`; the modulation is computed for the distinct times only. With `features_at`, also the hidden states after
        that block (for representation alignment, Yu et al. 2025). Raises `ValueError` when lengths, prompts and tokens do not fit, or
        when there is no such block.
        """
        if sum(lengths) != len(tokens) or len(lengths) != len(text.lengths):
            raise ValueError(
                f"{len(tokens)} tokens in {len(lengths)} segments of {sum(lengths)} in all and {len(text.lengths)} prompts do not fit"
            )
        if features_at is not None and not 0 <= features_at < len(self.blocks):
            raise ValueError(
                f"features_at={features_at}, but the blocks are numbered 0 to {len(self.blocks) - 1}"
            )
        embedded = text if isinstance(text, PreparedText) else self.embed_text(text)
        time, time_blocks = self.embed_time(times)
        rotation = rotations(coordinates, self.config.head_dim)
        seen = Attended.of(lengths, embedded.context, tokens.device)
        x = self.patch_embedding(tokens.to(self.patch_embedding.weight.dtype)).float()
        features = x
        for i, block in enumerate(cast(Iterable[DiTBlock], self.blocks)):
            known = (
                embedded.blocks[i]
                if isinstance(embedded, PreparedText)
                else block.cross_attention.keys_values(embedded)
            )
            step = (
                partial(checkpoint, block, use_reentrant=False)
                if self.activation_checkpointing and torch.is_grad_enabled()
                else block
            )
            x = step(x, time_blocks, time_index, rotation, known, seen)
            if i == features_at:
                features = x
        out = self.head(x, time, time_index)
        return out if features_at is None else (out, features)


def apply_to_grid(
    dit: DiT,
    x: Float[Tensor, "b c lf lh lw"],
    t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
    text: TextStates | PreparedText,
    first_frame: int | Sequence[int] = 0,
) -> Float[Tensor, "b out lf lh lw"]:
    """The prediction of `dit` for latents on a grid, with one time for each clip or for each latent.

    Heights and widths that patches do not divide are padded with their edge values and cropped back. A patch whose latents differ in
    time takes the largest. `first_frame` (for all clips or for each) is the time coordinate of the first latent: 0 when it is an image
    latent, >= 1 for a window of a longer video. Raises `ValueError` when `lf` does not divide into patches.
    """
    b, _, lf, lh, lw = x.shape
    patch = dit.config.patch
    pt, ph, pw = patch
    if lf % pt:
        raise ValueError(f"{lf} latent frames do not divide into patches of {pt}")
    pads = (0, -lw % pw, 0, -lh % ph, 0, 0)
    if any(pads):
        x = F.pad(x, pads, mode="replicate")
    grid = (lf, x.shape[3], x.shape[4])
    num_tokens = prod(grid) // prod(patch)
    if t.ndim == 1:
        times, time_index = t, torch.arange(b, device=x.device).repeat_interleave(num_tokens)
    else:
        t = F.pad(t, pads, mode="replicate") if any(pads) else t
        of_tokens = reduce(t, "b 1 (lf pt) (lh ph) (lw pw) -> (b lf lh lw)", "max", pt=pt, ph=ph, pw=pw)
        times, time_index = of_tokens.unique(return_inverse=True)
    starts = [first_frame] * b if isinstance(first_frame, int) else first_frame
    coordinates = torch.cat([grid_coordinates(*grid, patch, start, x.device) for start in starts])
    tokens = dit(patchify(x, patch), coordinates, times, time_index, text, (num_tokens,) * b)
    return unpatchify(tokens, grid, patch)[..., :lh, :lw]


def apply_to_grids(
    dit: DiT,
    clips: Sequence[Tensor],
    t: Sequence[Tensor],
    text: TextStates | PreparedText,
    first_frames: Sequence[int],
) -> list[Tensor]:
    """The predictions (out, lf, lh, lw) for clips (c, lf, lh, lw) of any sizes, packed into one forward pass.

    `t` (1, lf, lh, lw) has the time of each latent, and a patch the largest of its latents; prompt i goes with clip i. No clip sees
    another, so the predictions and gradients are those of a pass for each. Raises `ValueError` when a size does not divide into patches.
    """
    pt, ph, pw = patch = dit.config.patch
    tokens, coordinates, times, grids = [], [], [], []
    for clip, clip_times, first in zip(clips, t, first_frames, strict=True):
        grid = (clip.shape[1], clip.shape[2], clip.shape[3])
        if any(size % p for size, p in zip(grid, patch)):
            raise ValueError(f"{' x '.join(map(str, grid))} latents do not divide into patches of {patch}")
        grids.append(grid)
        tokens.append(patchify(clip[None], patch))
        coordinates.append(grid_coordinates(*grid, patch, first, clip.device))
        times.append(
            reduce(clip_times, "1 (lf pt) (lh ph) (lw pw) -> (lf lh lw)", "max", pt=pt, ph=ph, pw=pw)
        )
    distinct, time_index = torch.cat(times).unique(return_inverse=True)
    lengths = tuple(len(part) for part in tokens)
    out = dit(torch.cat(tokens), torch.cat(coordinates), distinct, time_index, text, lengths)
    return [unpatchify(part, grid, patch)[0] for part, grid in zip(out.split(lengths), grids)]
