"""Clips with captions for a CLIP: of a world, with captions that are wrong in one slot, or of a data set."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from kinema.data.seeds import Batch, derive_seed, numpy_rng
from kinema.data.world_clips import CaptionMix, draw_clips, to_tensor
from kinema.evaluation.vae_clip_metrics import GROUP_SIZE, CaptionedClips, clip_scores
from kinema.models.clip import CLIP
from kinema.models.oracle import OracleConfig
from kinema.training.tasks.oracle import targets
from kinema.training.tasks.pixel_sources import dataset_with_pixels, small_video
from kinema.worlds import World, check_slots

NUM_CANDIDATES = 8
"""Captions among which a clip of a data set must find its own."""
PLAIN = CaptionMix(dropped=0.0)


class CaptionPairs(Protocol):
    """Clips in [-1, 1] with captions. A batch has "video", "captions", "matched" (the caption that a foil was
    made from), "foils" with the names of their wrong slots, and "truth" for the slots.
    """

    @property
    def slots(self) -> Mapping[str, tuple[str, ...]]:
        """The slots that can be predicted from the clips."""

    @property
    def measured_on(self) -> str:
        """What `scores` measures: "held_out" or "training" clips."""

    def texts(self) -> list[str]:
        """Texts with every word of the captions."""

    def batch(self, step: int) -> Batch:
        """The batch of a step."""

    def shown(self) -> Batch:
        """Eight clips for a picture."""

    def planned(self) -> Batch:
        """A batch without "video", for a benchmark."""

    def scores(self, clip: CLIP) -> dict[str, float]:
        """How often a clip finds its own caption."""


class WorldPairs:
    """Clips of a world with foils. See `CaptionPairs`. `recipe` is a `CLIPRecipe`."""

    measured_on = "held_out"

    def __init__(self, recipe: Any, world: World) -> None:
        check_slots(world, "a CLIP with foils")
        self.recipe, self.world = recipe, world
        self.slots = dict(world.slots) if recipe.slot_loss else {}

    def texts(self) -> list[str]:
        """The words of the world."""
        return list(self.world.words)

    def batch(self, step: int) -> Batch:
        """Clips with a caption each, and a foil each with the name of its wrong slot."""
        data = self.recipe.data
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        num_frames = 1 if rng.random() < data.image_share else data.num_frames
        indices = [int(i) for i in rng.integers(2**40, size=data.batch)]
        batch = self._draw("clip", indices, num_frames, data.captions)
        is_paired = rng.random(len(indices)) < data.paired
        batch["captions"] = [
            matched if pair else drawn
            for pair, matched, drawn in zip(is_paired, batch["matched"], batch["captions"])
        ]
        return batch

    def shown(self) -> Batch:
        """Clips that training does not use."""
        return self._draw("clip-held-out", list(range(NUM_CANDIDATES)), self.recipe.data.num_frames, PLAIN)

    def planned(self) -> Batch:
        """Captions, foils and truths of the drawn clips."""
        clips = draw_clips(
            self.world, "plan", range(self.recipe.data.batch), height=16, width=16, num_frames=1
        )
        medium = [clip.captions["medium"] for clip in clips]
        foils = [self.world.foil(clip, i) for i, clip in enumerate(clips)]
        truth = targets(clips, OracleConfig(self.slots)) if self.slots else {}
        return {"captions": medium, "matched": medium, "foils": foils, "truth": truth}

    def scores(self, clip: CLIP) -> dict[str, float]:
        """Retrieval and foil accuracies on held-out clips. See `vae_clip_metrics.clip_scores`."""
        return clip_scores(clip, self._held_out_groups())

    def _held_out_groups(self) -> Iterator[CaptionedClips]:
        for start in range(0, self.recipe.data.held_out_clips, GROUP_SIZE):
            indices = list(range(start, start + GROUP_SIZE))
            batch = self._draw("clip-held-out", indices, self.recipe.data.num_frames, PLAIN)
            yield CaptionedClips(batch["video"], batch["matched"], batch["foils"])

    def _draw(self, split: str, indices: list[int], num_frames: int, captions: CaptionMix) -> Batch:
        """The clips of these indices, a drawn caption and the medium caption of each, foils and truths."""
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


class DatasetPairs:
    """Captioned clips of a data set; a foil is the caption of another clip. See `CaptionPairs`.

    Frames are spread over the whole clip and resized to the square of the CLIP. Raises `DataError` for a data
    set without pixels or captions.
    """

    slots: Mapping[str, tuple[str, ...]] = {}
    measured_on = "training"

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe
        self.dataset = dataset_with_pixels(recipe.dataset, "a CLIP")
        self.dataset.check_captions("a CLIP")
        texts = [self.dataset.captions(i) for i in range(len(self.dataset))]
        self.captions = {i: captions for i, captions in enumerate(texts) if captions}

    def texts(self) -> list[str]:
        """Every caption."""
        return [text for captions in self.captions.values() for text in captions.values()]

    def batch(self, step: int) -> Batch:
        """Different clips with a caption each, and another clip's caption each."""
        data = self.recipe.data
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        is_image = bool(rng.random() < data.image_share)
        indices = rng.permutation(list(self.captions))[: data.batch]
        captions = [data.captions.draw_any(self.captions[int(i)], rng) for i in indices]
        return {"video": self._video(indices, rng if is_image else None), **self._with_foils(captions, rng)}

    def shown(self) -> Batch:
        """The first clips."""
        indices = list(self.captions)[:NUM_CANDIDATES]
        captions = [next(iter(self.captions[i].values())) for i in indices]
        return {"video": self._video(indices), **self._with_foils(captions, numpy_rng("shown"))}

    def planned(self) -> Batch:
        """Captions of the first clips."""
        texts, rng = self.texts(), numpy_rng("plan")
        captions = [texts[i % len(texts)] for i in range(self.recipe.data.batch)]
        return self._with_foils(captions, rng)

    @torch.no_grad()
    def scores(self, clip: CLIP) -> dict[str, float]:
        """Share of the first clips whose own caption is the nearest of eight in a row."""
        indices = list(self.captions)[: self.recipe.data.held_out_clips]
        captions = [next(iter(self.captions[i].values())) for i in indices]
        device, found = next(clip.parameters()).device, 0
        for start in range(len(indices)):
            group = [(start + i) % len(indices) for i in range(min(NUM_CANDIDATES, len(indices)))]
            video = self._video([indices[start]]).to(device)
            nearest = int(clip.similarity(video, [captions[i] for i in group]).argmax())
            found += captions[group[nearest]] == captions[start]
        return {f"retrieval_of_{NUM_CANDIDATES}": found / len(indices)}

    def _video(self, indices: Iterable[int], rng: np.random.Generator | None = None) -> torch.Tensor:
        """Whole clips, or with `rng` one random frame of each."""
        data, side = self.recipe.data, self.recipe.model.video_size
        videos = []
        for index in indices:
            pixels = self.dataset.pixels(int(index))
            if rng is not None:
                pixels = pixels[[int(rng.integers(len(pixels)))]]
            videos.append(small_video(pixels, data.num_frames if rng is None else 1, side))
        return torch.stack(videos)

    def _with_foils(self, captions: list[str], rng: np.random.Generator) -> Batch:
        """The text part of a batch. With one distinct caption in the data set, it is its own foil."""
        texts = sorted(set(self.texts()))
        foils = []
        for caption in captions:
            others = [text for text in texts if text != caption] or texts
            foils.append((others[int(rng.integers(len(others)))], "caption"))
        return {"captions": captions, "matched": captions, "foils": foils, "truth": {}}
