"""Training CLIP on clips and captions of a world, with a foil, a caption wrong in one slot, for every clip."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.checkpoints.folders import load_component, resolve_model, save_component
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.world_clips import CaptionMix, draw_clips, to_tensor
from kinema.errors import ConfigError
from kinema.files import write_json
from kinema.models.clip import CLIP, CLIPConfig, clip_loss, way_loss
from kinema.models.oracle import OracleConfig
from kinema.models.pixels import to_uint8
from kinema.prompts.tokenizer import Tokenizer
from kinema.registry import lookup
from kinema.training.task import Recipe
from kinema.training.tasks.oracle import MIN_VISIBLE_SHARE, slots_of, targets
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import WORLDS, StageConfig

POSITION_WEIGHT = 4.0
"""Of the error of places, in shares of width and height, beside the cross-entropy of the slots."""


@dataclass(frozen=True)
class CLIPData:
    """Clips of `num_frames` frames over `duration_s` seconds; `image_share` of the batches are single frames."""

    batch: int = 32
    num_frames: int = 5
    duration_s: float = 2.0
    image_share: float = 0.15
    captions: CaptionMix = field(default_factory=lambda: CaptionMix(chinese=0.3, dropped=0.0))
    held_out_clips: int = 256
    """Clips that are measured on, 32 at a time."""
    paired: float = 0.5
    """Share of clips that come with the very caption their foil is wrong in one slot of."""

    def __post_init__(self) -> None:
        if min(self.batch, self.num_frames) < 1 or self.duration_s <= 0:
            raise ConfigError(
                f"batch = {self.batch}, num_frames = {self.num_frames} and duration_s = {self.duration_s} must be positive"
            )
        if self.held_out_clips < 32 or self.held_out_clips % 32:
            raise ConfigError(f"held_out_clips = {self.held_out_clips} must be a multiple of 32")
        if not 0 <= self.image_share <= 1 or not 0 <= self.paired <= 1:
            raise ConfigError(
                f"image_share = {self.image_share} and paired = {self.paired} are shares: use 0 to 1"
            )


@dataclass(frozen=True)
class CLIPRecipe(Recipe):
    """Everything of a CLIP run."""

    task: str = "clip"
    world: str = "stage"
    stage: StageConfig = field(default_factory=StageConfig)
    model: CLIPConfig = field(default_factory=CLIPConfig)
    data: CLIPData = field(default_factory=CLIPData)
    slots: float = 0.0
    """Weight of reading the caption's slots, and the subject's place in every frame, from what the video tower pools.

    Contrast alone leaves out what few captions of a batch differ in: which way a thing goes. The heads are not exported.
    """
    ways: float = 0.0
    """Weight of lying on the caption's side of its foil, however near the two are: see `way_loss`."""


