"""CLIP (Radford et al. 2021): a text tower and a video tower whose embeddings agree where a caption fits a clip.

The text tower's states, one a word, condition the backbone; the agreement of the two towers scores results and prompts.
Captions of both languages are trained against the same clips, so English and Chinese share one space.
Deviations: text is read in both directions (it conditions, it does not predict), pooling is the mean, the video tower
sees a few frames of a clip (an image is a one-frame clip), and captions wrong in one word stand among the candidates.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.conditioning import TextStates
from kinema.nn.norms import LayerNorm
from kinema.nn.transformer import TransformerBlock
from kinema.prompts.tokenizer import Tokenizer
from kinema.shapes import Float

MAX_LOGIT_SCALE = 100.0
INITIAL_LOGIT_SCALE = 1 / 0.07
"""Radford et al. 2021, section 2.5: the temperature starts at 0.07 and logits are never scaled by more than 100."""


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both towers. The defaults are about 0.7 GFLOP a clip in the video tower."""

    vocabulary_size: int = 0
    """Tokens of the tokenizer that goes with it; a recipe leaves it to the world."""
    max_length: int = 96
    text_width: int = 192
    text_layers: int = 3
    text_heads: int = 4
    video_width: int = 128
    video_layers: int = 4
    video_heads: int = 4
    video_size: int = 64
    """Pixels of a side: clips of any size are area-resized to a square of it."""
    num_frames: int = 5
    """Frames looked at, spread evenly over the clip."""
    patch: int = 8
    motion: bool = False
    """Whether each frame comes with its difference from the one before: which way a thing goes is then in a single patch."""
    embed_dim: int = 192

    def __post_init__(self) -> None:
        if self.patch < 2 or self.patch & (self.patch - 1):
            raise ConfigError(
                f"patch={self.patch} must be a power of two, at least 2: the stem halves the picture at each layer"
            )
        for name, size, divisor_name, divisor in (
            ("video_size", self.video_size, "patch", self.patch),
            ("text_width", self.text_width, "text_heads", self.text_heads),
            ("video_width", self.video_width, "video_heads", self.video_heads),
        ):
            if divisor < 1 or size < 1 or size % divisor:
                raise ConfigError(f"{name}={size} must be a multiple of {divisor_name}={divisor}")
        if self.max_length < 3 or self.num_frames < 1:
            raise ConfigError(
                f"max_length={self.max_length} must be at least 3 and num_frames={self.num_frames} at least 1"
            )


