"""Whether a data set is whole and fit to train on, and one clip of it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kinema.data.dataset import SHARDS, Dataset
from kinema.errors import DataError
from kinema.files import sha256_of

SAME_CAPTION = 0.05
"""A caption that more than this share of the clips have, and more than ten, is taken for an accident."""
FEW_WORDS = 3
SAMPLE = 64
"""Clips whose latents are looked at together."""


def dataset_problems(folder: Path) -> Iterator[str]:
    """What is wrong with a data set, a line each that begins with "error" or "warning". Reads every latent.

    Raises `DataError` when it cannot be read at all.
    """
    dataset = Dataset(folder)
    kept = dataset.kept.to_pylist()
    if not kept:
        yield "error: no clip is kept"
    for key, count in Counter(row["clip_id"] for row in dataset.clips.to_pylist()).items():
        if count > 1:
            yield f"error: clip {key} stands in the table {count} times"
    damaged = set()
    for name, digest in dataset.card["shards"].items():
        path = folder / SHARDS / name
        if not path.is_file() or sha256_of(path) != digest:
            damaged.add(name)
            yield f"error: {path} is missing or damaged: build the data set again, which makes it anew"
    stacked: list[torch.Tensor] = []
    for index, row in enumerate(kept):
        if row["shard"] in damaged:
            continue
        where = f"clip {row['clip_id']} ({row['name']} at {row['start_s']:.2f} s)"
        latents = dataset.latents(index)
        if len(stacked) < SAMPLE:
            stacked.append(latents.float().flatten())
        if tuple(latents.shape[1:]) != (row["latent_frames"], row["latent_height"], row["latent_width"]):
            yield f"error: {where}: latents of {tuple(latents.shape[1:])}, and the table says otherwise"
        elif not torch.isfinite(latents).all():
            yield f"error: {where}: latents that are not finite"
        if row["end_s"] <= row["start_s"]:
            yield f"error: {where}: ends before it starts"
    named = {row["shard"] for row in kept}
    for path in sorted((folder / SHARDS).glob("*.safetensors")):
        if path.name not in named:
            yield f"warning: {path} belongs to no clip; build again to remove it"
    yield from _caption_findings([json.loads(row["captions"]) for row in kept])
    if stacked:
        values = torch.cat(stacked)
        mean, std = values.mean().item(), values.std().item()
        if abs(mean) > 1 or not 0.4 < std < 2.5:
            yield f"warning: latents have mean {mean:.2f} and std {std:.2f}; the VAE's latents_mean and latents_std are not of these videos"
    if len({row["licence"] for row in kept} & {"unknown"}):
        yield f"warning: {sum(row['licence'] == 'unknown' for row in kept)} clips have no licence; set licence, or name it in a sidecar"


def _caption_findings(captions: list[dict[str, str]]) -> Iterator[str]:
    """Captions that are missing, alike or very short."""
    missing = sum(not texts for texts in captions)
    if missing:
        yield f"warning: {missing} of {len(captions)} clips have no caption"
    counts = Counter(text for texts in captions for text in set(texts.values()))
    for text, count in counts.most_common(3):
        if count > max(10, SAME_CAPTION * len(captions)):
            yield f"warning: {count} clips have the same caption: {text[:60]!r}"
    short = sum(len(text.split()) < FEW_WORDS and text.isascii() for text in counts)
    if short:
        yield f"warning: {short} captions have fewer than {FEW_WORDS} words"


def find_clip(dataset: Dataset, clip_id: str) -> dict[str, Any]:
    """The row of the clip whose id begins so. Raises `DataError` when none or several do."""
    ids = dataset.clips["clip_id"].to_pylist()
    found = [index for index, full in enumerate(ids) if full.startswith(clip_id)] if clip_id else []
    if len(found) != 1:
        some = ", ".join(ids[index] for index in found[:3]) or f"ids look like {', '.join(ids[:3])}"
        raise DataError(f"{dataset.folder} has {len(found)} clips whose id begins with '{clip_id}': {some}")
    return dict(dataset.clips.slice(found[0], 1).to_pylist()[0])


def find_source(dataset: Dataset, source_id: str) -> dict[str, Any]:
    """The row of a clip's file: of several with the same bytes the first, which was read."""
    return next(row for row in dataset.sources.to_pylist() if row["source_id"] == source_id)
