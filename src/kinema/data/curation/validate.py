"""Checks of a finished data set, and look-up of one clip."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kinema.data.dataset import SHARD_KINDS, SHARDS, Dataset
from kinema.errors import DataError
from kinema.files import sha256_of

MAX_SAME_CAPTION = 0.05
"""A caption that more than this share of the clips, and more than ten, have is reported."""
MIN_WORDS = 3
"""Captions with fewer words are reported."""
NUM_SAMPLED = 64
"""Clips whose latents enter the mean and standard deviation."""


def dataset_problems(folder: Path) -> Iterator[str]:
    """The problems of a data set, one line each that starts with "error" or "warning". Reads every latent.

    Raises `DataError` if there is no data set or its tables cannot be read.
    """
    dataset = Dataset(folder)
    kept = dataset.kept.to_pylist()
    if not kept:
        yield "error: no clip is kept"
    for key, count in Counter(row["clip_id"] for row in dataset.clips.to_pylist()).items():
        if count > 1:
            yield f"error: clip {key} is in the table {count} times"

    damaged: set[Path] = set()
    for kind in SHARD_KINDS:
        digests = dataset.card.get(kind.folder, {})
        for path in sorted(folder / kind.folder / name for name in digests):
            if not path.is_file() or sha256_of(path) != digests[path.name]:
                damaged.add(path)
                yield f"error: {path} is missing or damaged: build the data set again, which writes it anew"

        named = {row.get(kind.shard) for row in kept}
        for path in sorted((folder / kind.folder).glob("*.safetensors")):
            if path.name not in named:
                yield f"warning: {path} belongs to no clip; build again to remove it"
    yield from _latent_problems(dataset, kept, damaged)

    yield from _caption_problems([json.loads(row["captions"]) for row in kept])
    num_unlicensed = sum(row["licence"] == "unknown" for row in kept)
    if num_unlicensed:
        yield f"warning: {num_unlicensed} clips have no licence; set licence, or name it in a sidecar"


def _latent_problems(dataset: Dataset, kept: list[dict[str, Any]], damaged: set[Path]) -> Iterator[str]:
    """Problems of single clips and of the distribution of latents; clips of damaged shards are skipped."""
    sampled: list[torch.Tensor] = []
    for index, row in enumerate(kept):
        if dataset.folder / SHARDS / row["shard"] in damaged:
            continue

        label = f"clip {row['clip_id']} ({row['name']} at {row['start_s']:.2f} s)"
        latents = dataset.latents(index)
        if len(sampled) < NUM_SAMPLED:
            sampled.append(latents.float().flatten())

        if tuple(latents.shape[1:]) != (row["latent_frames"], row["latent_height"], row["latent_width"]):
            yield f"error: {label}: latents of {tuple(latents.shape[1:])} differ from the table"
        elif not torch.isfinite(latents).all():
            yield f"error: {label}: latents are not finite"
        if row["end_s"] <= row["start_s"]:
            yield f"error: {label}: ends before it starts"

    if sampled:
        values = torch.cat(sampled)
        mean, std = values.mean().item(), values.std().item()
        if abs(mean) > 1 or not 0.4 < std < 2.5:
            yield (
                f"warning: latents have mean {mean:.2f} and std {std:.2f}; "
                "the VAE's latents_mean and latents_std do not fit these videos"
            )


def _caption_problems(captions: list[dict[str, str]]) -> Iterator[str]:
    """Warnings about missing, repeated and short captions."""
    missing = sum(not texts for texts in captions)
    if missing:
        yield f"warning: {missing} of {len(captions)} clips have no caption"
    counts = Counter(text for texts in captions for text in set(texts.values()))
    for text, count in counts.most_common(3):
        if count > max(10, MAX_SAME_CAPTION * len(captions)):
            yield f"warning: {count} clips have the same caption: {text[:60]!r}"
    short = sum(len(text.split()) < MIN_WORDS and text.isascii() for text in counts)
    if short:
        yield f"warning: {short} captions have fewer than {MIN_WORDS} words"


def find_clip(dataset: Dataset, clip_id: str) -> dict[str, Any]:
    """The row of the clip whose id starts with `clip_id`. Raises `DataError` unless exactly one does."""
    ids = dataset.clips["clip_id"].to_pylist()
    found = [index for index, full in enumerate(ids) if full.startswith(clip_id)] if clip_id else []
    if len(found) != 1:
        some = ", ".join(ids[index] for index in found[:3]) or f"ids look like {', '.join(ids[:3])}"
        raise DataError(f"{dataset.folder} has {len(found)} clips whose id begins with '{clip_id}': {some}")
    return dict(dataset.clips.slice(found[0], 1).to_pylist()[0])


def find_source(dataset: Dataset, source_id: str) -> dict[str, Any]:
    """The row of a clip's file. Of several files with the same bytes, the first is the one that was read."""
    return next(row for row in dataset.sources.to_pylist() if row["source_id"] == source_id)