class CLIPAndReader(nn.Module):
    """What the optimizer sees: the CLIP, and linear heads on top of its video tower where slots and places are read."""

    def __init__(self, clip: CLIP, slots: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(words) for name, words in slots.items()} | (
            {"places": 2 * clip.config.num_frames} if slots else {}
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(clip.config.video_width, size) for name, size in sizes.items()}
        )

    def read(self, pooled: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean cross-entropy of the slots plus the error of the places where the subject is seen, and what is read rightly."""
        logits = {name: self.heads[name](pooled) for name in self.heads if name != "places"}
        entropy = torch.stack(
            [F.cross_entropy(logits[name], truth[f"slot_{name}"]) for name in logits]
        ).mean()
        places = rearrange(self.heads["places"](pooled), "b (f xy) -> b f xy", xy=2)
        seen = (truth["visible"][:, :, 0] > MIN_VISIBLE_SHARE).float()
        missed = ((places - truth["places"][:, :, 0]).abs().sum(dim=-1) * seen).sum() / seen.sum().clamp(
            min=1
        )
        right = {
            name: (logits[name].argmax(dim=1) == truth[f"slot_{name}"]).float().mean()
            for name in ("verb", "direction")
        }
        return entropy + POSITION_WEIGHT * missed, {"slots": entropy.detach(), "place": missed.detach(), **right}


class CLIPTask:
    """See `kinema.training.task.TrainingTask`."""

    def __init__(self, recipe: CLIPRecipe):
        self.recipe = recipe
        self.world = lookup(WORLDS, recipe.world, kind="world")(recipe.stage)
        tokenizer = Tokenizer(self.world.vocabulary().words, max_length=recipe.model.max_length)
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.slots = slots_of(self.world.vocabulary(), recipe.stage.max_objects) if recipe.slots else {}
        clip = CLIP(dataclasses.replace(recipe.model, vocabulary_size=len(tokenizer)), tokenizer)
        self.model = CLIPAndReader(clip, self.slots)

    def prepare(self, out: Path, device: torch.device) -> None:
        """Nothing: clips are drawn as they are needed."""

    def _draw(self, split: str, indices: list[int], num_frames: int, captions: CaptionMix) -> Batch:
        data, size = self.recipe.data, self.recipe.model.video_size
        fps = (data.num_frames - 1) / data.duration_s
        clips = draw_clips(
            self.world, split, indices, height=size, width=size, num_frames=num_frames, fps=fps
        )
        rngs = [numpy_rng(split, "caption", i) for i in indices]
        return {
            "video": to_tensor(clips),
            "captions": [captions.draw(clip.captions, rng) for clip, rng in zip(clips, rngs)],
            "matched": [clip.captions["medium"] for clip in clips],
            "foils": [
                self.world.foil(clip, derive_seed(split, "foil", i)) for clip, i in zip(clips, indices)
            ],
            "truth": targets(clips, OracleConfig(self.slots)) if self.slots else {},
        }

    def batch(self, step: int) -> Batch:
        """Clips, a caption of each, and for each a foil with the name of the slot it is wrong in."""
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        num_frames = 1 if rng.random() < self.recipe.data.image_share else self.recipe.data.num_frames
        indices = [int(i) for i in rng.integers(2**40, size=self.recipe.data.batch)]
        batch = self._draw("clip", indices, num_frames, self.recipe.data.captions)
        is_paired = rng.random(len(indices)) < self.recipe.data.paired
        batch["captions"] = [
            matched if pair else drawn
            for pair, matched, drawn in zip(is_paired, batch["matched"], batch["captions"])
        ]
        return batch

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The symmetric contrastive loss, and the slots' cross-entropies.

        A single frame cannot tell motion, so foils stand among the candidates of clips only, and slots are read from clips only.
        """
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        clip = model.clip
        video, captions = batch["video"], batch["captions"]
        foils = [caption for caption, _ in batch["foils"]] if video.shape[2] > 1 else []
        _, embeds = clip.encode_text([*captions, *foils])
        texts, foil_embeds = embeds[: len(captions)], embeds[len(captions) :] if foils else None
        pooled = clip.video.pooled(video)
        loss, metrics = clip_loss(clip.video.embed(pooled), texts, foil_embeds, clip.logit_scale())
        if foil_embeds is not None and self.recipe.ways:
            ways = way_loss(clip.video.embed(pooled), clip.encode_text(batch["matched"])[1], foil_embeds)
            loss, metrics = loss + self.recipe.ways * ways, metrics | {"ways": ways.detach()}
        if not self.slots or not foils:
            return loss, metrics
        reading, read = model.read(
            pooled, {name: value.to(video.device) for name, value in batch["truth"].items()}
        )
        return loss + self.recipe.slots * reading, metrics | read

    @torch.no_grad()
    def measure(self, model: CLIP, device: torch.device) -> dict[str, float]:
        """On held-out clips: retrieval among 32 captions, and the share of one-slot foils told from the true caption, by slot."""
        right: dict[str, list[bool]] = {}
        retrieved = []
        for start in range(0, self.recipe.data.held_out_clips, 32):
            batch = self._draw(
                "clip-held-out",
                list(range(start, start + 32)),
                self.recipe.data.num_frames,
                CaptionMix(dropped=0.0),
            )
            video = model.encode_video(batch["video"].to(device))
            texts = model.encode_text(batch["matched"])[1]
            wrong = model.encode_text([caption for caption, _ in batch["foils"]])[1]
            retrieved += ((video @ texts.T).argmax(dim=1).cpu() == torch.arange(len(video))).tolist()
            better = ((video * texts).sum(dim=1) > (video * wrong).sum(dim=1)).tolist()
            for (_, slot), is_right in zip(batch["foils"], better):
                right.setdefault(slot, []).append(is_right)
        answers = [answer for slot in right.values() for answer in slot]
        scores = {f"foil_{slot}": sum(values) / len(values) for slot, values in sorted(right.items())}
        return {
            "retrieval_of_32": sum(retrieved) / len(retrieved),
            "foil": sum(answers) / len(answers),
            **scores,
        }

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Held-out clips, each with the caption of the sheet that fits it best."""
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        batch = self._draw(
            "clip-held-out", list(range(8)), self.recipe.data.num_frames, CaptionMix(dropped=0.0)
        )
        best = model.clip.similarity(batch["video"].to(device), batch["matched"]).argmax(dim=1).tolist()
        titles = [
            f"{'right' if i == found else 'wrong'}: {batch['matched'][found]}" for i, found in enumerate(best)
        ]
        videos = [Video(to_uint8(clip), 8.0) for clip in batch["video"]]
        save_image(path, contact_sheet(videos, titles, columns=1, frames_per_video=5))
        write_json(path.with_suffix(".json"), self.measure(model.clip, device))

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """The CLIP with its tokenizer, and what it scores on held-out clips."""
        assert isinstance(model, CLIPAndReader), "the CLIP task trains CLIPAndReader"
        save_component(folder, model.clip, card={**training, "held_out": self.measure(model.clip, device)})

    def init_from(self, folder: Path) -> None:
        """The weights of a released CLIP of the same vocabulary."""
        self.model.clip.load_state_dict(load_component(resolve_model(str(folder)), CLIP).state_dict())

    def benchmark_batches(self) -> list[tuple[str, Batch, int]]:
        """A clip step."""
        data, model = self.recipe.data, self.recipe.model
        video = (
            torch.rand(
                data.batch,
                3,
                data.num_frames,
                model.video_size,
                model.video_size,
                generator=torch_rng("plan"),
            )
            * 2
            - 1
        )
        clips = draw_clips(self.world, "plan", range(data.batch), height=16, width=16, num_frames=1)
        batch = {
            "video": video,
            "captions": [clip.captions["medium"] for clip in clips],
            "matched": [clip.captions["medium"] for clip in clips],
            "foils": [self.world.foil(clip, i) for i, clip in enumerate(clips)],
            "truth": targets(clips, OracleConfig(self.slots)) if self.slots else {},
        }
        tokens = data.batch * data.num_frames * (model.video_size // model.patch) ** 2
        return [
            (f"{data.batch} clips {model.video_size}x{model.video_size}x{data.num_frames}", batch, tokens)
        ]
