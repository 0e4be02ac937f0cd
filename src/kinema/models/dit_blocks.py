"""The parts of the DiT: attention, block and head on packed tokens, and the rows that cross-attention reads.

Lengths are tuples with one entry per segment: `lengths[i]` tokens belong to clip i and go with prompt i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.errors import RequestError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.patches import Patch
from kinema.nn.attention import Segments, attend_within
from kinema.nn.mlp import MLP
from kinema.nn.norms import LayerNorm, RMSNorm
from kinema.nn.parameters import keep_float32
from kinema.nn.rotary import rotate
from kinema.shapes import Complex, Float, Int

KeyValuePair = tuple[Float[Tensor, "_ k dh"], Float[Tensor, "_ k dh"]]
KeysValues = tuple[KeyValuePair, ...]
"""Cross-attention keys and values of one block: of the text, then of the images if there are any."""


@dataclass(frozen=True, eq=False)
class Attended:
    """Rows that cross-attention reads, text or images, in the width of the backbone, with one run of rows per
    clip. `bias` is added to the scores of each row.

    With `text_padding` "zeros" all padding rows of a prompt are equal. One row with the bias log(n) stands
    for n of them, since n * exp(score) = exp(score + log(n)) in the softmax. For `text_length` 6 and a prompt
    of two tokens:

        as in Wan:  a  b  0  0  0  0
        here:       a  b  0           with the bias  0  0  log(4)
    """

    rows: Float[Tensor, "s d"]
    lengths: tuple[int, ...]
    bias: Float[Tensor, " s"] | None = None

    @classmethod
    def cat(cls, parts: "Sequence[Attended]") -> "Attended":
        """The rows of all clips of `parts` in order."""
        biases = [part.bias for part in parts if part.bias is not None]
        return cls(
            torch.cat([part.rows for part in parts]),
            tuple(length for part in parts for length in part.lengths),
            torch.cat(biases) if biases else None,
        )


def with_padding(text: TextStates, length: int) -> Attended:
    """The states of prompts, with one padding row for each prompt shorter than `length`.

    The bias of that row is the logarithm of the number of rows that it stands for; see `Attended`.
    """
    rows: list[Tensor] = []
    biases: list[float] = []

    for prompt in text.states.split(text.lengths):
        num_padding = length - len(prompt)
        rows.append(F.pad(prompt, (0, 0, 0, min(num_padding, 1))))
        biases += [0.0] * len(prompt)
        if num_padding > 0:
            biases.append(math.log(num_padding))

    bias = torch.tensor(biases, device=text.states.device)
    return Attended(torch.cat(rows), tuple(len(each) for each in rows), bias)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A conditioning in the width of the blocks: the text and then the images, if there are any.

    `keys_values` has an entry per block. If it is None, the blocks compute it from the rows.
    """

    conditioning: Conditioning
    attended: tuple[Attended, ...]
    keys_values: tuple[KeysValues, ...] | None = None


def cat_pairs(pairs: Sequence[KeyValuePair]) -> KeyValuePair:
    """The keys and the values of all pairs in order."""
    return torch.cat([keys for keys, _ in pairs]), torch.cat([values for _, values in pairs])


