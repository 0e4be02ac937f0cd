"""Step 7: the latents of the kept clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kinema.checkpoints.components import load_vae
from kinema.data.curation.context import CLIPS_PER_ITEM, BuildContext
from kinema.data.curation.engine import WorkItem, one_thread
from kinema.data.curation.latent_store import LatentStore
from kinema.data.curation.steps.clip_frames import clip_frames, span_of
from kinema.data.dataset import ClipRow, SourceRow, group_by_source
from kinema.device import pick_device
from kinema.errors import VideoError
from kinema.files import content_key
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.models.vae_conditioning import encode_conditioning

VERSION = 1
"""Raise this when `encode` gives other latents for the same arguments."""


def encode(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{key: float16 (z, lf, lh, lw) array} of normalised latents of clips of the file at arguments["path"].

    arguments["clips"] are spans in rising order of start_s, arguments["vae"] is the folder of a VAE and
    arguments["device"] the device. Each clip is encoded alone and in float32,
    so its bytes are the same in every build.
    Raises `VideoError` if latents are not finite.
    """
    device = pick_device(arguments["device"])
    vae = _vae(arguments["vae"]).to(device)
    result: dict[str, Any] = {}
    for span, frames in clip_frames(arguments):
        with torch.no_grad(), one_thread():
            latents = encode_conditioning(vae, from_uint8([frames]).to(device), starts_canvas=True)[0]
        if not torch.isfinite(latents).all():
            raise VideoError(
                f"cannot encode {arguments['path']} at {span['start_s']:.3f} s: the VAE's latents are "
                "not finite"
            )
        result[span["clip_id"]] = latents.half().cpu().numpy()
    return result


@cache
def _vae(folder: str) -> VAE:
    """The VAE in a folder, loaded once per process."""
    return load_vae(Path(folder)).eval().requires_grad_(False)


def encode_clips(
    context: BuildContext, clips: Sequence[ClipRow], sources: Sequence[SourceRow], latents: LatentStore
) -> tuple[list[ClipRow], list[SourceRow]]:
    """The rows with the keys of their latents, all of which are in `latents` afterwards.

    A file that cannot be decoded again is quarantined and its clips are dropped.
    """
    pick_device(context.recipe.device)  # an impossible device is an error here rather than in every child
    clips = [
        replace(clip, latents_key=_latents_key(clip, context.vae.weights)) if clip.is_kept else clip
        for clip in clips
    ]
    failures = _encode_missing(context, clips, sources, latents)

    rows = []
    for clip in clips:
        if clip.is_kept and clip.source_id in failures:
            clip = replace(clip.dropped(f"unreadable: {failures[clip.source_id]}"), latents_key="")
        rows.append(clip)

    source_rows = []
    for source in sources:
        if source.verdict == "used" and source.source_id in failures:
            source = source.quarantined(f"cannot be decoded again: {failures[source.source_id]}")
        source_rows.append(source)
    return rows, source_rows


def _latents_key(clip: ClipRow, weights: str) -> str:
    """The key of a clip's latents: it depends on the clip, its crop, its size and the VAE's weights."""
    return content_key([VERSION, clip.clip_id, clip.encoded_as, weights])


def _encode_missing(
    context: BuildContext, clips: Sequence[ClipRow], sources: Sequence[SourceRow], latents: LatentStore
) -> dict[str, str]:
    """Encode the kept clips that `latents` does not have. The reasons of files that failed, by source_id."""
    missing = [clip for clip in clips if clip.latents_key and clip.latents_key not in latents]
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
        for key, array in (outcome.result or {}).items():
            latents.put(key, array)
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
            "clips": [span_of(clip, clip.latents_key) for clip in group],
            "vae": str(context.vae.folder),
            "device": recipe.device,
        }
        deadline_s = recipe.work.deadline_s * (1 + len(group)) + group[-1].end_s
        yield WorkItem(content_key([clip.latents_key for clip in group]), arguments, deadline_s), group
