"""The captioner: a small causal language model that writes a caption word by word from the features of an
oracle.

The oracle is the video encoder and is not trained further. The language model attends to its features of
every frame, with the geometry of the tracks, and to its features of the object, the scene and the event. The
first token selects the form of the caption.
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
"""Features of a whole clip: object, scene and event."""
WORD_OR_MARK = re.compile(r"[a-z]+(?:-[a-z]+)*|[^\x00-\x7f]+|[^\sa-z]")
MARKS = ".,"


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes of the language model. A recipe leaves the first five to its world and its oracle.

    Raises `ConfigError` for sizes that do not fit together.
    """

    words: tuple[str, ...] = ()
    """Every word and mark of captions. English is in lower case, Chinese as words."""
    forms: tuple[str, ...] = ()
    """The forms of a caption, such as "short" and "detailed_zh"."""
    frame_width: int = 0
    whole_width: int = 0
    oracle: str = ""
    """Hash of the weights of the oracle. The captioner works with the features of this oracle only."""
    num_frames: int = 9
    """Most frames of a clip that are used."""
    width: int = 80
    num_layers: int = 2
    num_heads: int = 4
    mlp_width: int = 160
    max_length: int = 64
    """Most tokens of a caption, with the token of its form."""

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.width < 1 or self.width % self.num_heads:
            raise ConfigError(f"width={self.width} must be a multiple of num_heads={self.num_heads}")
        if min(self.num_layers, self.mlp_width) < 1 or self.max_length < 3 or self.num_frames < MIN_FRAMES:
            raise ConfigError(
                f"num_layers={self.num_layers} and mlp_width={self.mlp_width} must be positive, "
                f"max_length={self.max_length} at least 3, num_frames={self.num_frames} at least {MIN_FRAMES}"
            )


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """The features of b clips of f frames: see `OracleOutput`."""

    frames: Float[Tensor, "b f d1"]
    wholes: Float[Tensor, "b w d2"]


@dataclass(frozen=True)
class Caption:
    """A caption."""

    text: str
    confidence: float
    """Geometric mean of the probabilities of its words."""
    is_complete: bool
    """False for a caption cut off at the length limit."""


