"""Trains CLIP on clips and captions of a world or of a data set. Every clip has a foil: a caption that is
wrong in one slot, or another clip's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, save_component
from kinema.checkpoints.folders import resolve_model
from kinema.config import check_range
from kinema.data.seeds import Batch, derive_seed, torch_rng
from kinema.data.world_clips import CaptionMix
from kinema.errors import ConfigError
from kinema.files import write_json
from kinema.models.clip import CLIP, CLIPConfig, clip_loss, foil_loss
from kinema.models.pixels import to_uint8
from kinema.prompts.bpe_tokenizer import BPETokenizer
from kinema.prompts.reading import Tokenizer
from kinema.prompts.word_tokenizer import WordTokenizer
from kinema.shapes import Float
from kinema.training.task import BenchmarkBatch, Recipe
from kinema.training.tasks.caption_pairs import CaptionPairs, DatasetPairs, WorldPairs
from kinema.training.tasks.oracle import MIN_VISIBLE_SHARE
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import WorldConfig, make_world

POSITION_WEIGHT = 4.0
"""Weight of the position error (shares of width and height) relative to the cross-entropy of the slots."""


@dataclass(frozen=True)
class CLIPData:
    """Clips of `num_frames` frames over `duration_s` seconds; a share `image_share` of the batches are single
    frames.

    Raises `ConfigError` for values out of range.
    """

    batch: int = 32
    num_frames: int = 5
    duration_s: float = 2.0
    image_share: float = 0.15
    captions: CaptionMix = field(default_factory=lambda: CaptionMix(chinese=0.3, dropped=0.0))
    held_out_clips: int = 256
    """Held-out clips of a measurement, in groups of 32."""
    paired: float = 0.5
    """Share of clips whose caption is the one that their foil was made from."""

    def __post_init__(self) -> None:
        check_range(self, ("batch", "num_frames"), 1)
        check_range(self, ("image_share", "paired"), 0, 1)
        if self.duration_s <= 0:
            raise ConfigError(f"duration_s = {self.duration_s} must be positive")
        if self.held_out_clips < 32 or self.held_out_clips % 32:
            raise ConfigError(f"held_out_clips = {self.held_out_clips} must be a multiple of 32")


@dataclass(frozen=True)
class CLIPRecipe(Recipe):
    """All settings of a CLIP run. With `dataset` it trains on a data set instead of a world.

    `tokenizer` "closed" has one id for each word of the captions, and "bpe" reads any text; see
    `kinema.prompts`. None is "closed" for a world and "bpe" for a data set.
    """

    task: str = "clip"
    dataset: str | None = None
    tokenizer: Literal["closed", "bpe"] | None = None
    world: WorldConfig = field(default_factory=WorldConfig)
    model: CLIPConfig = field(default_factory=CLIPConfig)
    data: CLIPData = field(default_factory=CLIPData)
    slot_loss: float = 0.0
    """Weight of predicting the caption's slots and the subject's position in every frame from the pooled
    video features.

    The contrastive loss alone ignores what few captions of a batch differ in: the direction of motion. The
    heads are not exported.
    """
    foil_loss: float = 0.0
    """Weight of preferring the caption to its foil, however similar they are. See
    `kinema.models.clip.foil_loss`."""

    def make_tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        """The tokenizer of a CLIP that is trained on captions with the words of `texts`."""
        kind = self.tokenizer or ("closed" if self.dataset is None else "bpe")
        if kind == "closed":
            return WordTokenizer(texts, max_length=self.model.max_length)
        return BPETokenizer.train(texts, max_length=self.model.max_length)

    def unused_settings(self) -> dict[str, str]:
        """The settings that this run does not read, each with the reason."""
        if self.dataset is None:
            return {}
        return dict.fromkeys(("world", "data.duration_s", "data.paired", "slot_loss"), "a run on a data set")


class CLIPAndReader(nn.Module):
    """All trained parameters: the CLIP, and linear heads on its video tower that predict slots and
    positions."""

    def __init__(self, clip: CLIP, slots: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(words) for name, words in slots.items()}
        if slots:
            sizes["places"] = 2 * clip.config.num_frames
        self.heads = nn.ModuleDict(
            {name: nn.Linear(clip.config.video_width, size) for name, size in sizes.items()}
        )

    def read(
        self, pooled: Float[Tensor, "b d"], truth: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the heads, and metrics with the accuracies of slots of several values.

        The loss is the mean cross-entropy of the slots plus the position error in frames where the subject is
        visible.
        """
        logits = {name: self.heads[name](pooled) for name in self.heads if name != "places"}
        entropies = [F.cross_entropy(logits[name], truth[f"slot_{name}"]) for name in logits]
        entropy = torch.stack(entropies).mean()

        positions = rearrange(self.heads["places"](pooled), "b (f xy) -> b f xy", xy=2)
        visible = (truth["visible"][:, :, 0] > MIN_VISIBLE_SHARE).float()
        errors = (positions - truth["positions"][:, :, 0]).abs().sum(dim=-1)
        error = (errors * visible).sum() / visible.sum().clamp(min=1)

        accuracies = {
            name: (found.argmax(dim=1) == truth[f"slot_{name}"]).float().mean()
            for name, found in logits.items()
            if found.shape[1] > 1
        }
        metrics = {"slots": entropy.detach(), "position": error.detach(), **accuracies}
        return entropy + POSITION_WEIGHT * error, metrics


