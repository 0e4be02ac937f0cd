"""Cost of feeding a trainer: waiting time, memory over many batches, and packing against padding and buckets.

    python bench/loader.py                       # all three
    python bench/loader.py --batches 2000        # memory over fewer batches

The data set consists of random latents of 64 sizes, in the files that `kinema data build` writes, read by the
task of `kinema train --data`. Times are CPU seconds of one thread.
"""

import argparse
import dataclasses
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from kinema.checkpoints.components import load_vae
from kinema.checkpoints.shipped import shipped_model
from kinema.checkpoints.tensors import vae_hash
from kinema.config import to_dict
from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import CARD, SCHEMA_VERSION, SHARDS, ClipRow, parquet, to_table
from kinema.data.packing import PackConfig, Packing
from kinema.data.seeds import torch_rng
from kinema.training import load_task
from kinema.training.optimizer import build_optimizers
from kinema.training.tasks.diffusion.loss import LatentGroup
from kinema.training.tasks.diffusion.sources import DatasetLatents
from kinema.training.tasks.diffusion.task import DiffusionTask

RECIPE = Path(__file__).parents[1] / "recipes" / "dit_finetune.toml"
SIDES, FRAMES = (4, 6, 8, 12), (1, 3, 4, 5)
"""Sides in latents of 16 pixels, and lengths in latents. The 64 combinations are equally likely."""
TOKENS = 1024
SHARD_CLIPS = 64
WARM_UP = 0.1


def write_dataset(folder: Path, count: int) -> None:
    """A data set of `count` clips with random latents."""
    rng, z = np.random.default_rng(0), load_vae(shipped_model()).config.z_dim
    rows = []
    types = {str: "", int: 0, float: 0.0, bool: False}
    empty = {field.name: types[field.type] for field in dataclasses.fields(ClipRow)}  # type: ignore[index]
    (folder / SHARDS).mkdir(parents=True)
    for first in range(0, count, SHARD_CLIPS):
        name, arrays = f"{first:06d}.safetensors", {}
        for index in range(first, min(count, first + SHARD_CLIPS)):
            shape = int(rng.choice(FRAMES)), int(rng.choice(SIDES)), int(rng.choice(SIDES))
            arrays[f"clip{index}"] = rng.standard_normal((z, *shape), dtype=np.float32).astype(np.float16)
            sizes = dict(zip(("latent_frames", "latent_height", "latent_width"), shape))
            captions = json.dumps(
                {"caption": f"a penguin walks to the {'left' if index % 2 else 'right'} on a snowy plain"}
            )
            said = {
                "clip_id": str(index),
                "verdict": "kept",
                "captions": captions,
                "latents_key": f"clip{index}",
                "shard": name,
                "fps": 8.0,
            }
            rows.append(ClipRow(**{**empty, **said, **sizes}))
        save_file(arrays, folder / SHARDS / name)
    parquet().write_table(to_table(rows, ClipRow), folder / "clips.parquet")
    card = {
        "schema_version": SCHEMA_VERSION,
        "tables": {"clips": "clips.parquet"},
        "shards": {},
        "recipe": to_dict(DataRecipe()),
        "vae": {"name": "shipped", "weights": vae_hash(load_vae(shipped_model()))},
    }
    (folder / CARD).write_text(json.dumps(card))


def part_of(folder: Path, *settings: str) -> DiffusionTask:
    """The task that trains on the data set: the shipped model's sizes unless `settings` say others."""
    fixed = [f"dataset={folder}", "vae=shipped", "clip=shipped", f"pack.tokens={TOKENS}", "run.device=cpu"]
    task = load_task(RECIPE, assignments=[*fixed, *settings])
    assert isinstance(task, DiffusionTask)
    assert isinstance(task.source, DatasetLatents)
    return task


def seconds_of(
    task: DiffusionTask, batch: dict[str, Any], optimizers: Sequence[torch.optim.Optimizer]
) -> float:
    """Processor seconds of one training step."""
    begun = time.process_time()
    task.loss(task.model, batch, torch_rng("bench"))[0].backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.process_time() - begun


def stall(folder: Path, steps: int) -> None:
    """Print the share of training in which the trainer waits for a batch, drawn in its own process."""
    for name, settings in (
        ("the shipped DiT", ("model.num_layers=6",)),
        ("a DiT of 2 layers, 64 wide", SMALL),
    ):
        task = part_of(folder, *settings)
        task.batch(0)  # the first epoch is packed, the table read
        optimizers = build_optimizers(task.model, task.recipe.optimizer)
        drawing = training = 0.0
        for step in range(1, steps + 1):
            begun = time.process_time()
            batch = task.batch(step)
            drawing += time.process_time() - begun
            training += seconds_of(task, batch, optimizers)
        share = drawing / (drawing + training)
        total = 1000 * (drawing + training) / steps
        each = f"{1000 * drawing / steps:.1f} ms of {total:.0f} ms a step of {TOKENS} tokens"
        print(f"waiting for data, {name}: {share:.2%} of training time ({each})", flush=True)


SMALL = ("model.num_layers=2", "model.d=64", "model.num_heads=2", "model.ffn_dim=128")


