"""Trains the captioner on clips of a world: first on short captions, then on detailed ones, with varied
wording.

The recipe of DALL-E 3 (Betker et al. 2023, section 2.1). The oracle's features of the clips are cached, so
that a step only runs the language model. Captions are written from the truth again at every step.
"""

import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, save_component
from kinema.checkpoints.shipped import SHIPPED, shipped_oracle
from kinema.checkpoints.tensors import weights_hash
from kinema.config import check_range, to_dict
from kinema.data.augment import degrade
from kinema.data.latents import Shape, choose_by_share
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.shard_cache import Shard, ShardCache
from kinema.data.world_clips import CaptionMix, draw_clips, to_tensor
from kinema.errors import ConfigError
from kinema.evaluation.captions import caption_accuracies
from kinema.models.captioner import END, PAD, Captioner, CaptionerConfig, ClipFeatures, clip_features
from kinema.models.oracle import MIN_FRAMES, Oracle
from kinema.training.task import BenchmarkBatch, Recipe, check_periods
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import CAPTION_KEYS, ReadsCaptions, Split, WorldConfig, make_world

log = logging.getLogger(__name__)

MEASURED_SPLITS: tuple[Split, ...] = ("held_out", "train")
MEASURED_FORMS = ("medium", "medium_zh")
"""The measured caption forms: the shortest ones with every slot. `bench/captions.py` measures all."""


@dataclass(frozen=True)
class CaptionPeriod:
    """The captions of a period of the run, up to the share `until` of its steps."""

    until: float
    captions: CaptionMix


@dataclass(frozen=True)
class CaptionerData:
    """`num_clips` clips in shards of `shard_clips`, each of one of `shapes` and one of `lengths` (frames at
    the oracle's rate).

    A clip is degraded with probability `degraded`. A share `hidden` of the preceding words is masked, so that
    the model reads a word from the clip instead of guessing it from other words (word dropout; Bowman et al.
    2016, section 3.1): a crab may hop although most crabs walk. Raises `ConfigError` for values out of range.
    """

    batch: int = 32
    num_clips: int = 960
    shard_clips: int = 32
    shapes: tuple[Shape, ...] = (Shape(128, 128, 0.8), Shape(96, 160, 0.1), Shape(160, 96, 0.1))
    lengths: tuple[int, ...] = (9, 9, 9, 5)
    degraded: float = 0.5
    hidden: float = 0.25
    held_out_clips: int = 64

    def __post_init__(self) -> None:
        check_range(self, ("batch", "num_clips", "shard_clips", "held_out_clips"), 1)
        if not self.lengths or min(self.lengths) < MIN_FRAMES:
            raise ConfigError(
                f"lengths = {list(self.lengths)} must be at least {MIN_FRAMES}: "
                "fewer frames do not show motion"
            )
        check_range(self, ("degraded", "hidden"), 0, 1)


@dataclass(frozen=True)
class CaptionerRecipe(Recipe):
    """All settings of a captioner run. `oracle` is a released folder or "shipped"."""

    task: str = "captioner"
    oracle: str = SHIPPED
    world: WorldConfig = field(default_factory=lambda: WorldConfig.from_table({"split": "all"}))
    model: CaptionerConfig = field(default_factory=CaptionerConfig)
    data: CaptionerData = field(default_factory=CaptionerData)
    periods: tuple[CaptionPeriod, ...] = (
        CaptionPeriod(0.25, CaptionMix(short=1.0, medium=0.0, detailed=0.0, chinese=0.3, dropped=0.0)),
        CaptionPeriod(1.0, CaptionMix(short=0.2, medium=0.35, detailed=0.45, chinese=0.3, dropped=0.0)),
    )

    def __post_init__(self) -> None:
        check_periods([period.until for period in self.periods])
        if any(period.captions.dropped for period in self.periods):
            raise ConfigError("a captioner cannot learn empty captions: set dropped = 0 in its periods")


