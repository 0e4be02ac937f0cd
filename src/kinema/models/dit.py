"""The diffusion transformer (Peebles and Xie 2023) in the shape of Wan 2.1 and 2.2, on packed tokens.

- The tokens of any number of clips of any sizes are rows of one matrix, with coordinates, a time index and
  segment lengths.
- Every token has its own diffusion time, stored as an index into a table of the few distinct times.
- Modulation is one learned table per block plus one projection of the time for all blocks (adaLN-single).
- Queries and keys are RMS-normalised over the full width, before the split into heads.
- Positions are three-dimensional rotations, in self-attention only. Text enters by cross-attention without a
  gate.
- With `image_dim`, states of still images enter beside the text, with their own keys and values (Wan 2.1).
- The residual stream, the norms and the modulation stay in float32 whatever the dtype of the weights.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, cast

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import TextStates
from kinema.models.dit_blocks import (
    AttentionSegments,
    Context,
    DiTBlock,
    EmbeddedText,
    Head,
    ImageEmbedding,
    PreparedText,
)
from kinema.models.patches import grid_coordinates, patchify, unpatchify
from kinema.nn.embeddings import sinusoid
from kinema.nn.mlp import MLP
from kinema.nn.norms import LayerNorm, RMSNorm
from kinema.nn.parameters import keep_float32
from kinema.nn.rotary import rotations
from kinema.shapes import Float, Int

TIMESTEPS = 1000.0
"""The time embedding of Wan takes timestep = 1000 * t."""


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
        """Channels of an input token: those of a patch of latents."""
        return self.in_channels * prod(self.patch)

    @property
    def token_out(self) -> int:
        """Channels of an output token."""
        return self.out_channels * prod(self.patch)


class DiT(nn.Module):
    """The prediction for each token, from noisy tokens, their coordinates and times, and a prompt."""

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
        self.blocks = nn.ModuleList(
            DiTBlock(d, config.num_heads, config.ffn_dim, config.eps, has_images=config.image_dim is not None)
            for _ in range(config.num_layers)
        )
        self.head = Head(d, config.token_out, config.eps)
        self.activation_checkpointing = False
        """Whether training stores only the input of each block and recomputes its activations."""
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights as Wan does. The head is zero, so a new network predicts zero.

        | Linear (also the patch embedding) | Xavier uniform, zero bias |
        | text and time embedding           | normal, std 0.02          |
        | modulation                        | normal, std 1/sqrt(d)     |
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
        nn.init.zeros_(self.head.projection.weight)

    def embed_text(self, text: TextStates, images: TextStates | None = None) -> EmbeddedText:
        """Text, and images if the configuration has them, in the width of the blocks.

        `images` holds the image states of the clip of each prompt, packed like the text. Raises
        `RequestError` for a prompt longer than `text_length`, for missing images and for images that the
        backbone does not take.
        """
        length = self.config.text_length
        if max(text.lengths, default=0) > length:
            raise RequestError(
                f"a prompt has {max(text.lengths)} tokens; the backbone takes text_length={length}: "
                "shorten the prompt"
            )
        if images is None and self.image_embedding is not None:
            raise RequestError("the backbone needs an image: give one")
        if images is not None and self.image_embedding is None:
            raise RequestError("the backbone takes no image states: give none")

        states, lengths, bias = text.states, text.lengths, None
        if self.config.text_padding == "zeros":
            states, lengths, bias = _with_padding(text, length)
        embedded = self.text_embedding(states)

        if images is None or self.image_embedding is None:
            return EmbeddedText(embedded, None, Context(lengths, bias))
        return EmbeddedText(embedded, self.image_embedding(images), Context(lengths, bias, images.lengths))

    def prepare_text(self, text: TextStates, images: TextStates | None = None) -> PreparedText:
        """The keys and values of all blocks for text and images. `forward` takes them in place of the text.

        Raises `RequestError` as `embed_text` does.
        """
        embedded = self.embed_text(text, images)
        blocks = cast(Iterable[DiTBlock], self.blocks)
        return PreparedText(
            tuple(block.cross_attention.keys_values(embedded) for block in blocks), embedded.context
        )

    def embed_time(self, times: Float[Tensor, " u"]) -> tuple[Float[Tensor, "u d"], Float[Tensor, "u 6 d"]]:
        """Embeddings of times in [0, 1] for the head and for the blocks, in float32 even under autocast."""
        with torch.autocast(times.device.type, enabled=False):
            embedded = self.time_embedding(sinusoid(TIMESTEPS * times.float(), self.config.freq_dim))
            return embedded.float(), self.time_projection(F.silu(embedded)).float().unflatten(-1, (6, -1))

    def forward(
        self,
        tokens: Float[Tensor, "n token_in"],
        coordinates: Int[Tensor, "n 3"],
        times: Float[Tensor, " u"],
        time_index: Int[Tensor, " n"],
        text: TextStates | PreparedText,
        lengths: tuple[int, ...],
    ) -> Float[Tensor, "n token_out"]:
        """The prediction for each token, in the order of the head: (pt, ph, pw, c).

        Segment i holds `lengths[i]` tokens and goes with prompt i. `coordinates` are (t, h, w) in patches.
        Token j has the diffusion time `times[time_index[j]]`; modulation is computed for the distinct times
        only. Raises `ValueError` when lengths, prompts and tokens do not match.
        """
        if sum(lengths) != len(tokens) or len(lengths) != len(text.lengths):
            raise ValueError(
                f"{len(tokens)} tokens do not match {len(lengths)} segments with {sum(lengths)} tokens "
                f"in all and {len(text.lengths)} prompts: give one prompt per segment and lengths that add up"
            )

        embedded = text if isinstance(text, PreparedText) else self.embed_text(text)
        time, time_blocks = self.embed_time(times)
        rotation = rotations(coordinates, self.config.head_dim)
        segments = AttentionSegments.of(lengths, embedded.context, tokens.device)
        x = self.patch_embedding(tokens.to(self.patch_embedding.weight.dtype)).float()

        for i, block in enumerate(cast(Iterable[DiTBlock], self.blocks)):
            if isinstance(embedded, PreparedText):
                keys_values = embedded.blocks[i]
            else:
                keys_values = block.cross_attention.keys_values(embedded)

            arguments = (x, time_blocks, time_index, rotation, keys_values, segments)
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)

        return self.head(x, time, time_index)


def _with_padding(
    text: TextStates, length: int
) -> tuple[Float[Tensor, "s d"], tuple[int, ...], Float[Tensor, " s"]]:
    """Text states with one padding row for each prompt shorter than `length`, the new lengths, and the bias
    of each row.

    The bias of the padding row is the logarithm of the number of rows that it stands for; see `Context`.
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
    return torch.cat(rows), tuple(len(each) for each in rows), bias


