"""Step 6: further scores of the kept clips, from a CLIP and from the functions of the recipe."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.tensors import weights_hash
from kinema.data.curation import plug_ins
from kinema.data.curation.context import CLIPS_PER_ITEM, BuildContext
from kinema.data.curation.dedup import ClipEmbedding, look_alikes
from kinema.data.curation.engine import WorkItem, one_thread
from kinema.data.curation.filters import score_drop_reason
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.steps.clip_frames import cropped, resampled, span_of
from kinema.data.curation.steps.deduplicate import largest_first
from kinema.data.dataset import ClipRow, SourceRow, group_by_source
from kinema.files import content_key
from kinema.models.clip import CLIP
from kinema.models.pixels import from_uint8
from kinema.video.scanning import read_spans

KIND = "see"
"""Folder of the stored results, as version 0.1.0 named it."""
VERSION = 1
"""Raise this when `score_with_models` gives other results for the same arguments."""


def score_with_models(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{clip_id: {"embedding", "scores"}} of clips of the file at arguments["path"].

    arguments["clips"] are spans, arguments["clip"] is the folder of a CLIP or None, and arguments["scorers"]
    are functions by name. All get the clip at its rate, inside its borders, with no side above
    arguments["side"] pixels.
    """
    spans, side = arguments["clips"], arguments["side"]

    def shrink(index: int, pixels: np.ndarray) -> np.ndarray:
        _, _, height, width = spans[index]["box"]
        scale = min(1.0, side / max(height, width))
        return cropped(pixels, spans[index], max(1, round(height * scale)), max(1, round(width * scale)))

    times = [(span["start_s"], span["end_s"]) for span in spans]
    result: dict[str, Any] = {}
    for span, scanned in zip(spans, read_spans(Path(arguments["path"]), times, shrink), strict=True):
        frames = np.stack(resampled(scanned, span))

        embedding: list[float] = []
        if arguments["clip"] is not None:
            with torch.no_grad(), one_thread():
                embedding = _clip(arguments["clip"]).encode_video(from_uint8([frames]))[0].tolist()

        scores = {
            name: round(plug_ins.run_scorer(function, frames), 6)
            for name, function in arguments["scorers"].items()
        }
        result[span["clip_id"]] = {"embedding": [round(value, 6) for value in embedding], "scores": scores}
    return result


@cache
def _clip(folder: str) -> CLIP:
    """The CLIP in a folder, loaded once per process."""
    return load_clip(Path(folder)).eval().requires_grad_(False)


def score_clips(
    context: BuildContext, clips: Sequence[ClipRow], sources: Sequence[SourceRow]
) -> list[ClipRow]:
    """The rows of the clips with their scores. Dropped are clips that break a rule or look like one of
    another file.
    """
    recipe = context.recipe
    if not recipe.agreement.is_enabled and not recipe.scorers:
        return list(clips)

    clip = load_clip(resolve_model(recipe.agreement.clip)) if recipe.agreement.is_enabled else None
    results, failures = _results(context, clips, sources, clip)

    rows: list[ClipRow] = []
    embeddings: dict[str, np.ndarray] = {}
    for row in clips:
        if row.clip_id in failures:
            row = row.dropped(f"unreadable: {failures[row.clip_id]}")
        elif row.is_kept:
            scores = dict(results[row.clip_id]["scores"])
            if clip is not None:
                embedding = np.array(results[row.clip_id]["embedding"], dtype=np.float32)
                embeddings[row.clip_id] = embedding
                if texts := list(json.loads(row.captions).values()):
                    scores["caption"] = round(float((_embed(clip, texts) @ embedding).max()), 5)
            row = row.with_scores(scores, score_drop_reason(scores, recipe))
        rows.append(row)

    return _drop_look_alikes(rows, embeddings, recipe)


def _results(
    context: BuildContext, clips: Sequence[ClipRow], sources: Sequence[SourceRow], clip: CLIP | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The result of `score_with_models` and the reasons of failures, each by clip_id of the kept clips."""
    recipe = context.recipe
    functions = {name: rule.function for name, rule in recipe.scorers.items()}
    versions = [plug_ins.function_version(function) for function in functions.values()]
    weights = weights_hash(clip) if clip is not None else ""
    folder = str(resolve_model(recipe.agreement.clip)) if clip is not None else None
    paths = {source.source_id: source.path for source in sources if source.verdict == "used"}

    items, members = [], {}
    for source_id, group in group_by_source([row for row in clips if row.is_kept], CLIPS_PER_ITEM):
        spans = [span_of(row, row.clip_id) for row in group]
        key = content_key([VERSION, source_id, spans, weights, functions, versions, recipe.side])
        arguments = {
            "path": paths[source_id],
            "clips": spans,
            "clip": folder,
            "scorers": functions,
            "side": recipe.side,
        }
        deadline_s = recipe.work.deadline_s * (1 + len(group)) + group[-1].end_s
        items.append(WorkItem(key, arguments, deadline_s))
        members[key] = group
    outcomes = context.run_stored("score", KIND, score_with_models, items)

    results: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for key, group in members.items():
        outcome = outcomes[key]
        if outcome.result is None:
            failures |= {row.clip_id: outcome.reason for row in group}
        else:
            results |= outcome.result
    return results, failures


def _embed(clip: CLIP, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings of texts, (texts, d)."""
    with torch.no_grad():
        return clip.encode_text(texts)[1].numpy()


def _drop_look_alikes(
    clips: Sequence[ClipRow], embeddings: Mapping[str, np.ndarray], recipe: DataRecipe
) -> list[ClipRow]:
    """The rows; of clips of different files whose cosine is above `max_same`, the one with the most pixels is
    kept.
    """
    max_cosine = recipe.agreement.max_same
    if max_cosine is None:
        return list(clips)

    ordered = [
        ClipEmbedding(row.clip_id, row.source_id, embeddings[row.clip_id]) for row in largest_first(clips)
    ]
    labels = {row.clip_id: row.label for row in clips}
    reasons = {
        clip_id: f"looks like another: {labels[other]}, cosine {cosine:.3f}, at most {max_cosine:g}"
        for clip_id, other, cosine in look_alikes(ordered, max_cosine)
    }
    return [row.dropped(reasons[row.clip_id]) if row.clip_id in reasons else row for row in clips]
