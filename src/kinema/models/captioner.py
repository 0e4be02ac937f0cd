"""The captioner: a small causal language model that looks at what an oracle sees of a clip and writes a caption, word by word.

The oracle is the video encoder and stays as it was trained: its features of every frame, with the geometry of the tracks, and those of
the thing, the place and the event are what the language model attends to. The first token says in which form the caption is to be.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kinema.errors import ConfigError, RequestError
from kinema.models.oracle import MIN_FRAMES, Oracle, OracleOutput
from kinema.models.pixels import from_uint8
from kinema.nn.norms import LayerNorm
from kinema.nn.parameters import use_muon
from kinema.nn.transformer import TransformerBlock
from kinema.prompts.segment import segment_chinese
from kinema.shapes import Float, Int

PAD, END = 0, 1
NUM_WHOLES = 3
PIECES = re.compile(r"[a-z]+(?:-[a-z]+)*|[^\x00-\x7f]+|[^\sa-z]")
MARKS = ".,"


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes of the language model. A recipe leaves the first five to its world and its oracle."""

    words: tuple[str, ...] = ()
    """Every word and mark that a caption can hold, English in lower case; a Chinese caption is a chain of Chinese words."""
    forms: tuple[str, ...] = ()
    """The forms of a caption, such as "short" and "detailed_zh"."""
    frame_width: int = 0
    whole_width: int = 0
    oracle: str = ""
    """A hash of the oracle's weights: features of another one mean nothing to this captioner."""
    num_frames: int = 9
    """Most frames that are looked at."""
    width: int = 80
    num_layers: int = 2
    num_heads: int = 4
    mlp_width: int = 160
    max_length: int = 64
    """Most tokens of a caption, with the one that says its form."""

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.width < 1 or self.width % self.num_heads:
            raise ConfigError(f"width={self.width} must be a multiple of num_heads={self.num_heads}")
        if min(self.num_layers, self.mlp_width) < 1 or self.max_length < 3 or self.num_frames < MIN_FRAMES:
            raise ConfigError(
                f"num_layers={self.num_layers} and mlp_width={self.mlp_width} must be positive, "
                f"max_length={self.max_length} at least 3 and num_frames={self.num_frames} at least {MIN_FRAMES}"
            )


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """What an oracle sees of b clips of f frames: see `OracleOutput`."""

    frames: Float[Tensor, "b f d1"]
    wholes: Float[Tensor, "b w d2"]


@dataclass(frozen=True)
class Caption:
    """A caption. `confidence` is the geometric mean of the probabilities of its words; `is_complete` is False for one cut off for length."""

    text: str
    confidence: float
    is_complete: bool


