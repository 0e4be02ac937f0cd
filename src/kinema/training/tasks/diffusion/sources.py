"""What a diffusion run trains on: latents of a world's clips, or of the clips of a data set."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.tensors import vae_hash
from kinema.data.dataset import Dataset
from kinema.data.latents import LatentCache, Latents, choose_by_share
from kinema.data.packing import Packing
from kinema.data.seeds import Batch, numpy_rng, torch_rng
from kinema.data.shard_cache import Shard, ShardCache
from kinema.data.world_clips import draw_clips
from kinema.device import uses_bf16
from kinema.errors import ConfigError, DataError
from kinema.models.patches import Patch
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.models.vae_conditioning import encode_conditioning
from kinema.training.task import BenchmarkBatch
from kinema.training.tasks.diffusion.loss import LatentGroup
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe, Period
from kinema.worlds import HasObjectNames, World

log = logging.getLogger(__name__)

SHARD_CLIPS = 64
"""Clips of a data set in a shard of latents of another VAE."""


class LatentSource(Protocol):
    """Latents with captions, and what the manifest of a model that is trained on them says of them."""

    def prepare(self, cache: Path, device: torch.device) -> None:
        """Encode the latents that the folder `cache` lacks. Called once, before the first batch."""

    def batch(self, step: int) -> Batch:
        """{"groups", "captions", "step"}: `LatentGroup`s, and a caption for every clip in their order."""

    def some_latents(self) -> Tensor:
        """Values of latents, whose mean is near 0 and whose std is near 1."""

    def captions(self) -> Iterator[str]:
        """Every caption of the clips."""

    def prompts(self, count: int) -> list[str]:
        """At most `count` captions for sample clips."""

    def manifest_fields(self) -> dict[str, Any]:
        """Trained sizes, lengths and rate, licence and vocabulary, as fields of `Manifest`."""

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """One batch of random latents for every kind of step."""


class WorldLatents:
    """Latents of images and clips of a world, encoded once. See `LatentSource`.

    Raises `ConfigError` for periods with longer clips than the world draws.
    """

    def __init__(self, recipe: DiffusionRecipe, world: World, vae: VAE, patch: Patch) -> None:
        self.recipe, self.world, self.vae, self.patch = recipe, world, vae, patch
        longest = 1 + (recipe.data.num_frames - 1) // vae.config.temporal_factor
        if max(period.latent_frames for period in recipe.periods) > longest:
            raise ConfigError(
                f"a period has more latent frames than clips of {recipe.data.num_frames} frames have "
                f"({longest}): lower its latent_frames or raise data.num_frames"
            )
        self.cached: dict[tuple[str, int], Latents] = {}

    def prepare(self, cache: Path, device: torch.device) -> None:
        """Encode the latents that the folder `cache` lacks, and load all of them."""
        self.vae.precision = "bf16" if uses_bf16(device, self.recipe.run.precision) else "fp32"
        latents = LatentCache(cache, self.vae, self.world, self.recipe.data)
        latents.fill(device, self.recipe.run.num_workers)
        for kind in ("images", "clips"):
            for index in range(len(self.recipe.data.shapes)):
                self.cached[kind, index] = latents.load(kind, index)

    def some_latents(self) -> Tensor:
        """The latents of the clips of the first shape."""
        return self.cached["clips", 0].latents.float()

    def captions(self) -> Iterator[str]:
        """Every caption of the clips and images."""
        for latents in self.cached.values():
            for texts in latents.captions:
                yield from texts.values()

    def _period_at(self, step: int) -> Period:
        """The period of a step."""
        return next(
            period
            for period in self.recipe.periods
            if step < period.until * self.recipe.run.steps or period is self.recipe.periods[-1]
        )

    def batch(self, step: int) -> Batch:
        """One group of images or clips of one shape; see `LatentSource`. A window is the end of a clip."""
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        period = self._period_at(step)
        shape_index = choose_by_share([shape.share for shape in self.recipe.data.shapes], rng.random())
        source = self.cached["images" if period.latent_frames == 1 else "clips", shape_index]
        indices = rng.integers(len(source), size=period.batch)

        latents, first_frame = source.latents[indices].float(), 0
        captions = [self.recipe.captions.draw(source.captions[i], rng) for i in indices]
        total = latents.shape[2]
        if period.latent_frames > 2 and rng.random() < self.recipe.mix.windows:
            latents = latents[:, :, max(1, total - period.latent_frames) :]
            first_frame = int(rng.integers(1, 9))
        else:
            latents = latents[:, :, : period.latent_frames]

        group = LatentGroup(latents, first_frame)
        shows_end = first_frame > 0 or period.latent_frames == total
        if source.tails is not None and source.tail_lengths is not None and shows_end:
            group = LatentGroup(
                latents, first_frame, source.tails[indices].float(), source.tail_lengths[indices]
            )
        return {"groups": [group], "captions": captions, "step": step}

    def prompts(self, count: int) -> list[str]:
        """Captions that training does not use."""
        clips = draw_clips(self.world, "dit-held-out", range(count), height=16, width=16, num_frames=1)
        return [clip.captions["medium"] for clip in clips]

    def manifest_fields(self) -> dict[str, Any]:
        """See `LatentSource`. The default is the most frequent shape at the full length."""
        data, vae = self.recipe.data, self.vae.config
        sides = [side for shape in data.shapes for side in (shape.height, shape.width)]
        first = max(data.shapes, key=lambda shape: shape.share)
        longest = 1 + (max(p.latent_frames for p in self.recipe.periods) - 1) * vae.temporal_factor
        return {
            "licence": "Apache-2.0",
            "fps": data.fps,
            "sides": (min(sides), max(sides), vae.spatial_factor * max(self.patch[1:])),
            "frames": (1, longest),
            "default_size": (first.height, first.width),
            "default_frames": longest,
            "vocabulary": dict(self.world.vocabulary),
            "max_objects": len(self.world.slots.get("count", ())) or None,
            "object_names": self.world.object_names if isinstance(self.world, HasObjectNames) else {},
        }

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """One batch for every period, at the first shape."""
        shape, vae = self.recipe.data.shapes[0], self.vae.config
        grid = (shape.height // vae.spatial_factor, shape.width // vae.spatial_factor)
        clips = draw_clips(self.world, "plan", range(8), height=16, width=16, num_frames=1)
        captions = [clip.captions["medium"] for clip in clips]
        pt, ph, pw = self.patch
        rows = []

        for period in self.recipe.periods:
            sizes = (period.batch, vae.z_dim, period.latent_frames, *grid)
            latents = torch.randn(sizes, generator=torch_rng("plan"))
            batch = {
                "groups": [LatentGroup(latents)],
                "captions": [captions[i % 8] for i in range(period.batch)],
                "step": 0,
            }
            tokens = period.batch * (period.latent_frames // pt) * -(-grid[0] // ph) * -(-grid[1] // pw)
            name = f"{period.batch} x {period.latent_frames} latent frames of {shape.height}x{shape.width}"
            rows.append(BenchmarkBatch(name, batch, tokens))
        return rows


class DatasetLatents:
    """Latents of the clips of a data set, in packed batches. See `LatentSource`.

    Latents of another VAE are encoded again from the pixels of the data set. Raises `DataError` for another
    VAE if there are no pixels, and for clips without captions, and `ConfigError` for clips that do not divide
    into latents and patches.
    """

    def __init__(self, recipe: DiffusionRecipe, dataset: Dataset, vae: VAE, patch: Patch) -> None:
        self.recipe, self.dataset, self.vae, self.patch = recipe, dataset, vae, patch
        made_with, here = str(dataset.card["vae"]["weights"]), vae_hash(vae)
        self.is_encoded_again = made_with != here
        if self.is_encoded_again and not dataset.has_pixels:
            raise DataError(
                f"{dataset.folder} was encoded with the VAE {dataset.card['vae']['name']} ({made_with}) and "
                f"holds no pixels, but the run uses the VAE {recipe.vae} ({here}): build the data set again "
                f"with --set vae={recipe.vae} or with pixels, or train with the VAE of the data set"
            )
        if recipe.captions.dropped < 1:
            dataset.check_captions("a text-to-video model")

        self.shapes = self._shapes()
        for shape in set(self.shapes):
            if any(size % p for size, p in zip(shape, patch)):
                raise ConfigError(
                    f"clips of {' x '.join(map(str, shape))} latents in {dataset.folder} do not divide into "
                    f"patches of {patch}: set model.patch to divisors of these numbers"
                )
        tokens = [shape[0] * shape[1] * shape[2] // (patch[0] * patch[1] * patch[2]) for shape in self.shapes]
        self.packing = Packing(tokens, self.shapes, recipe.pack, recipe.run.seed)
        self.encoded: ShardCache | None = None

    def _shapes(self) -> list[tuple[int, ...]]:
        """The sizes (lf, lh, lw) of the latents of all clips."""
        if not self.is_encoded_again:
            names = ("latent_frames", "latent_height", "latent_width")
            return [tuple(map(int, shape)) for shape in zip(*(self.dataset.column(name) for name in names))]

        space, time = self.vae.config.spatial_factor, self.vae.config.temporal_factor
        shapes: list[tuple[int, ...]] = []
        for size in zip(*(map(int, self.dataset.column(name)) for name in ("num_frames", "height", "width"))):
            frames, height, width = size
            if (frames - 1) % time or height % space or width % space:
                raise ConfigError(
                    f"clips of {width}x{height}x{frames} in {self.dataset.folder} do not fit the VAE "
                    f"{self.recipe.vae}: it takes multiples of {space} pixels and {time}k+1 frames"
                )
            shapes.append((1 + (frames - 1) // time, height // space, width // space))
        return shapes

    def prepare(self, cache: Path, device: torch.device) -> None:
        """Log the contents of the data set, and encode its pixels if its latents are of another VAE."""
        for line in self.packing.table():
            log.info("%s", line)
        without = sum(not self.dataset.captions(i) for i in range(len(self.dataset)))
        if without:
            log.warning(
                "%d of %d clips have no caption and are trained on without one", without, len(self.dataset)
            )
        if self.is_encoded_again:
            self._encode(cache, device)

    @torch.no_grad()
    def _encode(self, cache: Path, device: torch.device) -> None:
        """Encode the pixels of all clips into the folder `cache`."""
        keys = [str(key) for key in self.dataset.column("pixels_key")]
        self.encoded = ShardCache(cache, {"vae": vae_hash(self.vae), "clips": keys}, "latents")
        starts = [start for start in range(0, len(keys), SHARD_CLIPS) if f"{start:07d}" not in self.encoded]
        if starts:
            log.info(
                "the latents of %s are of another VAE: encoding its pixels into %s",
                self.dataset.folder,
                self.encoded.folder,
            )
        vae = self.vae.to(device).eval()
        for start in starts:
            tensors = {}
            for index in range(start, min(start + SHARD_CLIPS, len(keys))):
                video = from_uint8([self.dataset.pixels(index).numpy()]).to(device)
                tensors[str(index)] = encode_conditioning(vae, video, starts_canvas=True)[0].half().cpu()
            self.encoded.put(f"{start:07d}", Shard(tensors))

    def _latents(self, index: int) -> Tensor:
        """The latents (z, lf, lh, lw) of a clip."""
        if self.encoded is None:
            return self.dataset.latents(index).float()
        name, key = f"{index // SHARD_CLIPS * SHARD_CLIPS:07d}", str(index)
        return self.encoded.read(name, [key]).tensors[key].float()

    def some_latents(self) -> Tensor:
        """The latents of the first clips."""
        first = range(min(64, len(self.dataset)))
        return torch.cat([self._latents(i).flatten() for i in first])

    def captions(self) -> Iterator[str]:
        """Every caption of the clips."""
        for index in range(len(self.dataset)):
            yield from self.dataset.captions(index).values()

    def batch(self, step: int) -> Batch:
        """One group for each clip; see `LatentSource`. A window is a clip without its first latent."""
        rng = numpy_rng(self.recipe.run.seed, "batch", step)
        groups, captions = [], []
        for index in self.packing.batch(step):
            latents, first_frame = self._latents(index), 0
            if latents.shape[1] > 2 and rng.random() < self.recipe.mix.windows:
                latents, first_frame = latents[:, 1:], int(rng.integers(1, 9))
            groups.append(LatentGroup(latents[None], first_frame))
            captions.append(self.recipe.captions.draw_any(self.dataset.captions(index), rng))
        return {"groups": groups, "captions": captions, "step": step}

    def prompts(self, count: int) -> list[str]:
        """One caption each of the first clips that have captions."""
        first = (self.dataset.captions(i) for i in range(min(64, len(self.dataset))))
        return ([next(iter(texts.values())) for texts in first if texts] or [""])[:count]

    def manifest_fields(self) -> dict[str, Any]:
        """See `LatentSource`. The default is the most frequent size and the most frequent length."""
        vae = self.vae.config
        sizes = [(shape[1] * vae.spatial_factor, shape[2] * vae.spatial_factor) for shape in self.shapes]
        frames = [1 + (shape[0] - 1) * vae.temporal_factor for shape in self.shapes]
        sides = [side for size in sizes for side in size]
        return {
            "licence": "; ".join(sorted(set(map(str, self.dataset.column("licence"))))),
            "fps": float(self.dataset.column("fps")[0]),
            "sides": (min(sides), max(sides), vae.spatial_factor * max(self.patch[1:])),
            "frames": (min(frames), max(frames)),
            "default_size": Counter(sizes).most_common(1)[0][0],
            "default_frames": Counter(frames).most_common(1)[0][0],
        }

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """The first batch of the data set, with random latents."""
        rng = torch_rng("plan")
        indices = self.packing.batch(0)
        shapes = [(1, self.vae.config.z_dim, *self.shapes[index]) for index in indices]
        batch = {
            "groups": [LatentGroup(torch.randn(shape, generator=rng)) for shape in shapes],
            "captions": [next(iter(self.dataset.captions(index).values()), "") for index in indices],
            "step": 0,
        }
        tokens = int(np.sum(self.packing.tokens[indices]))
        return [BenchmarkBatch(f"{len(indices)} clips of {self.dataset.folder}", batch, tokens)]