class WordCodec:
    """Captions to token ids and back without loss: `<pad>` 0, `<end>` 1, then the forms, then the words."""

    def __init__(self, config: CaptionerConfig) -> None:
        self.form_ids = {form: 2 + index for index, form in enumerate(config.forms)}
        self.tokens = ("", "", *("" for _ in config.forms), *config.words)
        self._ids = {word: 2 + len(config.forms) + index for index, word in enumerate(config.words)}
        self._longest = max((len(word) for word in config.words if not word.isascii()), default=0)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a caption. Raises `ConfigError` for a word that is not in the vocabulary."""
        words: list[str] = []
        for run in WORD_OR_MARK.findall(text.lower()):
            words += [run] if run.isascii() else segment_chinese(run, self._ids, self._longest)

        unknown = next((word for word in words if word not in self._ids), None)
        if unknown is not None:
            raise ConfigError(f"the captioner does not have the word '{unknown}' in: {text}")
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """The caption of `ids`. Sentences are capitalised if it ends with a full stop."""
        text = ""
        for word in (self.tokens[i] for i in ids):
            needs_space = text and word.isascii() and text[-1].isascii() and word not in MARKS
            text += f" {word}" if needs_space else word

        if not text.endswith("."):
            return text
        return re.sub(r"(?:^|(?<=\. ))[a-z]", lambda match: match.group().upper(), text)


class Captioner(nn.Module):
    """The network of this module. Raises `ConfigError` without words, forms and feature widths."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        if not config.words or not config.forms or not config.frame_width or not config.whole_width:
            raise ConfigError(
                "a captioner needs words, forms and the widths of its features: "
                "take them from a world and an oracle"
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

    def forward(self, features: ClipFeatures, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        """Logits of the token after each of `ids`, the first of which is a form. Embeddings are tied."""
        memory = self._memory(features)
        b, n = ids.shape
        x = (self.embedding(ids) + self.positions.weight[:n]).flatten(0, 1)
        for block in self.blocks:
            x = block(x, (n,) * b, memory)

        return self.norm(x).unflatten(0, (b, n)) @ self.embedding.weight.T

    def _memory(self, features: ClipFeatures) -> Float[Tensor, "b m d"]:
        frames = self.frame_block(features.frames) + self.times[: features.frames.shape[1]]
        wholes = [block(features.wholes[:, i]) for i, block in enumerate(self.whole_blocks)]
        return self.memory_norm(torch.cat([torch.stack(wholes, dim=1), frames], dim=1))

    @torch.inference_mode()
    def write(
        self,
        features: ClipFeatures,
        forms: Sequence[str],
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[Caption]:
        """A caption of each clip in its form.

        Each word is the most probable one, or, with a `temperature`, sampled with `generator` (on the CPU).
        """
        device = features.frames.device
        ids = torch.tensor([[self.codec.form_ids[form]] for form in forms], device=device)
        is_open = torch.ones(len(forms), dtype=torch.bool, device=device)
        log_probabilities = torch.zeros(len(forms), device=device)

        while is_open.any() and ids.shape[1] < self.config.max_length:
            logits = self(features, ids)[:, -1].float()
            logits[:, [PAD, *self.codec.form_ids.values()]] = -torch.inf
            drawn = _sample(logits, temperature, generator)

            log_probability = logits.log_softmax(dim=-1).gather(1, drawn)[:, 0]
            log_probabilities += torch.where(is_open, log_probability, 0)
            ids = torch.cat([ids, torch.where(is_open[:, None], drawn, PAD)], dim=1)
            is_open &= drawn[:, 0] != END

        rows = zip(ids[:, 1:].tolist(), log_probabilities.tolist(), is_open.tolist(), strict=True)
        return [self._caption(row, total, not unfinished) for row, total, unfinished in rows]

    def _caption(self, row: Sequence[int], log_probability: float, is_complete: bool) -> Caption:
        """The caption of generated ids, with the end token among those that `log_probability` counts."""
        words = [token for token in row if token not in (PAD, END)]
        confidence = float(np.exp(log_probability / (len(words) + is_complete)))
        return Caption(self.codec.decode(words), confidence, is_complete)


def _sample(
    logits: Float[Tensor, "b v"], temperature: float, generator: torch.Generator | None
) -> Int[Tensor, "b 1"]:
    """The most probable token of each row, or with a `temperature` a sampled one."""
    if not temperature:
        return logits.argmax(dim=-1, keepdim=True)

    probabilities = (logits / temperature).softmax(dim=-1).cpu()
    return torch.multinomial(probabilities, 1, generator=generator).to(logits.device)


def features_of(out: OracleOutput) -> ClipFeatures:
    """The features in the output of an oracle."""
    return ClipFeatures(out.frames, out.wholes)


@torch.inference_mode()
def clip_features(oracle: Oracle, frames: np.ndarray, fps: float, *, max_frames: int) -> ClipFeatures:
    """The features of at most `max_frames` frames of one uint8 clip (f, h, w, 3), at the frame rate of
    `oracle`.

    A clip too short at that rate is sampled more densely. Raises `RequestError` for fewer frames than the
    oracle needs.
    """
    if len(frames) < MIN_FRAMES:
        count = "1 frame" if len(frames) == 1 else f"{len(frames)} frames"
        raise RequestError(f"{count} is too short for a caption: use a clip of at least {MIN_FRAMES} frames")

    chosen = oracle.chosen_frames(len(frames), fps)[:max_frames]
    if len(chosen) < MIN_FRAMES:
        chosen = [round(i * (len(frames) - 1) / (MIN_FRAMES - 1)) for i in range(MIN_FRAMES)]

    video = from_uint8([frames[chosen]]).to(next(oracle.parameters()).device)
    return features_of(oracle(oracle.prepare(video)))
