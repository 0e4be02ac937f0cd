"""Captions that a model writes for clips: drawn, checked, and mixed with those that came with the files (Betker et al. 2023, DALL-E 3).

The writer is the captioner of the package or of a folder, a vision model at an endpoint, or a file. What it says is stored clip by clip,
so a stopped build goes on, and another writer or setting redoes captions alone. Thresholds are applied to what is stored.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.checkpoints.folders import resolve_model
from kinema.config import to_dict
from kinema.data.curation.captioner_runner import CaptionerRunner
from kinema.data.curation.engine import Engine, Job
from kinema.data.curation.recipe import Captioning, DataRecipe
from kinema.data.curation.sources import ORIGINAL, read_rows
from kinema.data.curation.store import Store
from kinema.data.curation.writers import ASKED, INSTRUCTIONS, Said, caption, forms_of
from kinema.data.dataset import ClipRow, group_by_source
from kinema.errors import DataError, EndpointError
from kinema.files import content_key
from kinema.models.oracle import MIN_FRAMES

CAPTION_VERSION = 1
"""Rises when the same writer would be asked otherwise, so that what is stored is not taken for it."""
KIND = "captions"
AT_ONCE = 16
"""Clips of one file that a task captions."""
WORDS = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
REFUSAL = re.compile(r"\b(i'?m sorry|i am sorry|i cannot|i can'?t|i'?m unable|as an ai)\b", re.IGNORECASE)
RUN = 3

Progress = Callable[[str, int, int], None]


def fault(said: Said, config: Captioning) -> str:
    """Why a caption is not good enough; empty when it is."""
    words = [word.lower() for word in WORDS.findall(said["text"])]
    runs = Counter(tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
    most = runs.most_common(1)
    if REFUSAL.search(said["text"]):
        return f"not a caption: {said['text'][:60]}"
    if len(words) < config.min_words:
        return f"too short: {len(words)} words, at least {config.min_words}"
    if len(words) > config.max_words or not said["is_whole"]:
        return f"too long: {len(words)} words or cut off, at most {config.max_words}"
    if most and most[0][1] > config.max_repeats:
        return f"repeats itself: '{' '.join(most[0][0])}' {most[0][1]} times"
    if said["confidence"] is not None and said["confidence"] < config.min_confidence:
        return f"unsure: confidence {said['confidence']:.2f}, at least {config.min_confidence:g}"
    if said["agreement"] is not None and said["agreement"] < config.min_agreement:
        return f"does not fit the clip: agreement {said['agreement']:.2f}, at least {config.min_agreement:g}"
    return ""


def chosen(
    original: Mapping[str, str], written: Mapping[str, str], clip_id: str, config: Captioning
) -> Mapping[str, str]:
    """The captions that a clip is trained with: of both, the written ones in a `share` of clips, which a hash of the clip decides."""
    if not original or not written:
        return written or original
    place = int(content_key(["mix", config.seed, clip_id])[:8], 16) / 16**8
    return written if place < config.share else original


def add_captions(
    clips: Sequence[ClipRow],
    paths: Mapping[str, str],
    recipe: DataRecipe,
    store: Store,
    engine: Engine,
    progress: Progress,
) -> tuple[list[ClipRow], dict[str, Any]]:
    """The clips with captions from the recipe's writer, and what the lineage says of it. `paths` are those of files by source_id.

    Raises `EndpointError` when the endpoint fails; what was written until then is kept.
    """
    config = recipe.captions
    if config.writer == "none":
        return list(clips), {}
    identity = _identity(recipe)
    given = _given(config)
    keys: dict[str, str] = {}
    refused: dict[str, dict[str, str]] = {}
    for clip in clips:
        if clip.verdict != "kept":
            continue
        if config.writer == "model" and clip.num_frames < MIN_FRAMES:
            refused[clip.clip_id] = dict.fromkeys(
                forms_of(config), f"too few frames: {clip.num_frames}, at least {MIN_FRAMES}"
            )
        elif config.writer != "file" or clip.name in given:
            size = (
                clip.box_top,
                clip.box_left,
                clip.box_height,
                clip.box_width,
                clip.height,
                clip.width,
                clip.num_frames,
                clip.fps,
            )
            keys[clip.clip_id] = content_key(
                [CAPTION_VERSION, clip.clip_id, size, identity, given.get(clip.name)]
            )
    missing = [clip for clip in clips if clip.clip_id in keys and store.get(KIND, keys[clip.clip_id]) is None]
    unreadable = _write_missing(missing, keys, paths, given, recipe, store, engine, progress, len(keys))
    written: dict[str, dict[str, str]] = {}
    for clip_id, key in keys.items():
        if clip_id in unreadable:
            refused[clip_id] = dict.fromkeys(forms_of(config), f"unreadable: {unreadable[clip_id]}")
            continue
        for form, candidates in (store.get(KIND, key) or {}).items():
            faults = [fault(said, config) for said in candidates]
            good = next((said["text"] for said, why in zip(candidates, faults) if not why), None)
            if good is None:
                refused.setdefault(clip_id, {})[form] = faults[0]
            else:
                written.setdefault(clip_id, {})[form] = good
    _refuse_common(written, refused, config)
    rows = []
    for clip in clips:
        if clip.verdict == "kept":
            original, own = json.loads(clip.captions), written.get(clip.clip_id, {})
            captions = chosen(original, own, clip.clip_id, config)
            note = {
                "writer": identity["name"],
                "written": own,
                "refused": refused.get(clip.clip_id, {}),
                "original": original,
            }
            used = "written" if own and captions is own else "original" if captions else "none"
            clip = replace(clip, captions=_json(captions), caption_log=_json({**note, "used": used}))
        rows.append(clip)
    return rows, {**identity, "share": config.share}


def _write_missing(
    missing: Sequence[ClipRow],
    keys: Mapping[str, str],
    paths: Mapping[str, str],
    given: Mapping[str, Mapping[str, str]],
    recipe: DataRecipe,
    store: Store,
    engine: Engine,
    progress: Progress,
    total: int,
) -> dict[str, str]:
    """Have the clips captioned that are not yet, and store what is said; the reasons of those that could not be read."""
    config, jobs, members = recipe.captions, [], {}
    for source_id, group in group_by_source(missing, AT_ONCE):
        wanted = ("clip_id", "start_s", "end_s", "num_source_frames", "source_fps", "num_frames", "fps")
        rows = []
        for clip in group:
            box = (clip.box_top, clip.box_left, clip.box_height, clip.box_width)
            scale = min(1.0, config.side / max(box[2:])) if config.writer == "endpoint" else 0.0
            size = (
                (max(1, round(box[2] * scale)), max(1, round(box[3] * scale)))
                if scale
                else (clip.height, clip.width)
            )
            texts = given.get(clip.name, {})
            rows.append(
                {
                    "box": box,
                    "height": size[0],
                    "width": size[1],
                    "texts": texts,
                    **{name: getattr(clip, name) for name in wanted},
                }
            )
        key = content_key([[keys[clip.clip_id] for clip in group]])
        members[key] = group
        task = {"path": paths[source_id], "clips": rows, "captions": to_dict(config)}
        wait_s = (
            config.timeout_s * 4 * len(forms_of(config)) * config.tries
            if config.writer == "endpoint"
            else recipe.work.deadline_s
        )
        jobs.append(Job(key, task, recipe.work.deadline_s + wait_s * len(group) + group[-1].end_s))
    unreadable: dict[str, str] = {}
    done = total - len(missing)
    progress("caption", done, total)
    for outcome in engine.run(caption, jobs):
        result = outcome.result or {}
        for clip_id, said in result.get("said", {}).items():
            store.put(KIND, keys[clip_id], said)
        if result.get("error"):
            raise EndpointError(
                f"{result['error']} ({config.writer} of captions; what is written is kept, and the same command goes on)"
            )
        if outcome.result is None:
            unreadable |= {clip.clip_id: outcome.reason for clip in members[outcome.key]}
        done += len(members[outcome.key])
        progress("caption", done, total)
    return unreadable


def _identity(recipe: DataRecipe) -> dict[str, Any]:
    """What captions depend on, beyond the clips: the writer by name and hash, and how it is asked."""
    from kinema.checkpoints.folders import load_clip
    from kinema.checkpoints.tensors import weights_hash

    config = recipe.captions
    how: dict[str, Any] = {
        "writer": config.writer,
        "forms": forms_of(config),
        "tries": config.tries,
        "temperature": config.temperature,
    }
    how |= {"version": CAPTION_VERSION}
    if config.writer == "model":
        weights = CaptionerRunner.load(config.model).weights
        how |= {"name": f"captioner {weights}", "weights": weights, "seed": config.seed}
    elif config.writer == "endpoint":
        asked = content_key([INSTRUCTIONS, ASKED])[:16]
        how |= {
            "name": f"{config.model} at {config.endpoint}",
            "language": config.language,
            "asked": asked,
            "pictures": config.pictures,
            "side": config.side,
        }
    else:
        how |= {"name": f"file {Path(config.file).name}"}
    if config.min_agreement > -1:
        how["clip"] = weights_hash(load_clip(resolve_model(config.clip)))
    return how


def _given(config: Captioning) -> dict[str, dict[str, str]]:
    """The texts of a file of captions by file and form."""
    if config.writer != "file":
        return {}
    found: dict[str, dict[str, str]] = {}
    for name, row in read_rows(Path(config.file)).items():
        said = row.get("caption")
        texts = {ORIGINAL: said} if isinstance(said, str) else said
        if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
            raise DataError(f"{config.file}: {name}: a caption is a text, or texts by form; got {said!r}")
        found[name] = {
            ("written" if form == ORIGINAL else form): " ".join(text.split()) for form, text in texts.items()
        }
    return found


def _refuse_common(
    written: dict[str, dict[str, str]], refused: dict[str, dict[str, str]], config: Captioning
) -> None:
    """Take a caption away that too many clips have: it says nothing of any of them."""
    counts = Counter(text for texts in written.values() for text in set(texts.values()))
    most = max(config.always_same, config.max_same * len(written))
    for clip_id, texts in written.items():
        for form in [form for form, text in texts.items() if counts[text] > most]:
            refused.setdefault(clip_id, {})[form] = (
                f"duplicate: {counts[texts.pop(form)]} clips have this caption"
            )


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, sort_keys=True)


def refusals(clips: Sequence[ClipRow]) -> Counter[str]:
    """How many captions were refused, by reason without its detail."""
    logs = [json.loads(clip.caption_log) for clip in clips]
    return Counter(f"refused: {why.split(':')[0]}" for log in logs for why in log.get("refused", {}).values())
