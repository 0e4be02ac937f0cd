"""Step 7: the latents and the pixels of the kept clips."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from kinema.checkpoints.components import load_vae
from kinema.data.curation.array_store import ArrayStore
from kinema.data.curation.context import CLIPS_PER_ITEM, BuildContext
from kinema.data.curation.engine import WorkItem, one_thread
from kinema.data.curation.steps.clip_frames import clip_frames, span_of
from kinema.data.dataset import ClipRow, SourceRow, group_by_source
from kinema.device import pick_device
from kinema.errors import OutputError, VideoError
from kinema.files import content_key
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.models.vae_conditioning import encode_conditioning

log = logging.getLogger(__name__)

VERSION = 1
"""Raise this when `encode` gives other latents for the same arguments."""


def encode(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{"latents", "pixels"} of clips of the file at arguments["path"], each an array by clip_id: normalised
    latents, float16 (z, lf, lh, lw), and frames, uint8 (f, h, w, 3).

    arguments["clips"] are spans in rising order of start_s, arguments["vae"] is the folder of a VAE and
    arguments["device"] the device. Each clip is encoded alone and in float32, so its bytes are the same in
    every build. There are pixels only with arguments["pixels"]. Raises `VideoError` if latents are not
    finite.
    """
    device = pick_device(arguments["device"])
    vae = _vae(arguments["vae"]).to(device)
    latents_of: dict[str, Any] = {}
    pixels_of: dict[str, Any] = {}
    for span, frames in clip_frames(arguments):
        with torch.no_grad(), one_thread():
            latents = encode_conditioning(vae, from_uint8([frames]).to(device), starts_canvas=True)[0]
        if not torch.isfinite(latents).all():
            raise VideoError(
                f"cannot encode {arguments['path']} at {span['start_s']:.3f} s: the VAE's latents are "
                "not finite"
            )
        latents_of[span["clip_id"]] = latents.half().cpu().numpy()
        if arguments["pixels"]:
            pixels_of[span["clip_id"]] = frames
    return {"latents": latents_of, "pixels": pixels_of}


@cache
def _vae(folder: str) -> VAE:
    """The VAE in a folder, loaded once per process."""
    return load_vae(Path(folder)).eval().requires_grad_(False)


def encode_clips(
    context: BuildContext,
    clips: Sequence[ClipRow],
    sources: Sequence[SourceRow],
    stores: Sequence[ArrayStore],
) -> tuple[list[ClipRow], list[SourceRow]]:
    """The rows with the keys of their latents and pixels, all of which are in `stores` afterwards.

    A file that cannot be decoded again is quarantined and its clips are dropped.
    """
    pick_device(context.recipe.device)  # an impossible device is an error here rather than in every child
    clips = [_with_keys(clip, context) if clip.is_kept else clip for clip in clips]
    failures = _encode_missing(context, clips, sources, stores)

    rows = []
    for clip in clips:
        if clip.is_kept and clip.source_id in failures:
            clip = clip.dropped(f"unreadable: {failures[clip.source_id]}")
            clip = replace(clip, latents_key="", pixels_key="")
        rows.append(clip)

    source_rows = []
    for source in sources:
        if source.verdict == "used" and source.source_id in failures:
            source = source.quarantined(f"cannot be decoded again: {failures[source.source_id]}")
        source_rows.append(source)
    return rows, source_rows


def _with_keys(clip: ClipRow, context: BuildContext) -> ClipRow:
    """The row with the keys of its arrays: both depend on the clip, its crop and its size, and latents on the
    VAE's weights.
    """
    identity = [VERSION, clip.clip_id, clip.encoded_as]
    latents_key = content_key([*identity, context.vae.weights])
    pixels_key = content_key([*identity, "pixels"]) if context.recipe.pixels else ""
    return replace(clip, latents_key=latents_key, pixels_key=pixels_key)


def _is_missing(clip: ClipRow, stores: Sequence[ArrayStore]) -> bool:
    keys = [getattr(clip, store.kind.key) for store in stores]
    return clip.is_kept and any(key and key not in store for key, store in zip(keys, stores))


def _check_space(context: BuildContext, missing: Sequence[ClipRow]) -> None:
    """Log the disk space that the arrays of `missing` take. Raises `OutputError` if less is free."""
    vae = context.vae.config
    values = sum(clip.num_frames * clip.height * clip.width for clip in missing)
    latents = sum(
        (1 + (clip.num_frames - 1) // vae.temporal_factor) * clip.height * clip.width for clip in missing
    )
    latent_bytes = 2 * vae.z_dim * latents // vae.spatial_factor**2
    pixel_bytes = 3 * values if context.recipe.pixels else 0
    free = shutil.disk_usage(context.out).free

    log.info(
        "%d clips take %.1f MB as pixels and %.1f MB as latents in %s, where %.1f GB are free",
        len(missing),
        pixel_bytes / 1e6,
        latent_bytes / 1e6,
        context.out,
        free / 1e9,
    )
    if latent_bytes + pixel_bytes > free:
        raise OutputError(
            f"{context.out} has {free / 1e9:.1f} GB of free disk space, and {len(missing)} clips take "
            f"{(latent_bytes + pixel_bytes) / 1e9:.1f} GB: free some, or leave out the pixels with --set "
            "pixels=false"
        )


def _encode_missing(
    context: BuildContext,
    clips: Sequence[ClipRow],
    sources: Sequence[SourceRow],
    stores: Sequence[ArrayStore],
) -> dict[str, str]:
    """Encode the kept clips that `stores` do not have. The reasons of files that failed, by source_id."""
    missing = [clip for clip in clips if _is_missing(clip, stores)]
    if missing:
        _check_space(context, missing)
    total = sum(clip.is_kept for clip in clips)
    done = total - len(missing)
    context.progress("encode", done, total)

    items = []
    members: dict[str, list[ClipRow]] = {}
    paths: dict[str, str] = {}
    for item, group in _items(context, missing, sources):
        items.append(item)
        members[item.key] = group
        paths[item.key] = item.arguments["path"]

    failures: dict[str, str] = {}
    for outcome in context.engine.run(encode, items):
        group = members[outcome.key]
        arrays = outcome.result or {}
        for clip, store in product(group, stores if arrays else ()):
            key = getattr(clip, store.kind.key)
            if key and key not in store:
                store.put(key, arrays[store.kind.name][clip.clip_id])
        if outcome.result is None:
            failures[group[0].source_id] = outcome.reason
            context.errors.count(paths[outcome.key], outcome.reason)
        done += len(group)
        context.progress("encode", done, total)
    return failures


def _items(
    context: BuildContext, missing: Sequence[ClipRow], sources: Sequence[SourceRow]
) -> Iterator[tuple[WorkItem, list[ClipRow]]]:
    """Work items that encode the clips, each with its clips, which are of one file."""
    recipe = context.recipe
    paths = {source.source_id: source.path for source in sources if source.verdict == "used"}
    for source_id, group in group_by_source(missing, CLIPS_PER_ITEM):
        arguments = {
            "path": paths[source_id],
            "clips": [span_of(clip, clip.clip_id) for clip in group],
            "pixels": recipe.pixels,
            "vae": str(context.vae.folder),
            "device": recipe.device,
        }
        deadline_s = recipe.work.deadline_s * (1 + len(group)) + group[-1].end_s
        yield WorkItem(content_key([clip.latents_key for clip in group]), arguments, deadline_s), group
