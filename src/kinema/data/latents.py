"""Latents of a world's clips and images, encoded once for each VAE, world and set of sizes."""

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.tensors import vae_hash
from kinema.config import check_range, to_dict
from kinema.data.seeds import Batch, batches
from kinema.data.shard_cache import Shard, ShardCache
from kinema.data.world_clips import draw_clips
from kinema.errors import ConfigError
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.models.vae_conditioning import encode_conditioning
from kinema.worlds import World

log = logging.getLogger(__name__)

FORMAT = 1
TAIL_LATENTS = 2
"""Largest number of latents at the end of a clip that are also encoded behind a mirrored prefix."""
TAIL_EVERY = 4
"""One batch in `TAIL_EVERY` has its tails encoded, because a tail costs more than half a clip."""


@dataclass(frozen=True)
class Shape:
    """A frame size in pixels, and the share of clips and images that have it."""

    height: int
    width: int
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share <= 0 or min(self.height, self.width) < 1:
            raise ConfigError(
                f"a shape of {self.height}x{self.width} with share {self.share:g}: all three must be positive"
            )


@dataclass(frozen=True)
class LatentData:
    """What is encoded: `num_clips` clips of `num_frames` frames at `fps`, and `num_images` single frames.

    Both are divided among `shapes` by their shares.
    """

    num_clips: int = 6000
    num_images: int = 16000
    num_frames: int = 17
    fps: float = 8.0
    shapes: tuple[Shape, ...] = (Shape(128, 128),)
    shard_clips: int = 64
    shard_images: int = 512

    def __post_init__(self) -> None:
        if not self.shapes or abs(sum(shape.share for shape in self.shapes) - 1) > 1e-6:
            raise ConfigError(
                f"the shares of shapes add up to {sum(s.share for s in self.shapes):g}; they must add up to 1"
            )
        check_range(self, ("num_clips", "num_images", "num_frames", "shard_clips", "shard_images"), 1)


@dataclass(frozen=True, eq=False)
class Latents:
    """Normalised latents of one kind and shape, float16 (num, z, lf, lh, lw), and six captions each.

    `tails` (num, z, 2, lh, lw) holds the last `tail_lengths[i]` (0 to 2) latents of clip i, right-aligned, as
    encoded behind a mirrored prefix.
    """

    latents: Tensor
    captions: list[dict[str, str]]
    tails: Tensor | None = None
    tail_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)


class ShardJob(NamedTuple):
    """The content of a shard: "images" or "clips" `first` to `first + num - 1` of a shape."""

    kind: str
    shape_index: int
    first: int
    num: int


class LatentCache:
    """The shards of one VAE, world and set of sizes, in a folder under `root`."""

    def __init__(self, root: Path, vae: VAE, world: World, data: LatentData):
        self.vae, self.world, self.data = vae, world, data
        identity = {
            "format": FORMAT,
            "world": [world.name, to_dict(world.config)],
            "data": to_dict(data),
            "vae": vae_hash(vae),
        }
        if vae.precision != "fp32":
            identity["precision"] = vae.precision
        self.shards = ShardCache(root, identity)

    def fill(self, device: torch.device, num_workers: int = 0) -> None:
        """Encode the missing shards; `num_workers` processes render their clips ahead (0: in this process).

        Several processes may fill one folder: each uses another order.
        """
        missing = [job for job in self._jobs() if self._name(job) not in self.shards]
        if not missing:
            return
        random.Random(os.getpid()).shuffle(missing)
        log.info("encoding %d shards into %s", len(missing), self.shards.folder)
        vae = self.vae.to(device).eval()
        drawn = batches(lambda i: self._draw(missing[i]), 0, len(missing), num_workers=num_workers)
        for done, (job, batch) in enumerate(zip(missing, drawn, strict=True), 1):
            if batch:
                self._write(job, batch, vae, device)
            if done % max(1, len(missing) // 10) == 0:
                log.info("encoded %d of %d shards", done, len(missing))

    def load(self, kind: str, shape_index: int) -> Latents:
        """All "images" or "clips" of a shape, in memory. Raises `TrainingError` naming a damaged shard."""
        jobs = [job for job in self._jobs() if (job.kind, job.shape_index) == (kind, shape_index)]
        shards = [self.shards.read(self._name(job)) for job in jobs]
        tensors = {name: torch.cat([shard.tensors[name] for shard in shards]) for name in shards[0].tensors}
        captions = [texts for shard in shards for texts in shard.values["captions"]]
        return Latents(tensors["latents"], captions, tensors.get("tails"), tensors.get("tail_lengths"))

    def _jobs(self) -> list[ShardJob]:
        """The jobs of all shards."""
        jobs = []
        for kind, total, size in (
            ("images", self.data.num_images, self.data.shard_images),
            ("clips", self.data.num_clips, self.data.shard_clips),
        ):
            for shape_index, shape in enumerate(self.data.shapes):
                count = round(total * shape.share)
                jobs += [
                    ShardJob(kind, shape_index, first, min(size, count - first))
                    for first in range(0, count, size)
                ]
        return jobs

    def _name(self, job: ShardJob) -> str:
        shape = self.data.shapes[job.shape_index]
        return f"{job.kind}-{shape.height}x{shape.width}-{job.first:07d}"

    def _draw(self, job: ShardJob) -> Batch:
        """The clips of a shard, uint8 (num, f, h, w, 3), and their captions; nothing when another process has
        written it meanwhile.
        """
        if self._name(job) in self.shards:
            return {}
        kind, shape_index, first, count = job
        shape = self.data.shapes[shape_index]
        frames = 1 if kind == "images" else self.data.num_frames
        split = f"train-{kind}-{shape.height}x{shape.width}"
        sizes = {"height": shape.height, "width": shape.width, "num_frames": frames}
        clips = draw_clips(self.world, split, range(first, first + count), **sizes, fps=self.data.fps)
        return {
            "frames": torch.from_numpy(np.stack([clip.frames for clip in clips])),
            "captions": [clip.captions for clip in clips],
        }

    @torch.no_grad()
    def _write(self, job: ShardJob, batch: Batch, vae: VAE, device: torch.device) -> None:
        frames, first = batch["frames"].numpy(), job.first
        at_once = 8 if frames.shape[1] > 1 else 64
        tensors: dict[str, list[Tensor]] = {"latents": []}
        for i in range(0, len(frames), at_once):
            video = from_uint8(list(frames[i : i + at_once])).to(device)
            latents = encode_conditioning(vae, video, starts_canvas=True)
            tensors["latents"].append(latents.half().cpu())
            if latents.shape[2] > 1:
                tails, length = torch.zeros_like(latents[:, :, :TAIL_LATENTS]), 0
                turn, skipped = divmod((first + i) // at_once, TAIL_EVERY)
                if not skipped:
                    length = 1 + turn % min(TAIL_LATENTS, latents.shape[2] - 1)
                    end = video[:, :, -length * vae.config.temporal_factor :]
                    tails[:, :, -length:] = encode_conditioning(vae, end, starts_canvas=False)
                tensors.setdefault("tails", []).append(tails.half().cpu())
                tensors.setdefault("tail_lengths", []).append(torch.full((len(video),), length))
        joined = {name: torch.cat(values) for name, values in tensors.items()}
        self.shards.put(self._name(job), Shard(joined, {"captions": batch["captions"]}))


def choose_by_share(shares: Sequence[float], draw: float) -> int:
    """The index whose share of [0, 1) contains `draw`."""
    total = 0.0
    for index, share in enumerate(shares):
        total += share
        if draw < total:
            return index
    return len(shares) - 1
