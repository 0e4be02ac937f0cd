"""CLIP (Radford et al. 2021): a text tower and a video tower whose embeddings agree if a caption fits a clip.

The states of the text tower, one per token, condition the backbone. The agreement of the two towers scores
results and prompts. English and Chinese captions are trained against the same clips, so both languages share
one embedding space. Deviations: text attention is bidirectional (it conditions and does not predict), pooling
is the mean, the video tower takes a few frames of a clip (an image is a clip of one frame), and captions with
one wrong word are among the candidates.
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
from kinema.prompts.reading import PromptReport, Tokenizer, read_prompt
from kinema.shapes import Float

INITIAL_LOGIT_SCALE = 1 / 0.07
MAX_LOGIT_SCALE = 100.0
"""Scales of the logits: Radford et al. 2021, section 2.5."""
FOIL_LOSS_SCALE = 10.0
"""Factor of the projections in `foil_loss`."""


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both towers. With the defaults the video tower takes about 0.7 GFLOP per clip.

    Raises `ConfigError` for sizes that do not fit together.
    """

    vocabulary_size: int = 0
    """Number of tokens of its tokenizer. A recipe leaves it to the world or the data set."""
    max_length: int = 96
    text_width: int = 192
    text_layers: int = 3
    text_heads: int = 4
    video_width: int = 128
    video_layers: int = 4
    video_heads: int = 4
    video_size: int = 64
    """Side of a frame in pixels. Clips of any size are resized to this square by area averaging."""
    num_frames: int = 5
    """Frames of a clip that enter the video tower, spread evenly over the clip."""
    patch: int = 8
    motion: bool = False
    """Whether each frame has its difference from the previous frame as further channels.

    A single patch then shows the direction of a motion.
    """
    embed_dim: int = 192

    def __post_init__(self) -> None:
        if self.patch < 2 or self.patch & (self.patch - 1):
            raise ConfigError(
                f"patch={self.patch} must be a power of two, at least 2: "
                "each layer of the stem halves the image"
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
    """Token ids to one state per token and one embedding per text."""

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
        """States of every token, packed, and unit embeddings of the texts, from the mean of their states.

        A state is the output of the final norm plus the normalised embedding of the word. Without the word
        embedding, states of words that the contrastive loss has not separated yet are almost equal: those of
        "left" and "right" differed by 1 to 10 % after 1,500 steps, and no backbone could learn a direction
        from them.
        """
        device = self.words.weight.device
        lengths = tuple(len(text) for text in ids)
        packed = torch.tensor([token for text in ids for token in text], device=device)
        positions = torch.tensor([i for length in lengths for i in range(length)], device=device)
        words = self.words(packed)

        x = words + self.positions(positions)
        for block in self.blocks:
            x = block(x, lengths)

        states = self.norm(x) + F.layer_norm(words, words.shape[-1:])
        pooled = torch.stack([text.mean(dim=0) for text in states.split(lengths)])
        return TextStates(states, lengths), F.normalize(self.projection(pooled), dim=-1)


class VideoTower(nn.Module):
    """Clips to one embedding each: a convolutional stem per frame, then a transformer over all patches of all
    frames.

    The stem halves the image at every layer instead of cutting it into patches at once (Xiao et al. 2021,
    "Early convolutions help transformers see better").
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
        """Unit embeddings of pooled states."""
        return F.normalize(self.projection(pooled), dim=-1)

    def pooled(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d"]:
        """The mean of the final states of all patches."""
        b = video.shape[0]
        frames, times = spread_frames(video.shape[2], self.num_frames)
        pixels = rearrange(video[:, :, frames], "b c f h w -> (b f) c h w")
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="area")
        if self.motion:
            pixels = torch.cat([pixels, _differences(pixels, b)], dim=1)

        patches = rearrange(self.stem(pixels), "(b f) d h w -> b f (h w) d", b=b)
        x = patches + self.places + rearrange(self.times[times], "f d -> f 1 d")
        lengths = (x.shape[1] * x.shape[2],) * b
        x = rearrange(x, "b f n d -> (b f n) d")
        for block in self.blocks:
            x = block(x, lengths)

        return reduce(self.norm(x), "(b n) d -> b d", "mean", b=b)


def _differences(pixels: Float[Tensor, "n c h w"], num_clips: int) -> Float[Tensor, "n c h w"]:
    """The difference of each frame from the previous frame of its clip; zeros for the first frame."""
    clips = rearrange(pixels, "(b f) c h w -> b f c h w", b=num_clips)
    differences = F.pad(clips.diff(dim=1), (0, 0, 0, 0, 0, 0, 1, 0))
    return rearrange(differences, "b f c h w -> (b f) c h w")


class CLIP(nn.Module):
    """Both towers, the tokenizer and the learned temperature.

    Raises `ConfigError` when the tokenizer does not fit the sizes.
    """

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if len(tokenizer) != config.vocabulary_size or tokenizer.max_length > config.max_length:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and texts of up to {tokenizer.max_length}; "
                f"this CLIP takes {config.vocabulary_size} tokens and texts of up to {config.max_length}"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.text = TextTower(config)
        self.video = VideoTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    @property
    def text_width(self) -> int:
        """Width of the states for the backbone."""
        return self.config.text_width

    @property
    def max_length(self) -> int:
        """The largest number of tokens of a text."""
        return self.config.max_length

    def read_prompt(self, prompt: str) -> PromptReport:
        """How each word of `prompt` is read."""
        return read_prompt(self.tokenizer, prompt)

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """States for the backbone, without the embeddings."""
        return self.encode_text(prompts)[0]

    def encode_text(self, texts: Sequence[str]) -> tuple[TextStates, Float[Tensor, "b d"]]:
        """States for the backbone and unit embeddings. The empty text is `<bos> <eos>`."""
        return self.text([self.tokenizer.encode(text) for text in texts])

    def encode_video(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d"]:
        """Unit embeddings of clips in [-1, 1] of any size and length (an image is f = 1)."""
        return self.video(video)

    def similarity(self, video: Float[Tensor, "b c f h w"], texts: Sequence[str]) -> Float[Tensor, "b m"]:
        """Cosine similarity of every clip with every text."""
        return self.encode_video(video) @ self.encode_text(texts)[1].T

    def logit_scale(self) -> Float[Tensor, ""]:
        """The factor of the cosines before the softmax, at most 100."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)


def spread_frames(num_given: int, num_wanted: int) -> tuple[list[int], list[int]]:
    """Indices of the frames of a clip that are used, and the temporal position, of `num_wanted`, of each.

    A longer clip is sampled evenly, both ends included. A shorter clip keeps every frame and leaves positions
    between them unused.
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

    Foils are captions with one wrong word. They are further candidates for the caption of a clip, without a
    clip of their own. Metrics: `retrieval`, how often the caption of a clip ranks first among the b captions,
    and `foil`, how often it ranks above its own foil.
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


def foil_loss(
    video_embeds: Float[Tensor, "b d"], text_embeds: Float[Tensor, "b d"], foil_embeds: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """The logistic loss of the projection of each clip on the direction from its foil to its caption.

    The direction has unit length, so that captions that differ in one word teach as much as others. In the
    contrastive loss their gradient is as small as their distance.
    """
    directions = F.normalize(text_embeds - foil_embeds, dim=-1)
    return F.softplus(-FOIL_LOSS_SCALE * (video_embeds * directions).sum(dim=-1)).mean()


@torch.no_grad()
def _init_tower(blocks: nn.ModuleList, tables: Sequence[Tensor], projection: nn.Linear) -> None:
    """Draw the weights of a tower as OpenAI's CLIP does: tables of embeddings and projection are normal with
    std width ** -0.5.

    See `TransformerBlock.init_weights` for the blocks. The convolutional stem keeps PyTorch's own
    initialisation. On the meta device nothing is drawn.
    """
    if projection.weight.is_meta:
        return

    std = projection.in_features**-0.5
    for table in tables:
        nn.init.normal_(table, std=std)
    for block in cast(Iterable[TransformerBlock], blocks):
        block.init_weights(len(blocks))
    nn.init.normal_(projection.weight, std=std)
