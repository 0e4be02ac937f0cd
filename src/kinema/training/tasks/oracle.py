"""Trains the oracle on clips of a world: fresh, degraded, and encoded and decoded by a VAE (round trips)."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, save_component
from kinema.checkpoints.shipped import SHIPPED, shipped_model
from kinema.checkpoints.tensors import weights_hash
from kinema.config import check_range, to_dict
from kinema.data.augment import degrade
from kinema.data.latents import Shape, choose_by_share
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.shard_cache import Shard, ShardCache
from kinema.data.world_clips import draw_clips, to_tensor
from kinema.errors import ConfigError
from kinema.files import write_json
from kinema.models.oracle import Oracle, OracleConfig, OracleOutput, heat_target
from kinema.models.pixels import to_uint8
from kinema.models.vae import VAE
from kinema.training.task import BenchmarkBatch, Recipe
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import Clip, WorldConfig, check_slots, make_world

log = logging.getLogger(__name__)

SHARD_CLIPS = 16
MIN_VISIBLE_SHARE = 0.2
"""Share of an object that must be visible in a frame for its position to count in the loss."""
ROUND_TRIP_FPS = 8.0
OLD_TARGETS = {"places": "positions"}
"""Names of targets in the round trips of version 0.1.0."""


@dataclass(frozen=True)
class OracleData:
    """Clips of `num_frames` frames at the oracle's rate, of one of the `shapes` per batch.

    A clip is degraded with probability `degraded`. In batches of the first shape, a share `round_trip_share`
    is taken from `round_trips` clips that the VAE encoded and decoded before the first step; 0 uses no VAE.
    Raises `ConfigError` for values out of range.
    """

    batch: int = 32
    num_frames: int = 9
    shapes: tuple[Shape, ...] = (Shape(128, 128, 0.8), Shape(96, 160, 0.1), Shape(160, 96, 0.1))
    degraded: float = 0.5
    round_trips: int = 160
    round_trip_share: float = 0.25
    held_out_clips: int = 400
    held_out_round_trips: int = 64

    def __post_init__(self) -> None:
        check_range(self, ("batch", "held_out_clips"), 1)
        check_range(self, ("num_frames",), 5)  # fewer do not show motion
        check_range(self, ("round_trips", "held_out_round_trips"), 0)
        check_range(self, ("degraded", "round_trip_share"), 0, 1)


@dataclass(frozen=True)
class OracleLoss:
    """Weights of heat map, expected position, size and visibility, relative to the slots' mean
    cross-entropy."""

    heat: float = 0.1
    position: float = 2.0
    size: float = 1.0
    visible: float = 0.1


@dataclass(frozen=True)
class OracleRecipe(Recipe):
    """All settings of an oracle run. `vae` is a released folder or "shipped"."""

    task: str = "oracle"
    vae: str = SHIPPED
    world: WorldConfig = field(default_factory=lambda: WorldConfig.from_table({"split": "all"}))
    model: OracleConfig = field(default_factory=OracleConfig)
    data: OracleData = field(default_factory=OracleData)
    loss: OracleLoss = field(default_factory=OracleLoss)


def targets(clips: Sequence[Clip], config: OracleConfig) -> dict[str, Tensor]:
    """The oracle's targets for clips: "slot_NAME" (b,) indices, and "positions", "log_sizes" and "visible" as
    in `OracleOutput`.

    The object of a track without an object stays at the centre with size 1, and is not visible.
    """
    out = {
        f"slot_{name}": torch.tensor([config.slots[name].index(str(clip.truth[name])) for clip in clips])
        for name in config.slots
    }
    rows: dict[str, list[np.ndarray]] = {"positions": [], "log_sizes": [], "visible": []}
    for clip in clips:
        aspect, frames = clip.truth["aspect"], len(clip.frames)
        positions = np.full((frames, config.num_tracks, 2), 0.5)
        sizes = np.ones((frames, config.num_tracks))
        visible = np.zeros((frames, config.num_tracks))

        for track, role in enumerate(("subject", "object")[: config.num_tracks]):
            tracks = [one["tracks"] for one in clip.truth["objects"] if one["role"] == role]
            if tracks:
                positions[:, track, 0] = np.mean([t["x"] for t in tracks], axis=0) / aspect
                positions[:, track, 1] = np.mean([t["y"] for t in tracks], axis=0)
                sizes[:, track] = np.mean([t["size"] for t in tracks], axis=0) / min(1.0, aspect)
                visible[:, track] = np.max([t["visible"] for t in tracks], axis=0)

        for name, values in (("positions", positions), ("log_sizes", np.log(sizes)), ("visible", visible)):
            rows[name].append(values.astype(np.float32))
    return out | {name: torch.from_numpy(np.stack(values)) for name, values in rows.items()}


class OracleTask:
    """Trains an oracle. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` for a world without slots or without its held-out combinations.
    """

    def __init__(self, recipe: OracleRecipe):
        self.recipe = recipe
        self.world = make_world(recipe.world)
        check_slots(self.world, "an oracle")
        if self.world.split != "all":
            raise ConfigError(
                "an oracle measures seen and held-out combinations of its world: use world.split = 'all'"
            )
        if abs(sum(shape.share for shape in recipe.data.shapes) - 1) > 1e-6:
            raise ConfigError(
                f"the shares of data.shapes add up to {sum(s.share for s in recipe.data.shapes):g}; "
                "they must add up to 1"
            )

        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.config = dataclasses.replace(recipe.model, slots=dict(self.world.slots))
        self.model = Oracle(self.config)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
        self.round_trips: dict[str, Batch] = {}

    def prepare(self, out: Path, device: torch.device) -> None:
        """Load the round trips of clips through the VAE, and make those that the run folder lacks."""
        data = self.recipe.data
        counts = {
            "train": data.round_trips if data.round_trip_share else 0,
            "held-out": data.held_out_round_trips,
        }
        if not any(counts.values()):
            return

        vae = load_component(
            shipped_model() if self.recipe.vae == SHIPPED else Path(self.recipe.vae), VAE, device=device
        )
        identity = [
            weights_hash(vae),
            to_dict(self.world.config),
            to_dict(self.config),
            to_dict(data.shapes[0]),
            data.num_frames,
        ]
        cache = ShardCache(out, identity, "round_trips")
        for split, count in counts.items():
            shards = []
            for first in range(0, count, SHARD_CLIPS):
                num = min(SHARD_CLIPS, count - first)
                make = partial(self._round_trips, vae, split, first, num)
                tensors = cache.get(f"{split}-{first:05d}-{num}", make).tensors
                shards.append({OLD_TARGETS.get(name, name): value for name, value in tensors.items()})
            if shards:
                self.round_trips[split] = {
                    name: torch.cat([shard[name] for shard in shards]) for name in shards[0]
                }

    @torch.no_grad()
    def _round_trips(self, vae: VAE, split: str, first: int, count: int) -> Shard:
        """`count` clips encoded and decoded by the VAE at 8 fps, thinned to the oracle's rate, with their
        targets."""
        stride = round(ROUND_TRIP_FPS / self.config.fps)
        num_frames = (self.recipe.data.num_frames - 1) * stride + 1
        num_frames += -(num_frames - 1) % vae.config.temporal_factor
        shape = self.recipe.data.shapes[0]
        indices = range(first, first + count)
        sizes = {
            "height": shape.height,
            "width": shape.width,
            "num_frames": num_frames,
            "fps": ROUND_TRIP_FPS,
        }
        clips = draw_clips(self.world, f"oracle-{split}-round-trip", indices, **sizes)  # type: ignore[arg-type]
        device = next(vae.parameters()).device
        kept = slice(0, (self.recipe.data.num_frames - 1) * stride + 1, stride)
        video = []
        for clip in clips:
            back = vae.decode(vae.encode(to_tensor([clip]).to(device)).mean).clamp(-1, 1)
            video.append(self.model.prepare(back[:, :, kept]).cpu())

        shard = targets(clips, self.config)
        shard |= {name: shard[name][:, kept] for name in ("positions", "log_sizes", "visible")}
        shard["video"] = torch.cat(video).mul(127.5).add(127.5).round().to(torch.uint8)
        log.info("%d clips encoded and decoded", count)
        return Shard(shard)

    def _render(self, split: str, indices: Sequence[int], shape: Shape) -> Batch:
        """Fresh clips of these indices and their targets."""
        sizes = {"height": shape.height, "width": shape.width, "num_frames": self.recipe.data.num_frames}
        clips = draw_clips(self.world, split, indices, **sizes, fps=self.config.fps)
        return {"video": self.model.prepare(to_tensor(clips)), **targets(clips, self.config)}

    def batch(self, step: int) -> Batch:
        """Clips of one shape, prepared for the oracle, with their targets."""
        data, rng = self.recipe.data, numpy_rng(self.recipe.run.seed, "batch", step)
        which = choose_by_share([shape.share for shape in data.shapes], float(rng.random()))
        trips = self.round_trips.get("train")
        num_trips = round(data.batch * data.round_trip_share) if trips is not None and which == 0 else 0
        indices = [int(i) for i in rng.integers(2**40, size=data.batch - num_trips)]
        batch = self._render("oracle", indices, data.shapes[which])

        if trips is not None and num_trips:
            rows = torch.from_numpy(rng.choice(len(trips["video"]), num_trips))
            taken = {name: values[rows] for name, values in trips.items()}
            taken["video"] = taken["video"].float().div_(127.5).sub_(1)
            batch = {name: torch.cat([values, taken[name]]) for name, values in batch.items()}

        degraded = torch.from_numpy(rng.random(len(batch["video"])) < data.degraded)
        if degraded.any():
            degrade_rng = torch_rng(self.recipe.run.seed, "degrade", step)
            batch["video"][degraded] = degrade(batch["video"][degraded], degrade_rng)
        return batch

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Cross-entropies of the slots, and the errors of the tracks in frames where the object is
        visible."""
        assert isinstance(model, Oracle), "the oracle task trains an Oracle"
        weights, video = self.recipe.loss, batch["video"]
        out = model(video)
        entropies = {
            name: F.cross_entropy(found.float(), batch[f"slot_{name}"]) for name, found in out.logits.items()
        }

        visible = (batch["visible"] > MIN_VISIBLE_SHARE).float()
        share = visible / visible.sum().clamp(min=1)
        lh, lw = out.heat.shape[-2:]
        target = heat_target(batch["positions"].flatten(0, 2), lh, lw, *video.shape[-2:]).flatten(1)
        heat = F.cross_entropy(out.heat.flatten(0, 2).flatten(1).float(), target, reduction="none")
        position = (out.positions - batch["positions"]).abs().sum(dim=-1)
        size = (out.log_sizes - batch["log_sizes"]).abs()
        visibility = F.binary_cross_entropy_with_logits(out.visible, visible)

        slots = torch.stack(list(entropies.values())).mean()
        tracks = [
            (weights.heat, (heat * share.flatten()).sum()),
            (weights.position, (position * share).sum()),
            (weights.size, (size * share).sum()),
        ]
        loss = slots + sum(weight * value for weight, value in tracks) + weights.visible * visibility
        accuracies = {
            name: (logits.argmax(dim=1) == batch[f"slot_{name}"]).float().mean()
            for name, logits in out.logits.items()
            if logits.shape[1] > 1
        }
        return loss, {
            "slots": slots.detach(),
            "position": tracks[1][1].detach(),
            "log_size": tracks[2][1].detach(),
            **accuracies,
        }

    @torch.no_grad()
    def measure(self, model: Oracle, device: torch.device) -> dict[str, dict[str, float]]:
        """Accuracy by slot and position error on held-out clips, for fresh clips of all shapes and for round
        trips."""
        model.eval()
        kinds: dict[str, list[Batch]] = {"fresh": []}
        data = self.recipe.data
        for index, shape in enumerate(data.shapes):
            count = round(data.held_out_clips * shape.share)
            kinds["fresh"] += [
                self._render(f"oracle-held-out-{index}", range(i, min(i + data.batch, count)), shape)
                for i in range(0, count, data.batch)
            ]

        if "held-out" in self.round_trips:
            trips = self.round_trips["held-out"]
            kinds["round_trip"] = [trips | {"video": trips["video"].float().div(127.5).sub(1)}]

        scores = {}
        for kind, batches in kinds.items():
            values: dict[str, list[float]] = {}
            for batch in batches:
                out: OracleOutput = model(batch["video"].to(device))
                for name, logits in out.logits.items():
                    answers = logits.argmax(dim=1).cpu()
                    values.setdefault(name, []).extend((answers == batch[f"slot_{name}"]).float().tolist())
                is_visible = batch["visible"] > MIN_VISIBLE_SHARE
                errors = (out.positions.cpu() - batch["positions"]).norm(dim=-1)[is_visible]
                values.setdefault("position_error", []).extend(errors.tolist())
            scores[kind] = {name: round(sum(found) / len(found), 5) for name, found in values.items()}
        return scores

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of held-out clips with their readings, and the scores as JSON."""
        assert isinstance(model, Oracle), "the oracle task trains an Oracle"
        batch = self._render("oracle-held-out-0", range(8), self.recipe.data.shapes[0])
        videos = [Video(to_uint8(clip), self.config.fps) for clip in batch["video"]]
        readings = model.read([video.frames for video in videos], self.config.fps)
        titles = [
            " ".join(reading.answers[name] for name, values in self.config.slots.items() if len(values) > 1)
            for reading in readings
        ]
        save_image(path, contact_sheet(videos, titles, columns=1, frames_per_video=5))
        write_json(path.with_suffix(".json"), self.measure(model, device))

    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the oracle in bfloat16, with the accuracies of the written weights on held-out clips."""
        assert isinstance(model, Oracle), "the oracle task trains an Oracle"
        save_component(folder, model, card=training, dtype=torch.bfloat16)
        scores = self.measure(load_component(folder, Oracle, device=device), device)
        save_component(folder, model, card={**training, "held_out": scores}, dtype=torch.bfloat16)

    def init_from(self, folder: Path) -> None:
        """Load the weights of a released oracle with the same slots."""
        self.model.load_state_dict(load_component(folder, Oracle).state_dict())

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """A batch of clips of the first shape."""
        data = self.recipe.data
        shape = data.shapes[0]
        batch = self._render("plan", range(data.batch), shape)
        num_positions = batch["video"].shape[2:].numel() * data.batch
        return [BenchmarkBatch(f"{data.batch} clips of {data.num_frames} frames", batch, num_positions)]