@dataclass(frozen=True, eq=False)
class TimeTable:
    """The distinct pairs of a diffusion time and a vector, and the index of the pair of each token.

    Without vectors the pairs are the times.
    """

    times: Float[Tensor, " u"]
    index: Int[Tensor, " n"]
    vectors: Float[Tensor, "u v"] | None = None

    @classmethod
    def of(
        cls,
        t: Float[Tensor, " b"] | Sequence[Float[Tensor, "1 _lf _lh _lw"]],
        grids: Sequence[tuple[int, int, int]],
        conditioning: Sequence[Conditioning],
        patch: Patch,
    ) -> "TimeTable":
        """The table of the tokens of several clips of `grids` = (lf, lh, lw) latents.

        `t` is a time for each clip, or for each latent: then a patch takes the largest time of its latents.
        A patch takes the mean vector of its frames.
        """
        pt, ph, pw = patch
        rows = [_vector_rows(own, pt) for own in conditioning]
        starts = accumulate((len(own) for own in rows[:-1]), initial=0)
        row_index = torch.cat(
            [
                torch.arange(start, start + len(own), device=own.device)[:, None]
                .expand(lf // pt, (lh // ph) * (lw // pw))
                .flatten()
                for start, own, (lf, lh, lw) in zip(starts, rows, grids, strict=True)
            ]
        )
        vectors = torch.cat(rows) if rows[0].shape[1] else None
        if isinstance(t, Tensor):
            return cls(torch.cat([time.expand(len(own)) for time, own in zip(t, rows)]), row_index, vectors)

        pattern = "1 (lf pt) (lh ph) (lw pw) -> (lf lh lw)"
        times = torch.cat([reduce(each, pattern, "max", pt=pt, ph=ph, pw=pw) for each in t])
        if vectors is None:
            return cls(*times.unique(return_inverse=True))
        pairs, index = torch.stack([times, row_index.to(times)], 1).unique(dim=0, return_inverse=True)
        return cls(pairs[:, 0], index, vectors[pairs[:, 1].long()])


def _vector_rows(conditioning: Conditioning, pt: int) -> Float[Tensor, "m v"]:
    """The vector of a clip followed by those of its frames: one row for all tokens, or one for each `pt`
    latent frames. Without vectors its width is 0."""
    clip, frames = conditioning.clip_vectors, conditioning.frame_vectors
    rows = conditioning.text.states.new_zeros(1, 0) if clip is None else clip
    if frames is None:
        return rows.float()
    frame_rows = reduce(frames[0], "(lf pt) r -> lf r", "mean", pt=pt)
    return torch.cat([rows.expand(len(frame_rows), -1), frame_rows], dim=1).float()


class SelfAttention(nn.Module):
    """Attention among the tokens of a clip, with rotated queries and keys."""

    def __init__(self, d: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.heads = (num_heads, d // num_heads)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, eps), RMSNorm(d, eps)

    def forward(
        self, x: Float[Tensor, "n d"], rotation: Complex[Tensor, "n half_dh"], segments: Segments
    ) -> Float[Tensor, "n d"]:
        """Attention of the tokens (n, d) among those of their own segment."""
        q = rotate(self.norm_q(self.to_q(x)).unflatten(-1, self.heads), rotation)
        k = rotate(self.norm_k(self.to_k(x)).unflatten(-1, self.heads), rotation)
        v = self.to_v(x).unflatten(-1, self.heads)
        return self.to_out(attend_within(q, k, v, segments).flatten(-2))


class CrossAttention(nn.Module):
    """Attention of the tokens of a clip to its prompt, plus, with `has_images`, attention to its images."""

    def __init__(self, d: int, num_heads: int, eps: float, *, has_images: bool) -> None:
        super().__init__()
        self.heads = (num_heads, d // num_heads)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, eps), RMSNorm(d, eps)
        if has_images:
            self.to_k_image, self.to_v_image = nn.Linear(d, d), nn.Linear(d, d)
            self.norm_k_image = RMSNorm(d, eps)

    def keys_values(self, attended: Sequence[Attended]) -> KeysValues:
        """Keys and values of the text, and of the images if there are any."""
        text, *images = attended
        keys = self.norm_k(self.to_k(text.rows)).unflatten(-1, self.heads)
        pairs = [(keys, self.to_v(text.rows).unflatten(-1, self.heads))]
        for image in images:
            keys = self.norm_k_image(self.to_k_image(image.rows)).unflatten(-1, self.heads)
            pairs.append((keys, self.to_v_image(image.rows).unflatten(-1, self.heads)))
        return tuple(pairs)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        given: KeysValues | tuple[Attended, ...],
        segments: tuple[Segments, ...],
    ) -> Float[Tensor, "n d"]:
        """The sum of the attentions of the tokens (n, d) to the text, and to the images if there are any."""
        keys_values = self.keys_values(given) if isinstance(given[0], Attended) else given
        q = self.norm_q(self.to_q(x)).unflatten(-1, self.heads)
        out = attend_within(q, *keys_values[0], segments[0])
        for pair, own in zip(keys_values[1:], segments[1:], strict=True):
            out = out + attend_within(q, *pair, own)
        return self.to_out(out.flatten(-2))


class ImageEmbedding(nn.Module):
    """Image states in the width of the backbone: optional positions, norm, MLP with the exact GELU, norm."""

    def __init__(self, image_dim: int, d: int, num_positions: int | None) -> None:
        super().__init__()
        self.positions = (
            None if num_positions is None else nn.Parameter(torch.zeros(1, num_positions, image_dim))
        )
        self.norm_in, self.norm_out = nn.LayerNorm(image_dim), nn.LayerNorm(d)
        self.expand, self.project = nn.Linear(image_dim, image_dim), nn.Linear(image_dim, d)

    def forward(self, images: TextStates) -> Float[Tensor, "m d"]:
        """The embedded states of the images of all clips.

        Raises `RequestError` when a clip does not have as many states as there are positions.
        """
        states = images.states.to(self.expand.weight.dtype)
        if self.positions is not None:
            num_positions = self.positions.shape[1]
            if set(images.lengths) != {num_positions}:
                raise RequestError(
                    f"the backbone takes {num_positions} image states per clip, not {images.lengths}: "
                    "give the first and the last image"
                )
            states = (states.unflatten(0, (-1, num_positions)) + self.positions).flatten(0, 1)
        return self.norm_out(self.project(F.gelu(self.expand(self.norm_in(states)))))


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and MLP around a residual stream.

    The time modulates and gates the self-attention and the MLP.
    """

    uses_muon = True

    def __init__(self, d: int, num_heads: int, ffn_dim: int, eps: float, *, has_images: bool) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 6, d))
        keep_float32(self, "modulation")
        self.norm_self = LayerNorm(d, eps, affine=False)
        self.self_attention = SelfAttention(d, num_heads, eps)
        self.norm_cross = LayerNorm(d, eps)
        self.cross_attention = CrossAttention(d, num_heads, eps, has_images=has_images)
        self.norm_mlp = LayerNorm(d, eps, affine=False)
        self.mlp = MLP(d, ffn_dim, d)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        time: Float[Tensor, "u six d"],
        time_index: Int[Tensor, " n"],
        rotation: Complex[Tensor, "n half_dh"],
        segments: Segments,
        given: KeysValues | tuple[Attended, ...],
        cross_segments: tuple[Segments, ...],
    ) -> Float[Tensor, "n d"]:
        """The tokens (n, d) after attention, cross-attention and MLP, each added to its input.

        `given` is what the tokens attend to beside themselves: rows, or their keys and values. `segments` are
        the clips, `cross_segments` those of each entry of `given`. In training the rows are given, because
        the weights of a sharded block are whole only within this call.
        """
        dtype = self.mlp.expand.weight.dtype
        shift_self, scale_self, gate_self, shift_mlp, scale_mlp, gate_mlp = (
            self.modulation.float() + time
        ).unbind(1)

        hidden = _modulate(self.norm_self(x), shift_self, scale_self, time_index).to(dtype)
        x = x + self.self_attention(hidden, rotation, segments) * _per_token(gate_self, time_index)

        x = x + self.cross_attention(self.norm_cross(x).to(dtype), given, cross_segments)

        hidden = _modulate(self.norm_mlp(x), shift_mlp, scale_mlp, time_index).to(dtype)
        return x + self.mlp(hidden) * _per_token(gate_mlp, time_index)


class Head(nn.Module):
    """Norm, modulation by the time, and the linear layer to patches in the order (pt, ph, pw, c)."""

    def __init__(self, d: int, token_out: int, eps: float) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, d))
        keep_float32(self, "modulation")
        self.norm = LayerNorm(d, eps, affine=False)
        self.projection = nn.Linear(d, token_out)

    def forward(
        self, x: Float[Tensor, "n d"], time: Float[Tensor, "u d"], time_index: Int[Tensor, " n"]
    ) -> Float[Tensor, "n token_out"]:
        """The prediction for every token: (n, channels of a patch)."""
        shift, scale = (self.modulation.float() + time[:, None]).unbind(1)
        hidden = _modulate(self.norm(x), shift, scale, time_index)
        return self.projection(hidden.to(self.projection.weight.dtype))


def _modulate(
    x: Float[Tensor, "n d"],
    shift: Float[Tensor, "u d"],
    scale: Float[Tensor, "u d"],
    time_index: Int[Tensor, " n"],
) -> Float[Tensor, "n d"]:
    """`x * (1 + scale) + shift` with the shift and scale of the time of each token."""
    return x * _per_token(1 + scale, time_index) + _per_token(shift, time_index)


def _per_token(table: Float[Tensor, "u d"], time_index: Int[Tensor, " n"]) -> Float[Tensor, "n_or_one d"]:
    """The row of the time of each token. A single time broadcasts its row and copies nothing."""
    return table if len(table) == 1 else F.embedding(time_index, table)