class CLIPTask:
    """Trains a CLIP. See `kinema.training.task.TrainingTask`."""

    def __init__(self, recipe: CLIPRecipe):
        self.recipe = recipe
        self.pairs: CaptionPairs = (
            WorldPairs(recipe, make_world(recipe.world)) if recipe.dataset is None else DatasetPairs(recipe)
        )
        tokenizer = recipe.make_tokenizer(self.pairs.texts())
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        clip = CLIP(dataclasses.replace(recipe.model, vocabulary_size=len(tokenizer)), tokenizer)
        self.model = CLIPAndReader(clip, self.pairs.slots)

    def prepare(self, out: Path, device: torch.device) -> None:
        """Nothing to prepare: clips are drawn or read when they are needed."""

    def batch(self, step: int) -> Batch:
        """Clips with captions and foils; see `CaptionPairs`."""
        return self.pairs.batch(step)

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The symmetric contrastive loss, plus the losses of foils and slots with their weights.

        A single frame does not show motion, so only clips have foils among their candidates and slots to
        predict.
        """
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        clip = model.clip
        video, captions = batch["video"], batch["captions"]
        foils = [caption for caption, _ in batch["foils"]] if video.shape[2] > 1 else []
        _, embeds = clip.encode_text([*captions, *foils])
        texts, foil_embeds = embeds[: len(captions)], embeds[len(captions) :] if foils else None

        pooled = clip.video.pooled(video)
        loss, metrics = clip_loss(clip.video.embed(pooled), texts, foil_embeds, clip.logit_scale())
        if foil_embeds is not None and self.recipe.foil_loss:
            matched = clip.encode_text(batch["matched"])[1]
            foil = foil_loss(clip.video.embed(pooled), matched, foil_embeds)
            loss, metrics = loss + self.recipe.foil_loss * foil, metrics | {"foil_loss": foil.detach()}

        if not self.pairs.slots or not foils:
            return loss, metrics
        truth = {name: value.to(video.device) for name, value in batch["truth"].items()}
        slot_loss, slot_metrics = model.read(pooled, truth)
        return loss + self.recipe.slot_loss * slot_loss, metrics | slot_metrics

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of clips, each with the best matching caption of the sheet, and the scores as
        JSON."""
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        batch = self.pairs.shown()
        best = model.clip.similarity(batch["video"].to(device), batch["matched"]).argmax(dim=1).tolist()
        titles = [
            f"{'right' if i == found else 'wrong'}: {batch['matched'][found]}" for i, found in enumerate(best)
        ]
        videos = [Video(to_uint8(clip), 8.0) for clip in batch["video"]]
        save_image(path, contact_sheet(videos, titles, columns=1, frames_per_video=5))
        write_json(path.with_suffix(".json"), self.pairs.scores(model.clip))

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the CLIP with its tokenizer, and its accuracies."""
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        save_component(
            folder, model.clip, card={**training, self.pairs.measured_on: self.pairs.scores(model.clip)}
        )

    def init_from(self, folder: Path) -> None:
        """Load the weights of a released CLIP with the same vocabulary."""
        self.model.clip.load_state_dict(load_component(resolve_model(str(folder)), CLIP).state_dict())

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """A batch of clips."""
        data, model = self.recipe.data, self.recipe.model
        shape = (data.batch, 3, data.num_frames, model.video_size, model.video_size)
        video = torch.rand(shape, generator=torch_rng("plan")) * 2 - 1
        batch = {"video": video, **self.pairs.planned()}
        tokens = data.batch * data.num_frames * (model.video_size // model.patch) ** 2
        name = f"{data.batch} clips {model.video_size}x{model.video_size}x{data.num_frames}"
        return [BenchmarkBatch(name, batch, tokens)]