class TextTower(nn.Module):
    """Token ids to one state a token and one embedding a text."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary_size, config.text_width)
        self.positions = nn.Embedding(config.max_length, config.text_width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.text_width, config.text_heads) for _ in range(config.text_layers)
        )
        self.norm = LayerNorm(config.text_width)
        self.projection = nn.Linear(config.text_width, config.embed_dim, bias=False)
        _init_tower(self.blocks, (self.words.weight, self.positions.weight), self.projection)

    def forward(self, ids: Sequence[Sequence[int]]) -> tuple[TextStates, Float[Tensor, "b d"]]:
        """States of every token, packed, and unit embeddings of the texts, made of their mean.

        A state is the final norm's output plus the word's own normalised embedding. Without it the states of words that contrast has not
        told apart yet fall together: those of "left" and "right" differed by 1 to 10 % after 1,500 steps, and no backbone on top of
        them could learn a direction.
        """
        device = self.words.weight.device
        lengths = tuple(len(text) for text in ids)
        packed = torch.tensor([token for text in ids for token in text], device=device)
        places = torch.tensor([place for length in lengths for place in range(length)], device=device)
        words = self.words(packed)
        x = words + self.positions(places)
        for block in self.blocks:
            x = block(x, lengths)
        states = self.norm(x) + F.layer_norm(words, words.shape[-1:])
        pooled = torch.stack([text.mean(dim=0) for text in states.split(lengths)])
        return TextStates(states, lengths), F.normalize(self.projection(pooled), dim=-1)


class VideoTower(nn.Module):
    """Clips to one embedding each: a convolutional stem a frame, then a transformer over all patches of all frames.

    The stem halves the picture at every layer instead of cutting it into patches at once (Xiao et al. 2021, "Early
    convolutions help transformers see better").
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.size, self.num_frames, self.motion = config.video_size, config.num_frames, config.motion
        width, grid = config.video_width, config.video_size // config.patch
        halvings = int(math.log2(config.patch))
        channels = (
            6 if config.motion else 3,
            *(max(width >> (halvings - i), 8) for i in range(1, halvings)),
            width,
        )
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(channels):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU(approximate="tanh")]
        self.stem = nn.Sequential(*layers, nn.Conv2d(width, width, 1))
        self.places = nn.Parameter(torch.empty(grid * grid, width))
        self.times = nn.Parameter(torch.empty(config.num_frames, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.video_heads) for _ in range(config.video_layers)
        )
        self.norm = LayerNorm(width)
        self.projection = nn.Linear(width, config.embed_dim, bias=False)
        _init_tower(self.blocks, (self.places, self.times), self.projection)

    def forward(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d"]:
        """Unit embeddings of clips in [-1, 1] of any size and length."""
        return self.embed(self.pooled(video))

    def embed(self, pooled: Float[Tensor, "b d1"]) -> Float[Tensor, "b d2"]:
        """Unit embeddings of what `pooled` gives."""
        return F.normalize(self.projection(pooled), dim=-1)

    def pooled(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d"]:
        """The mean of the last states of all patches."""
        b = video.shape[0]
        frames, times = chosen_frames(video.shape[2], self.num_frames)
        pixels = rearrange(video[:, :, frames], "b c f h w -> (b f) c h w")
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="area")
        if self.motion:
            clips = rearrange(pixels, "(b f) c h w -> b f c h w", b=b)
            differences = F.pad(
                clips.diff(dim=1), (0, 0, 0, 0, 0, 0, 1, 0)
            )  # the first frame has none: zeros
            pixels = torch.cat([pixels, rearrange(differences, "b f c h w -> (b f) c h w")], dim=1)
        patches = rearrange(self.stem(pixels), "(b f) d h w -> b f (h w) d", b=b)
        x = patches + self.places + rearrange(self.times[times], "f d -> f 1 d")
        lengths = (x.shape[1] * x.shape[2],) * b
        x = rearrange(x, "b f n d -> (b f n) d")
        for block in self.blocks:
            x = block(x, lengths)
        return reduce(self.norm(x), "(b n) d -> b d", "mean", b=b)


class CLIP(nn.Module):
    """Both towers, the tokenizer and the learned temperature."""

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if len(tokenizer) != config.vocabulary_size or tokenizer.max_length > config.max_length:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and texts of {tokenizer.max_length}, "
                f"the CLIP is made for {config.vocabulary_size} tokens and texts of {config.max_length}"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.text = TextTower(config)
        self.video = VideoTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    @property
    def text_width(self) -> int:
        """Width of the states that a backbone sees."""
        return self.config.text_width

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """States for the backbone alone."""
        return self.encode_text(prompts)[0]

    def encode_text(self, texts: Sequence[str]) -> tuple[TextStates, Float[Tensor, "b d"]]:
        """States for the backbone and unit embeddings; the empty text is `<bos> <eos>`."""
        return self.text([self.tokenizer.encode(text) for text in texts])

    def encode_video(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d"]:
        """Unit embeddings of clips in [-1, 1] of any size and length (an image is f = 1)."""
        return self.video(video)

    def similarity(self, video: Float[Tensor, "b c f h w"], texts: Sequence[str]) -> Float[Tensor, "b m"]:
        """Cosine of every clip with every text."""
        return self.encode_video(video) @ self.encode_text(texts)[1].T

    def logit_scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by before the softmax; at most 100."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)


def chosen_frames(num_given: int, num_wanted: int) -> tuple[list[int], list[int]]:
    """Which frames of a clip are looked at, and at which of the `num_wanted` temporal positions each stands.

    A longer clip is sampled evenly with both ends; a shorter one keeps every frame and leaves positions between them empty.
    """
    count = min(num_given, num_wanted)

    def spread(size: int) -> list[int]:
        return [round(i * (size - 1) / max(count - 1, 1)) for i in range(count)]

    return spread(num_given), spread(num_wanted)


def clip_loss(
    video_embeds: Float[Tensor, "b d"],
    text_embeds: Float[Tensor, "b d"],
    foil_embeds: Float[Tensor, "b d"] | None,
    logit_scale: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The symmetric InfoNCE loss of unit embeddings (Radford et al. 2021, figure 3) and its accuracies.

    Foils, captions wrong in one word, are further candidates when a clip looks for its caption; they have no clip of
    their own. Metrics: `retrieval`, how often a clip finds its caption among the b captions, and `foil`, how often it
    prefers it to its own foil.
    """
    logits = logit_scale * video_embeds @ text_embeds.T
    own = torch.arange(len(logits), device=logits.device)
    metrics = {"retrieval": (logits.argmax(dim=1) == own).float().mean().detach()}
    candidates = logits
    if foil_embeds is not None:
        foil_logits = logit_scale * video_embeds @ foil_embeds.T
        candidates = torch.cat([logits, foil_logits], dim=1)
        metrics["foil"] = (logits.diagonal() > foil_logits.diagonal()).float().mean().detach()
    loss = (F.cross_entropy(candidates, own) + F.cross_entropy(logits.T, own)) / 2
    return loss, metrics


FOIL_LOSS_SCALE = 10.0


def foil_loss(
    video_embeds: Float[Tensor, "b d"], text_embeds: Float[Tensor, "b d"], foil_embeds: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """How far clips are from lying on their caption's side of its foil: the logistic loss of their way along (caption - foil).

    The difference has unit length, so that captions which differ in one word and lie close together teach as much as others do: with
    plain contrast the gradient is as small as their distance.
    """
    ways = F.normalize(text_embeds - foil_embeds, dim=-1)
    return F.softplus(-FOIL_LOSS_SCALE * (video_embeds * ways).sum(dim=-1)).mean()


@torch.no_grad()
def _init_tower(blocks: nn.ModuleList, tables: Sequence[Tensor], projection: nn.Linear) -> None:
    """Draw the weights of a tower as OpenAI's CLIP does: tables of embeddings and projection are normal with std width ** -0.5.

    See `TransformerBlock.init_weights` for the blocks. The convolutional stem keeps PyTorch's own initialisation. On the meta device
    nothing is drawn.
    """
    if projection.weight.is_meta:
        return

    std = projection.in_features**-0.5
    for table in tables:
        nn.init.normal_(table, std=std)
    for block in cast(Iterable[TransformerBlock], blocks):
        block.init_weights(len(blocks))
    nn.init.normal_(projection.weight, std=std)