class WordCodec:
    """Captions to ids and back without loss: `<pad>` 0, `<end>` 1, then the forms, then the words."""

    def __init__(self, config: CaptionerConfig) -> None:
        self.form_ids = {form: 2 + index for index, form in enumerate(config.forms)}
        self.tokens = ("", "", *("" for _ in config.forms), *config.words)
        self._ids = {word: 2 + len(config.forms) + index for index, word in enumerate(config.words)}
        self._longest = max((len(word) for word in config.words if not word.isascii()), default=0)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a caption. Raises `ConfigError` for a word that is not in the vocabulary."""
        words = [
            word
            for piece in PIECES.findall(text.lower())
            for word in ([piece] if piece.isascii() else segment_chinese(piece, self._ids, self._longest))
        ]
        unknown = next((word for word in words if word not in self._ids), None)
        if unknown is not None:
            raise ConfigError(f"the captioner has no word '{unknown}' for: {text}")
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """The caption of ids. One of whole sentences, which ends with a full stop, begins each of them with a capital."""
        text = ""
        for word in (self.tokens[i] for i in ids):
            joins = not text or not word.isascii() or not text[-1].isascii() or word in MARKS
            text += word if joins else f" {word}"
        return (
            re.sub(r"(?:^|(?<=\. ))[a-z]", lambda match: match.group().upper(), text)
            if text.endswith(".")
            else text
        )


class Captioner(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        if not config.words or not config.forms or not config.frame_width or not config.whole_width:
            raise ConfigError(
                "a captioner needs words, forms and the widths of an oracle's features; take them from a world and an oracle"
            )
        self.config = config
        self.codec = WordCodec(config)
        width = config.width
        self.frame_block = use_muon(nn.Linear(config.frame_width, width))
        self.whole_blocks = use_muon(
            nn.ModuleList([nn.Linear(config.whole_width, width) for _ in range(NUM_WHOLES)])
        )
        self.times = nn.Parameter(0.02 * torch.randn(config.num_frames, width))
        self.memory_norm = LayerNorm(width)
        self.embedding = nn.Embedding(len(self.codec), width)
        self.positions = nn.Embedding(config.max_length, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, mlp_width=config.mlp_width, is_decoder=True)
            for _ in range(config.num_layers)
        )
        self.norm = LayerNorm(width)
        if not self.times.is_meta:
            for table in (self.embedding, self.positions):
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, seen: ClipFeatures, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        """Logits of the token after each of `ids`, which begin with a form. The embedding of the tokens is also what reads them out."""
        memory = self._memory(seen)
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]

        (b, n), x = ids.shape, x.flatten(0, 1)
        for block in self.blocks:
            x = block(x, (n,) * b, memory)
        return self.norm(x).unflatten(0, (b, n)) @ self.embedding.weight.T

    def _memory(self, seen: ClipFeatures) -> Float[Tensor, "b m d"]:
        frames = self.frame_block(seen.frames) + self.times[: seen.frames.shape[1]]
        wholes = torch.stack([block(seen.wholes[:, i]) for i, block in enumerate(self.whole_blocks)], dim=1)
        return self.memory_norm(torch.cat([wholes, frames], dim=1))

    @torch.inference_mode()
    def write(
        self,
        seen: ClipFeatures,
        forms: Sequence[str],
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[Caption]:
        """A caption of each clip in its form: the likeliest words, or, with a `temperature` and a CPU `generator`, drawn ones."""
        device = seen.frames.device
        ids = torch.tensor([[self.codec.form_ids[form]] for form in forms], device=device)
        is_open = torch.ones(len(forms), dtype=torch.bool, device=device)
        chances = torch.zeros(len(forms), device=device)
        while is_open.any() and ids.shape[1] < self.config.max_length:
            scores = self(seen, ids)[:, -1].float()
            scores[:, [PAD, *self.codec.form_ids.values()]] = -torch.inf
            if temperature:
                drawn = torch.multinomial(
                    (scores / temperature).softmax(dim=-1).cpu(), 1, generator=generator
                ).to(device)
            else:
                drawn = scores.argmax(dim=-1, keepdim=True)
            chance = scores.log_softmax(dim=-1).gather(1, drawn)[:, 0]
            chances += torch.where(is_open, chance, 0)
            ids = torch.cat([ids, torch.where(is_open[:, None], drawn, PAD)], dim=1)
            is_open &= drawn[:, 0] != END
        written = []
        for row, total, unfinished in zip(
            ids[:, 1:].tolist(), chances.tolist(), is_open.tolist(), strict=True
        ):
            words = [token for token in row if token not in (PAD, END)]
            confidence = float(np.exp(total / (len(words) + (not unfinished))))
            written.append(Caption(self.codec.decode(words), confidence, not unfinished))
        return written


def features_of(out: OracleOutput) -> ClipFeatures:
    """What a captioner looks at."""
    return ClipFeatures(out.frames, out.wholes)


@torch.inference_mode()
def clip_features(oracle: Oracle, frames: np.ndarray, fps: float, *, max_frames: int) -> ClipFeatures:
    """What `oracle` sees of the first `most` of its moments of one clip, uint8 (f, h, w, 3).

    A clip shorter than the oracle needs at its own rate is looked at more often. Raises `RequestError` for fewer frames than it needs.
    """
    if len(frames) < MIN_FRAMES:
        count = "1 frame" if len(frames) == 1 else f"{len(frames)} frames"
        raise RequestError(
            f"{count} cannot tell what happens: a caption needs a clip of at least {MIN_FRAMES} frames"
        )
    chosen = oracle.chosen_frames(len(frames), fps)[:max_frames]
    if len(chosen) < MIN_FRAMES:
        chosen = [round(i * (len(frames) - 1) / (MIN_FRAMES - 1)) for i in range(MIN_FRAMES)]
    video = from_uint8([frames[chosen]]).to(next(oracle.parameters()).device)
    return features_of(oracle(oracle.prepare(video)))
