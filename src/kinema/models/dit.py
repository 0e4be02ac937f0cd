"""The diffusion transformer (Peebles and Xie 2023) in the shape of Wan 2.1 and 2.2, on packed tokens.

- The tokens of any number of clips of any sizes are rows of one matrix, with coordinates, a time index and
  segment lengths.
- Every token has its own diffusion time, stored as an index into a table of the few distinct times.
- Modulation is one learned table per block plus one projection of the time for all blocks (adaLN-single).
- Queries and keys are RMS-normalised over the full width, before the split into heads.
- Positions are three-dimensional rotations, in self-attention only. Text enters by cross-attention without a
  gate.
- With `image_dim`, states of still images enter beside the text, with their own keys and values (Wan 2.1).
- With `vector_dim` and `frame_vector_dim`, vectors per clip and per latent frame are added to the time
  embedding: modulation has one row per distinct pair of time and vector.
- The residual stream, the norms and the modulation stay in float32 whatever the dtype of the weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kinema.distributed.sequence import Spread
from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit_blocks import (
    Attended,
    DiTBlock,
    Head,
    ImageEmbedding,
    Prepared,
    TimeTable,
    cat_pairs,
    with_padding,
)
from kinema.models.patches import grid_coordinates, patchify, unpatchify
from kinema.nn.attention import Segments
from kinema.nn.embeddings import sinusoid
from kinema.nn.mlp import MLP
from kinema.nn.norms import LayerNorm, RMSNorm
from kinema.nn.parameters import keep_float32
from kinema.nn.rotary import rotations
from kinema.shapes import Float, Int

TIMESTEPS = 1000.0
"""The time embedding of Wan takes timestep = 1000 * t."""
IMAGE_TOKENS = 257
"""Hidden states of one image: a ViT with 16x16 patches and the class token."""


POSITIVE_SIZES = (
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


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT. The defaults are a small model.

    Wan 2.1 1.3B has d=1536, num_layers=30, num_heads=12, ffn_dim=8960 and text_dim=4096. Raises `ConfigError`
    for sizes that do not fit together.
    """

    in_channels: int = 16
    out_channels: int = 16
    d: int = 256
    num_layers: int = 8
    num_heads: int = 4
    ffn_dim: int = 1024
    text_dim: int = 256
    freq_dim: int = 256
    """Width of the sinusoid that enters the time embedding."""
    patch: tuple[int, int, int] = (1, 2, 2)
    """Latents along (lf, lh, lw) per token."""
    text_padding: Literal["masked", "zeros"] = "masked"
    """How prompts are padded.

    With "masked" a token attends only to the text tokens of its prompt. With "zeros" prompts are padded with
    zeros to `text_length` and the padding is attended to, as in Wan.
    """
    text_length: int = 512
    """Most text tokens of a prompt."""
    eps: float = 1e-6
    image_dim: int | None = None
    """Width of the image states of Wan 2.1 image-to-video."""
    image_positions: int | None = None
    """Number of image states per clip, where they have learned positions."""
    vector_dim: int | None = None
    """Width of the vector of a clip: `Conditioning.clip_vectors`."""
    frame_vector_dim: int | None = None
    """Width of the vector of a latent frame."""

    def __post_init__(self) -> None:
        for name in POSITIVE_SIZES:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be more than 0")
        if min(self.patch) < 1:
            raise ConfigError(f"patch={self.patch} must be three numbers of 1 or more")

        if self.d % self.num_heads:
            raise ConfigError(f"d={self.d} must be a multiple of num_heads={self.num_heads}")
        if self.head_dim % 2 or self.head_dim < 6:
            raise ConfigError(
                f"d={self.d} with num_heads={self.num_heads} gives heads of {self.head_dim} channels: "
                "RoPE needs an even number, at least 6"
            )

        if self.image_positions is not None and self.image_dim is None:
            raise ConfigError(
                f"image_positions={self.image_positions} needs image_dim, the width of the image states"
            )
        for name in ("image_dim", "image_positions", "vector_dim", "frame_vector_dim"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")

        if self.freq_dim % 2:
            raise ConfigError(f"freq_dim={self.freq_dim} must be even")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.d // self.num_heads

    @property
    def all_vectors_dim(self) -> int:
        """Width of the vectors that are added to the time embedding, 0 without them."""
        return (self.vector_dim or 0) + (self.frame_vector_dim or 0)

    @property
    def token_in(self) -> int:
        """Channels of an input token: those of a patch of latents."""
        return self.in_channels * prod(self.patch)

    @property
    def token_out(self) -> int:
        """Channels of an output token."""
        return self.out_channels * prod(self.patch)


class DiT(nn.Module):
    """The prediction for each token, from noisy tokens, their coordinates and times, and a conditioning.

    It implements `kinema.models.backbone.Backbone`.
    """

    time_per_token = True

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.out_channels = config.in_channels, config.out_channels
        self.text_width, self.patch = config.text_dim, config.patch
        d = config.d
        self.patch_embedding = nn.Linear(config.token_in, d)
        self.text_embedding = MLP(config.text_dim, d, d)
        self.time_embedding = keep_float32(MLP(config.freq_dim, d, d, "silu"))
        self.time_projection = keep_float32(nn.Linear(d, 6 * d))
        vectors_dim = config.all_vectors_dim
        self.condition_embedding = keep_float32(MLP(vectors_dim, d, d, "silu")) if vectors_dim else None
        self.image_embedding = (
            None if config.image_dim is None else ImageEmbedding(config.image_dim, d, config.image_positions)
        )
        self.blocks = nn.ModuleList(
            DiTBlock(d, config.num_heads, config.ffn_dim, config.eps, has_images=config.image_dim is not None)
            for _ in range(config.num_layers)
        )
        self.head = Head(d, config.token_out, config.eps)
        self.activation_checkpointing = False
        """Whether training stores only the input of each block and recomputes its activations."""
        self.sequence_group: dist.ProcessGroup | None = None
        """Ranks that share the tokens of a forward pass; see `spread_over`."""
        self.init_weights()

    def spread_over(self, group: dist.ProcessGroup) -> None:
        """Spread the tokens of a forward pass over the ranks of `group`, which call it with the same clips.

        Raises `ConfigError` for heads that do not divide among the ranks.
        """
        if self.config.num_heads % group.size():
            raise ConfigError(
                f"num_heads = {self.config.num_heads} does not divide among {group.size()} ranks: "
                "set parallel.sequence to a divisor"
            )
        self.sequence_group = group

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights as Wan does. The head is zero, so a new network predicts zero.

        | Linear (also the patch embedding) | Xavier uniform, zero bias |
        | text and time embedding           | normal, std 0.02          |
        | modulation                        | normal, std 1/sqrt(d)     |
        | last layer of the vectors' MLP    | zero                      |
        | head                              | zero                      |

        On the meta device nothing is drawn.
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
        if self.condition_embedding is not None:
            nn.init.zeros_(self.condition_embedding.project.weight)
        nn.init.zeros_(self.head.projection.weight)

    def prepare(self, conditioning: Conditioning) -> Prepared:
        """The keys and values of all blocks. A clip's do not depend on the other clips.

        Raises `RequestError` for a prompt longer than `text_length`, for missing images and for images that
        the backbone does not take.
        """
        blocks = cast(Iterable[DiTBlock], self.blocks)
        clips = [self._embed(clip) for clip in conditioning.split()]
        keys_values = tuple(
            tuple(map(cat_pairs, zip(*(block.cross_attention.keys_values(clip.attended) for clip in clips))))
            for block in blocks
        )
        attended = tuple(Attended.cat(parts) for parts in zip(*(clip.attended for clip in clips)))
        return Prepared(conditioning, attended, keys_values)

    def _embed(self, conditioning: Conditioning) -> Prepared:
        """Text and images in the width of the blocks. Raises `RequestError` as `prepare` does."""
        text, images, length = conditioning.text, conditioning.images, self.config.text_length
        if max(text.lengths, default=0) > length:
            raise RequestError(
                f"a prompt has {max(text.lengths)} tokens; the backbone takes text_length={length}: "
                "shorten the prompt"
            )
        if images is None and self.image_embedding is not None:
            raise RequestError("the backbone needs an image: give one")
        if images is not None and self.image_embedding is None:
            raise RequestError("the backbone takes no image states: give none")

        pads = self.config.text_padding == "zeros"
        padded = with_padding(text, length) if pads else Attended(text.states, text.lengths)
        attended: tuple[Attended, ...] = (replace(padded, rows=self.text_embedding(padded.rows)),)
        if images is not None and self.image_embedding is not None:
            attended += (Attended(self.image_embedding(images), images.lengths),)
        return Prepared(conditioning, attended)

    def embed_time(
        self, times: Float[Tensor, " u"], vectors: Float[Tensor, "u v"] | None = None
    ) -> tuple[Float[Tensor, "u d"], Float[Tensor, "u 6 d"]]:
        """Embeddings of pairs of a time in [0, 1] and a vector, for the head and for the blocks, in float32
        even under autocast.

        Raises `RequestError` for vectors that are missing, not taken or of another width.
        """
        wanted, given = self.config.all_vectors_dim, 0 if vectors is None else vectors.shape[1]
        if given != wanted:
            raise RequestError(
                f"the backbone takes vectors of width {self.config.vector_dim or 0} per clip and "
                f"{self.config.frame_vector_dim or 0} per latent frame; the width given is {given} in all"
            )
        with torch.autocast(times.device.type, enabled=False):
            embedded = self.time_embedding(sinusoid(TIMESTEPS * times.float(), self.config.freq_dim))
            if self.condition_embedding is not None and vectors is not None:
                embedded = embedded + self.condition_embedding(vectors)
            return embedded.float(), self.time_projection(F.silu(embedded)).float().unflatten(-1, (6, -1))

    def forward(
        self,
        tokens: Float[Tensor, "n token_in"],
        coordinates: Int[Tensor, "n 3"],
        table: TimeTable,
        prepared: Prepared | Conditioning,
        lengths: tuple[int, ...],
    ) -> Float[Tensor, "n token_out"]:
        """The prediction for each token, in the order of the head: (pt, ph, pw, c).

        Segment i holds `lengths[i]` tokens and goes with prompt i. `coordinates` are (t, h, w) in patches.
        Modulation is computed for the distinct times and vectors of `table` only. Raises `ValueError` when
        lengths, prompts and tokens do not match, and `RequestError` for other vectors than it takes.
        """
        given = prepared if isinstance(prepared, Prepared) else self._embed(prepared)
        if sum(lengths) != len(tokens) or len(lengths) != len(given.conditioning):
            raise ValueError(
                f"{len(tokens)} tokens do not match {len(lengths)} segments with {sum(lengths)} tokens "
                f"in all and {len(given.conditioning)} prompts: give one prompt per segment and lengths "
                "that add up"
            )

        time, time_blocks = self.embed_time(table.times, table.vectors)
        segments, index = Segments.of(lengths, lengths, tokens.device), table.index
        spread = None if self.sequence_group is None else Spread.of(self.sequence_group, len(tokens))
        if spread is not None:
            tokens, coordinates, index = (spread.own(rows) for rows in (tokens, coordinates, index))
            segments, lengths = replace(segments, spread=spread), spread.own_lengths(lengths)
        rotation = rotations(coordinates, self.config.head_dim)
        cross = tuple(Segments.of(lengths, each.lengths, tokens.device, each.bias) for each in given.attended)
        x = self.patch_embedding(tokens.to(self.patch_embedding.weight.dtype)).float()

        for i, block in enumerate(cast(Iterable[DiTBlock], self.blocks)):
            attended = given.attended if given.keys_values is None else given.keys_values[i]
            arguments = (x, time_blocks, index, rotation, segments, attended, cross)
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)

        out = self.head(x, time, index)
        return out if spread is None else spread.gather(out)

    def predict(
        self,
        latents: Float[Tensor, "b c lf lh lw"],
        t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
        prepared: Prepared | Conditioning,
        first_frame: int | Sequence[int] = 0,
    ) -> Float[Tensor, "b out lf lh lw"]:
        """The prediction for latents on a grid; see `Backbone.predict`.

        Heights and widths that are no multiple of the patch are padded with their edge values and cropped
        back. Raises `ValueError` when `lf` is no multiple of the patch.
        """
        given = prepared.conditioning if isinstance(prepared, Prepared) else prepared
        times = t if t.ndim == 1 else list(t)
        first_frames = [first_frame] * len(latents) if isinstance(first_frame, int) else first_frame
        return torch.stack(self._predict(list(latents), times, given.split(), first_frames, prepared))

    def predict_packed(
        self,
        clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
        t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
        conditioning: Sequence[Conditioning],
        first_frames: Sequence[int],
    ) -> list[Tensor]:
        """The predictions (out, lf, lh, lw) for clips of any sizes, packed into one forward pass; see
        `Backbone.predict_packed`.

        Clips do not attend to each other, so predictions and gradients equal those of one pass per clip.
        """
        attended = Conditioning.cat([Conditioning(own.text, own.images) for own in conditioning])
        return self._predict(clips, t, conditioning, first_frames, attended)

    def _predict(
        self,
        clips: Sequence[Tensor],
        t: Tensor | Sequence[Tensor],
        conditioning: Sequence[Conditioning],
        first_frames: Sequence[int],
        prepared: Prepared | Conditioning,
    ) -> list[Tensor]:
        """The predictions for clips in one forward pass. `prepared` is what they attend to."""
        pt, ph, pw = self.patch
        tokens, coordinates, times, grids = [], [], [], []

        for clip, time, own, first in zip(clips, t, conditioning, first_frames, strict=True):
            x = clip if own.channels is None else torch.cat([clip, own.channels[0]])
            _, lf, lh, lw = x.shape
            if lf % pt:
                raise ValueError(f"{lf} latent frames are not a multiple of {pt}, the length of a patch")
            pads = (0, -lw % pw, 0, -lh % ph, 0, 0)
            x = F.pad(x[None], pads, mode="replicate")

            grids.append((lf, x.shape[3], x.shape[4]))
            tokens.append(patchify(x, self.patch))
            coordinates.append(grid_coordinates(*grids[-1], self.patch, first, x.device))
            if not isinstance(t, Tensor):
                times.append(F.pad(time[None], pads, mode="replicate")[0])

        table = TimeTable.of(t if isinstance(t, Tensor) else times, grids, conditioning, self.patch)
        lengths = tuple(len(each) for each in tokens)
        out = self(torch.cat(tokens), torch.cat(coordinates), table, prepared, lengths).split(lengths)
        return [
            unpatchify(own, grid, self.patch)[0, ..., : clip.shape[2], : clip.shape[3]]
            for own, grid, clip in zip(out, grids, clips)
        ]


def dit_example(config: DiTConfig, num_clips: int, num_tokens: int, num_frames: int) -> Conditioning:
    """Conditioning of the usual shapes with values that are not initialised; see `BackboneEntry.example`."""

    def states(length: int, width: int) -> TextStates:
        return TextStates(torch.empty(num_clips * length, width), (length,) * num_clips)

    return Conditioning(
        states(num_tokens, config.text_dim),
        states(config.image_positions or IMAGE_TOKENS, config.image_dim) if config.image_dim else None,
        torch.empty(num_clips, config.vector_dim) if config.vector_dim else None,
        torch.empty(num_clips, num_frames, config.frame_vector_dim) if config.frame_vector_dim else None,
    )