class CaptionerTask:
    """Trains a captioner. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` for clips that are too long for the model, or nouns that the oracle does not know.
    """

    def __init__(self, recipe: CaptionerRecipe):
        self.recipe = recipe
        self.world = make_world(recipe.world)
        if not isinstance(self.world, ReadsCaptions):
            raise ConfigError(
                f"the world '{self.world.name}' cannot read captions, by which a captioner is measured"
            )
        self.oracle = load_component(
            shipped_oracle() if recipe.oracle == SHIPPED else Path(recipe.oracle), Oracle
        )
        if max(recipe.data.lengths) > recipe.model.num_frames:
            raise ConfigError(
                f"data.lengths = {list(recipe.data.lengths)} exceed model.num_frames = "
                f"{recipe.model.num_frames}: raise model.num_frames or use shorter clips"
            )
        unknown = {
            f"{slot} {value}"
            for slot, values in self.world.slots.items()
            for value in values
            if value not in self.oracle.config.slots.get(slot, ())
        }
        if unknown:
            raise ConfigError(
                f"the oracle does not know {', '.join(sorted(unknown))}: train one on "
                "this [world] and set oracle to it"
            )
        deep = 4 * self.oracle.config.width
        self.config = dataclasses.replace(
            recipe.model,
            words=(*self.world.words, *".,"),
            forms=CAPTION_KEYS,
            frame_width=deep + 6 * self.oracle.config.num_tracks,
            whole_width=deep,
            oracle=weights_hash(self.oracle),
        )
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = Captioner(self.config)
        self.seen: dict[int, tuple[ClipFeatures, list[dict[str, Any]]]] = {}

    def prepare(self, out: Path, device: torch.device) -> None:
        """Load the oracle's features of the clips, and compute those that the run folder lacks."""
        data = self.recipe.data
        self.oracle.to(device)
        identity = [
            self.config.oracle,
            to_dict(self.world.config),
            to_dict(data)["shapes"],
            data.lengths,
            data.degraded,
            data.shard_clips,
        ]
        cache = ShardCache(out, identity, "seen")
        found: dict[int, list[Shard]] = {}
        for first in range(0, data.num_clips, data.shard_clips):
            shard = cache.get(f"{first:06d}", partial(self._features, first))
            found.setdefault(shard.tensors["frames"].shape[1], []).append(shard)
        for length, shards in found.items():
            frames, wholes = (
                torch.cat([shard.tensors[name] for shard in shards]) for name in ("frames", "wholes")
            )
            truths = [truth for shard in shards for truth in shard.values["truths"]]
            self.seen[length] = ClipFeatures(frames, wholes), truths

    @torch.no_grad()
    def _features(self, first: int) -> Shard:
        """The oracle's features of clips of one shape and length, and the truths of the clips."""
        data, rng = self.recipe.data, numpy_rng("captioner-shard", first)
        shape = data.shapes[choose_by_share([shape.share for shape in data.shapes], float(rng.random()))]
        length = int(rng.choice(data.lengths))
        sizes = {"height": shape.height, "width": shape.width, "num_frames": length}
        indices = range(first, first + data.shard_clips)
        clips = draw_clips(self.world, "captioner", indices, **sizes, fps=self.oracle.config.fps)

        video = self.oracle.prepare(to_tensor(clips))
        degraded = torch.from_numpy(rng.random(len(video)) < data.degraded)
        if degraded.any():
            video[degraded] = degrade(video[degraded], torch_rng("captioner-degrade", first))
        out = self.oracle(video.to(next(self.oracle.parameters()).device))
        truths = [  # captions are written from the scalars of a truth, not from its tracks
            {name: value for name, value in clip.truth.items() if not isinstance(value, (list, dict))}
            for clip in clips
        ]
        log.info("features of %d clips", len(clips))
        return Shard({"frames": out.frames.cpu(), "wholes": out.wholes.cpu()}, {"truths": truths})

    def batch(self, step: int) -> Batch:
        """Features of clips of one length, and a caption of each after the id of its form: {"frames",
        "wholes", "ids"}.

        All captions of a batch have one form and language: padding short ones to the length of detailed ones
        would double the time.
        """
        recipe, rng = self.recipe, numpy_rng(self.recipe.run.seed, "batch", step)
        lengths = sorted(self.seen)
        length = (
            lengths[choose_by_share([len(self.seen[n][1]) for n in lengths], float(rng.random()))]
            if len(lengths) > 1
            else lengths[0]
        )
        seen, truths = self.seen[length]
        rows = rng.integers(len(truths), size=recipe.data.batch)
        mix = next(
            period.captions
            for period in recipe.periods
            if step < period.until * recipe.run.steps or period.until == 1
        )
        key = mix.draw({key: key for key in CAPTION_KEYS}, rng)
        texts = [
            self._caption(truths[row], key, derive_seed(recipe.run.seed, step, i))
            for i, row in enumerate(rows)
        ]
        return {
            "frames": seen.frames[rows],
            "wholes": seen.wholes[rows],
            "ids": self._ids([key] * len(rows), texts),
        }

    def _caption(self, truth: Mapping[str, Any], key: str, seed: int) -> str:
        """The caption of a truth in the form `key`, e.g. "short_zh"; the seed chooses its wording."""
        form, _, language = key.partition("_")
        return str(self.world.caption(truth, form, language or "en", random.Random(seed)))

    def _ids(self, keys: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Ids of form, words and end of every caption, padded to the longest.

        Raises `ConfigError` for one that is too long.
        """
        codec = self.model.codec
        rows = [
            [codec.form_ids[key], *codec.encode(text), END] for key, text in zip(keys, texts, strict=True)
        ]
        longest = max(map(len, rows))
        if longest > self.config.max_length + 1:
            raise ConfigError(
                f"model.max_length = {self.config.max_length} is too short for a caption of "
                f"{longest - 1} tokens: raise it"
            )
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Cross-entropy of every next token, with some preceding tokens masked."""
        assert isinstance(model, Captioner), "the captioner task trains a Captioner"
        ids = batch["ids"]
        is_hidden = torch.rand(ids.shape, generator=generator).to(ids.device) < self.recipe.data.hidden
        is_hidden[:, 0] = False  # the form
        given = ids.masked_fill(is_hidden, PAD)[:, :-1]
        logits, targets = (
            model(ClipFeatures(batch["frames"], batch["wholes"]), given).flatten(0, 1).float(),
            ids[:, 1:].flatten(),
        )
        loss = F.cross_entropy(logits, targets, ignore_index=PAD)
        right = (logits.argmax(dim=-1) == targets)[targets != PAD].float().mean()
        return loss, {"right": right.detach()}

    @torch.no_grad()
    def measure(self, model: Captioner, device: torch.device) -> dict[str, dict[str, float]]:
        """Accuracy by slot on new clips, for held-out and trained combinations, in English and Chinese."""
        data, shape = self.recipe.data, self.recipe.data.shapes[0]
        sizes = {"height": shape.height, "width": shape.width, "num_frames": max(data.lengths)}
        scores = {}
        for split in MEASURED_SPLITS:
            world = self.world.in_split(split)
            assert isinstance(world, ReadsCaptions), "checked when the task was made"
            clips = draw_clips(
                world,
                f"captioner-{split}-measured",
                range(data.held_out_clips),
                **sizes,
                fps=self.oracle.config.fps,
            )
            seen = [
                clip_features(self.oracle, clip.frames, clip.fps, max_frames=self.config.num_frames)
                for clip in clips
            ]
            together = ClipFeatures(
                torch.cat([one.frames for one in seen]), torch.cat([one.wholes for one in seen])
            )
            for key in MEASURED_FORMS:
                captions = [written.text for written in model.write(together, [key] * len(clips))]
                shares = caption_accuracies(world, captions, [clip.truth for clip in clips])
                scores[f"{split} {key}"] = {slot: round(share, 4) for slot, share in shares.items()}
        return scores

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of new clips, each captioned in another form."""
        assert isinstance(model, Captioner), "the captioner task trains a Captioner"
        model.eval()
        shape = self.recipe.data.shapes[0]
        sizes = {"height": shape.height, "width": shape.width, "num_frames": max(self.recipe.data.lengths)}
        clips = draw_clips(self.world, "captioner-sample", range(6), **sizes, fps=self.oracle.config.fps)
        seen = [
            clip_features(self.oracle, clip.frames, clip.fps, max_frames=self.config.num_frames)
            for clip in clips
        ]
        titles = [model.write(one, [key])[0].text for one, key in zip(seen, CAPTION_KEYS)]
        save_image(
            path,
            contact_sheet([Video(c.frames, c.fps) for c in clips], titles, columns=1, frames_per_video=5),
        )

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the captioner in bfloat16, with the accuracies of the written weights."""
        assert isinstance(model, Captioner), "the captioner task trains a Captioner"
        save_component(folder, model, card=training, dtype=torch.bfloat16)
        scores = self.measure(load_component(folder, Captioner, device=device), device)
        save_component(folder, model, card={**training, "measured": scores}, dtype=torch.bfloat16)

    def init_from(self, folder: Path) -> None:
        """Load the weights of a released captioner with the same vocabulary."""
        self.model.load_state_dict(load_component(folder, Captioner).state_dict())

    @torch.no_grad()
    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """A batch of detailed captions."""
        data, config = self.recipe.data, self.config
        clips = draw_clips(self.world, "plan", range(data.batch), height=16, width=16, num_frames=1)
        ids = self._ids(["detailed"] * data.batch, [clip.captions["detailed"] for clip in clips])
        rng = torch_rng("plan")
        frames = torch.randn(data.batch, config.num_frames, config.frame_width, generator=rng)
        wholes = torch.randn(data.batch, 3, config.whole_width, generator=rng)
        batch = {"frames": frames, "wholes": wholes, "ids": ids}
        return [BenchmarkBatch(f"{data.batch} captions", batch, ids.numel())]