def memory(folder: Path, num_batches: int) -> None:
    """Print how the resident memory of the process goes over many batches, through several epochs."""
    task = part_of(folder, *SMALL)
    every = max(1, num_batches // 100)
    at, resident, own = [], [], []
    for step in range(num_batches):
        task.batch(step)
        if step % every == 0 and step >= WARM_UP * num_batches:
            gc.collect()
            said = dict(
                line.split(":", 1)
                for line in Path("/proc/self/status").read_text().splitlines()
                if ":" in line
            )
            at.append(step)
            resident.append(int(said["VmRSS"].split()[0]) / 1024)
            own.append(int(said["RssAnon"].split()[0]) / 1024)
    epochs = num_batches / len(task.source.packing.epoch(0))
    for name, values in (("resident memory", resident), ("of it not files that are mapped", own)):
        slope = np.polyfit(at, values, 1)[0] * 1000
        print(
            f"{name} over {num_batches} batches ({epochs:.0f} epochs), after the first {WARM_UP:.0%}: "
            f"{min(values):.1f} to {max(values):.1f} MiB, slope {slope:+.4f} MiB a thousand batches",
            flush=True,
        )


def padded(order: Sequence[int], tokens: np.ndarray) -> Iterator[list[int]]:
    """Clips in their order, as many in a batch as fit when each is padded to the longest of them."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * max(tokens[i] for i in (*batch, index)) > TOKENS:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def compare(folder: Path, num_batches: int) -> None:
    """Print samples a second of packed batches, of padded batches, and of buckets of one exact size.

    Padding is tried in two ways: with as many clips as fit into as many tokens as a packed batch has, and
    with 8 clips whatever they take.
    """
    task = part_of(folder, "model.num_layers=4", "model.d=128", "model.num_heads=2", "model.ffn_dim=512")
    optimizers = build_optimizers(task.model, task.recipe.optimizer)
    tokens, shapes = task.source.packing.tokens, task.source.shapes
    buckets = Packing(tokens.tolist(), shapes, PackConfig(TOKENS, "bucket"), 0).epoch(0)
    full = {shape: TOKENS // (shape[0] * shape[1] * shape[2] // 4) for shape in set(shapes)}
    whole = [batch for batch in buckets if len(batch) == full[shapes[batch[0]]]]
    dropped = 1 - sum(map(len, whole)) / len(tokens)
    order = list(itertools.chain(*task.source.packing.epoch(0)))
    np.random.default_rng(0).shuffle(order)
    eights = [order[first : first + 8] for first in range(0, len(order), 8)]
    ways = {
        "packed": task.source.packing.epoch(0),
        f"padded, up to {TOKENS} tokens": list(padded(order, tokens)),
        "padded, 8 clips": eights,
    }
    ways["buckets, task-full ones too"] = buckets
    if whole:
        ways["buckets, only full ones"] = whole
    rng = np.random.default_rng(1)
    speeds = {}
    print(
        f"\n| {len(tokens)} clips of {len(full)} sizes, {TOKENS} tokens | batches | useful tokens "
        "| clips dropped | samples a second |"
    )
    print("|---|---|---|---|---|")
    for name, batches in ways.items():
        chosen = [
            batches[i] for i in rng.choice(len(batches), size=min(num_batches, len(batches)), replace=False)
        ]
        samples, seconds = 0, 0.0
        for number, indices in enumerate(chosen):
            longest = shapes[max(indices, key=lambda i: tokens[i])]
            sizes = [longest if name.startswith("padded") else shapes[i] for i in indices]
            batch = {
                "groups": [
                    LatentGroup(torch.randn(1, 24, *size, generator=torch_rng(number))) for size in sizes
                ],
                "captions": [next(iter(task.source.dataset.captions(i).values())) for i in indices],
                "step": number,
            }
            took = seconds_of(task, batch, optimizers)
            if number:  # the first of each warms up
                samples, seconds = samples + len(indices), seconds + took
        room = [len(b) * max(tokens[i] for i in b) if name.startswith("padded") else TOKENS for b in batches]
        useful = sum(int(tokens[b].sum()) for b in batches) / sum(room)
        speeds[name] = samples / seconds
        lost = f"{dropped:.1%}" if name.endswith("only full ones") else "0"
        print(f"| {name} | {len(batches)} | {useful:.1%} | {lost} | {speeds[name]:.1f} |", flush=True)
    print(
        "packed is "
        + ", ".join(
            f"{speeds['packed'] / speed:.2f} times '{name}'"
            for name, speed in speeds.items()
            if name != "packed"
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--batches", type=int, default=10_000, help="over which memory is watched")
    parser.add_argument("--steps", type=int, default=24, help="that are trained, of each kind")
    parser.add_argument("--only", choices=("stall", "memory", "compare"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "dataset", arguments.clips)
        place = Path(folder) / "dataset"
        if arguments.only in (None, "stall"):
            stall(place, arguments.steps)
        if arguments.only in (None, "memory"):
            memory(place, arguments.batches)
        if arguments.only in (None, "compare"):
            compare(place, arguments.steps)


if __name__ == "__main__":
    main()
