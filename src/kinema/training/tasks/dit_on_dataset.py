"""Trains the DiT on a data set: `kinema train recipes/dit.toml --data dataset/`.

Clips keep their sizes and lengths and are packed into batches of equal token count. Everything else, from the
canvas mix to the export, is the same as for clips of a world.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import reduce
from torch import Tensor, nn

from kinema.checkpoints.components import load_dit
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import Manifest
from kinema.checkpoints.tensors import vae_hash
from kinema.data.dataset import Dataset
from kinema.data.packing import Packing
from kinema.data.seeds import Batch, numpy_rng, torch_rng
from kinema.diffusion.objectives import add_noise, target
from kinema.errors import ConfigError, DataError
from kinema.models.dit import DiT, apply_to_grids
from kinema.training.task import BenchmarkBatch
from kinema.training.tasks.dit import DiTRecipe, DiTSizes, DiTTask

log = logging.getLogger(__name__)

NUM_SAMPLES = 8
CHECKED_CLIPS = 1000
"""Clips whose captions are checked for words outside the vocabulary."""
SHOWN_WORDS = 12
"""Words in such a warning, the most frequent ones."""


def dit_sizes(folder: Path) -> dict[str, Any]:
    """The [model] table of a recipe for a DiT of the same sizes as the one in `folder`, which may be
    "shipped"."""
    config = load_dit(resolve_model(str(folder))).config
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(DiTSizes)}


class DatasetDiTTask(DiTTask):
    """Trains a DiT on a data set of encoded clips. See `kinema.training.task.TrainingTask`.

    The `periods` and `data` of the recipe describe clips of a world and are not used. Raises `DataError` for
    an empty data set or one of another VAE, and `ConfigError` for clips that do not divide into patches.
    """

    def __init__(self, recipe: DiTRecipe):
        assert recipe.dataset is not None, "load_task() uses this task only for recipes with a data set"
        self.dataset = Dataset(Path(recipe.dataset))
        if not len(self.dataset):
            raise DataError(f"{recipe.dataset} has no clips to train on")

        names = ("latent_frames", "latent_height", "latent_width")
        self.shapes = [
            tuple(map(int, shape)) for shape in zip(*(self.dataset.column(name) for name in names))
        ]
        patch = recipe.model.patch
        for shape in set(self.shapes):
            if any(size % p for size, p in zip(shape, patch)):
                raise ConfigError(
                    f"clips of {' x '.join(map(str, shape))} latents in {recipe.dataset} do not divide into "
                    f"patches of {patch}: set model.patch to divisors of these numbers"
                )

        tokens = [shape[0] * shape[1] * shape[2] // (patch[0] * patch[1] * patch[2]) for shape in self.shapes]
        self.packing = Packing(tokens, self.shapes, recipe.pack, recipe.run.seed)
        super().__init__(recipe)

        made_with, here = self.dataset.card["vae"]["weights"], vae_hash(self.vae)
        if made_with != here:
            raise DataError(
                f"{recipe.dataset} was encoded with the VAE {self.dataset.card['vae']['name']} "
                f"({made_with}), but the recipe's vae = {recipe.vae} is another one ({here}): build the data "
                f"set again with --set vae={recipe.vae}, or train with the VAE of the data set"
            )

    def prepare(self, out: Path, device: torch.device) -> None:
        """Log the contents of the data set, and move the frozen networks to the device."""
        self._describe_data()
        self._warn_about_unknown_words()
        self.vae.to(device)
        self.clip.to(device)

    def _describe_data(self) -> None:
        """Log the packing, clips without captions, and check the scale of the latents."""
        for line in self.packing.table():
            log.info("%s", line)

        without = sum(not self.dataset.captions(i) for i in range(len(self.dataset)))
        if without:
            log.warning(
                "%d of %d clips have no caption and are trained on without one", without, len(self.dataset)
            )

        first = range(min(64, len(self.dataset)))
        self._check_latents(torch.cat([self.dataset.latents(i).float().flatten() for i in first]))

    def _warn_about_unknown_words(self) -> None:
        """Log a warning when captions have words outside the CLIP's vocabulary, which training ignores."""
        dropped: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        num_words = 0
        for index in range(min(CHECKED_CLIPS, len(self.dataset))):
            for caption in self.dataset.captions(index).values():
                uses = self.clip.tokenizer.explain(caption)
                num_words += len(uses)
                dropped.update(use.word for use in uses if use.used is None)
                replaced.update(f"{use.word} -> {use.used}" for use in uses if use.used and not use.known)

        for words, fate in ((dropped, "dropped"), (replaced, "replaced by similar ones")):
            if words:
                log.warning(
                    "%d of %d words in the captions are not in the CLIP's vocabulary and are %s: %s",
                    words.total(),
                    num_words,
                    fate,
                    ", ".join(word for word, _ in words.most_common(SHOWN_WORDS)),
                )

    def batch(self, step: int) -> Batch:
        """Clips with latents (z, lf, lh, lw): {"clips", "captions", "first_frames", "step"}, an entry per
        clip."""
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        batch: Batch = {"clips": [], "captions": [], "first_frames": [], "step": step}
        for index in self.packing.batch(step):
            latents, first_frame = self.dataset.latents(index).float(), 0
            if latents.shape[1] > 2 and rng.random() < self.recipe.mix.windows:
                latents, first_frame = latents[:, 1:], int(rng.integers(1, 9))
            batch["clips"].append(latents)
            batch["captions"].append(self.recipe.captions.draw_any(self.dataset.captions(index), rng))
            batch["first_frames"].append(first_frame)
        return batch

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean squared error of the prediction over the unknown latents of all clips. Every latent has equal
        weight."""
        assert isinstance(model, DiT), "the DiT task trains a DiT"
        config, device = self.recipe.diffusion, next(model.parameters()).device
        noisy, times, unknown, wanted = [], [], [], []

        for clip, first_frame in zip(batch["clips"], batch["first_frames"], strict=True):
            known, clean, t, _ = self._draw_canvases(
                {"latents": clip[None], "first_frame": first_frame}, generator, model.config.patch
            )
            noise = torch.randn(clip[None].shape, generator=generator)
            x0, noise, known, clean, t = (value.to(device) for value in (clip[None], noise, known, clean, t))
            noisy.append(torch.where(known, clean, add_noise(x0, noise, t, self.schedule))[0])
            times.append(t.masked_fill(known, 0)[0])
            unknown.append(~known[0])
            wanted.append(target(config.prediction, x0, noise, t, self.schedule)[0])

        text = self._text(batch)
        outputs = apply_to_grids(model, noisy, times, text.to(device), batch["first_frames"])
        errors = [
            reduce((output.float() - w).square(), "c lf lh lw -> 1 lf lh lw", "mean")
            for output, w in zip(outputs, wanted)
        ]

        total = sum((error * mask).sum() for error, mask in zip(errors, unknown))
        count = sum(int(mask.sum()) for mask in unknown)
        assert isinstance(total, Tensor), "a batch has at least one clip"
        return total / max(1, count), {"clips": float(len(batch["clips"]))}

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """The first batch of the data set, with random latents."""
        self.clip.to(next(self.model.parameters()).device)
        batch = self.batch(0)
        batch["clips"] = [torch.randn(clip.shape, generator=torch_rng("plan")) for clip in batch["clips"]]
        tokens = int(self.packing.tokens[self.packing.batch(0)].sum())
        return [BenchmarkBatch(f"{len(batch['clips'])} clips of {self.recipe.dataset}", batch, tokens)]

    def _prompts(self) -> list[str]:
        """One caption each of the first clips that have captions."""
        texts = [
            text
            for i in range(min(64, len(self.dataset)))
            for text in list(self.dataset.captions(i).values())[:1]
        ]
        return (texts or [""])[:NUM_SAMPLES]

    def _manifest(self, card: dict[str, Any]) -> Manifest:
        """The manifest of the model: sizes, lengths, rate and licences of the data set, sampling defaults."""
        recipe, vae = self.recipe, self.vae.config
        pixels = [(shape[1] * vae.spatial_factor, shape[2] * vae.spatial_factor) for shape in self.shapes]
        frames = [1 + (shape[0] - 1) * vae.temporal_factor for shape in self.shapes]
        sides = [side for size in pixels for side in size]
        return Manifest(
            name=recipe.name,
            licence="; ".join(sorted(set(map(str, self.dataset.column("licence"))))),
            fps=float(self.dataset.column("fps")[0]),
            sides=(min(sides), max(sides), vae.spatial_factor * max(recipe.model.patch[1:])),
            frames=(min(frames), max(frames)),
            default_size=Counter(pixels).most_common(1)[0][0],
            default_frames=Counter(frames).most_common(1)[0][0],
            schedule=recipe.diffusion.schedule,
            prediction=recipe.diffusion.prediction,
            sampler=recipe.defaults.sampler,
            steps=recipe.defaults.steps,
            guidance=recipe.defaults.guidance,
            shift=recipe.defaults.shift,
            card=card,
        )