def apply_to_grid(
    dit: DiT,
    x: Float[Tensor, "b c lf lh lw"],
    t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
    text: TextStates | PreparedText,
    first_frame: int | Sequence[int] = 0,
) -> Float[Tensor, "b out lf lh lw"]:
    """The prediction of `dit` for latents on a grid, with one time for each clip or for each latent.

    Heights and widths that are no multiple of the patch are padded with their edge values and cropped back. A
    patch takes the largest time of its latents. `first_frame` (for all clips or for each) is the time
    coordinate of the first latent: 0 for an image latent, >= 1 for a window of a longer video. Raises
    `ValueError` when `lf` is no multiple of the patch.
    """
    b, _, lf, lh, lw = x.shape
    patch = dit.config.patch
    pt, ph, pw = patch
    if lf % pt:
        raise ValueError(f"{lf} latent frames are not a multiple of {pt}, the length of a patch")

    pads = (0, -lw % pw, 0, -lh % ph, 0, 0)
    if any(pads):
        x = F.pad(x, pads, mode="replicate")
    grid = (lf, x.shape[3], x.shape[4])
    num_tokens = prod(grid) // prod(patch)

    if t.ndim == 1:
        times, time_index = t, torch.arange(b, device=x.device).repeat_interleave(num_tokens)
    else:
        t = F.pad(t, pads, mode="replicate") if any(pads) else t
        per_token = reduce(t, "b 1 (lf pt) (lh ph) (lw pw) -> (b lf lh lw)", "max", pt=pt, ph=ph, pw=pw)
        times, time_index = per_token.unique(return_inverse=True)

    first_frames = [first_frame] * b if isinstance(first_frame, int) else first_frame
    coordinates = torch.cat([grid_coordinates(*grid, patch, first, x.device) for first in first_frames])
    tokens = dit(patchify(x, patch), coordinates, times, time_index, text, (num_tokens,) * b)
    return unpatchify(tokens, grid, patch)[..., :lh, :lw]


def apply_to_grids(
    dit: DiT,
    clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
    t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
    text: TextStates | PreparedText,
    first_frames: Sequence[int],
) -> list[Tensor]:
    """The predictions (out, lf, lh, lw) for clips of any sizes, packed into one forward pass.

    `t` has the time of each latent; a patch takes the largest of its latents. Prompt i goes with clip i.
    Clips do not attend to each other, so predictions and gradients equal those of one pass per clip. Raises
    `ValueError` for a size that is no multiple of the patch.
    """
    patch = dit.config.patch
    pt, ph, pw = patch
    tokens, coordinates, times, grids = [], [], [], []

    for clip, clip_times, first in zip(clips, t, first_frames, strict=True):
        grid = (clip.shape[1], clip.shape[2], clip.shape[3])
        if any(size % p for size, p in zip(grid, patch)):
            raise ValueError(f"{' x '.join(map(str, grid))} latents are not a multiple of the patch {patch}")

        grids.append(grid)
        tokens.append(patchify(clip[None], patch))
        coordinates.append(grid_coordinates(*grid, patch, first, clip.device))
        times.append(
            reduce(clip_times, "1 (lf pt) (lh ph) (lw pw) -> (lf lh lw)", "max", pt=pt, ph=ph, pw=pw)
        )

    distinct, time_index = torch.cat(times).unique(return_inverse=True)
    lengths = tuple(len(each) for each in tokens)
    out = dit(torch.cat(tokens), torch.cat(coordinates), distinct, time_index, text, lengths)
    return [unpatchify(each, grid, patch)[0] for each, grid in zip(out.split(lengths), grids)]
