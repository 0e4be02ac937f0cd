"""Step 5: captions from a writer, checked and mixed with those that came with the files.

The writer is the captioner of the package or of a folder, a vision model at an endpoint, or a file. Its
captions are stored per clip, so that a stopped build continues, and another writer or setting repeats the
captions alone. Thresholds are applied to the stored captions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.checkpoints.captioner import CaptionerRunner
from kinema.checkpoints.components import load_clip
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.tensors import weights_hash
from kinema.config import to_dict
from kinema.data.curation.caption_checks import caption_fault, choose_captions, refuse_common
from kinema.data.curation.context import CLIPS_PER_ITEM, BuildContext
from kinema.data.curation.engine import WorkItem
from kinema.data.curation.recipe import CaptionSettings
from kinema.data.curation.sources import ORIGINAL, read_rows
from kinema.data.curation.steps.clip_frames import span_of
from kinema.data.curation.writers import INSTRUCTIONS, QUESTIONS, forms_of, write_captions
from kinema.data.dataset import ClipRow, SourceRow, group_by_source
from kinema.errors import DataError, EndpointError
from kinema.files import content_key
from kinema.models.oracle import MIN_FRAMES

KIND = "captions"
"""Folder of the stored captions."""
VERSION = 1
"""Raise this when a writer gives other captions for the same arguments."""

TextsByForm = dict[str, str]


class _CaptionStep:
    """The captions of one build: which clips need one, what is written, and what is refused and why."""

    def __init__(self, context: BuildContext, clips: Sequence[ClipRow]) -> None:
        self.context, self.settings = context, context.recipe.captions
        self.forms = forms_of(self.settings)
        self.identity = _identity(self.settings)
        self.texts_in_file = _texts_in_file(self.settings)
        self.keys: dict[str, str] = {}
        self.written: dict[str, TextsByForm] = {}
        self.refused: dict[str, TextsByForm] = {}

        for clip in clips:
            if not clip.is_kept:
                continue
            if self.settings.writer == "model" and clip.num_frames < MIN_FRAMES:
                self._refuse(clip.clip_id, f"too few frames: {clip.num_frames}, at least {MIN_FRAMES}")
            elif self.settings.writer != "file" or clip.name in self.texts_in_file:
                texts = self.texts_in_file.get(clip.name)
                key = content_key([VERSION, clip.clip_id, clip.encoded_as, self.identity, texts])
                self.keys[clip.clip_id] = key

    def write_missing(self, clips: Sequence[ClipRow], sources: Sequence[SourceRow]) -> None:
        """Store the captions of the clips that have none stored. Raises `EndpointError` if the endpoint
        fails.
        """
        context, total = self.context, len(self.keys)
        missing = [clip for clip in clips if clip.clip_id in self.keys and self._stored(clip.clip_id) is None]
        done = total - len(missing)
        context.progress("caption", done, total)

        members = {item.key: (item, group) for item, group in self._items(missing, sources)}
        for outcome in context.engine.run(write_captions, [item for item, _ in members.values()]):
            _, group = members[outcome.key]
            result = outcome.result or {}
            for clip_id, candidates in result.get("said", {}).items():
                context.store.put(KIND, self.keys[clip_id], candidates)
            if result.get("error"):
                raise EndpointError(
                    f"{result['error']} (writer of captions: {self.settings.writer}; finished captions are "
                    "kept, and the same command continues)"
                )
            if outcome.result is None:
                for clip in group:
                    del self.keys[clip.clip_id]
                    self._refuse(clip.clip_id, f"unreadable: {outcome.reason}")
            done += len(group)
            context.progress("caption", done, total)

    def check(self) -> None:
        """Accept the first stored candidate of each clip and form that passes the checks."""
        for clip_id in self.keys:
            for form, candidates in (self._stored(clip_id) or {}).items():
                faults = [caption_fault(candidate, self.settings) for candidate in candidates]
                if "" in faults:
                    self.written.setdefault(clip_id, {})[form] = candidates[faults.index("")]["text"]
                else:
                    self.refused.setdefault(clip_id, {})[form] = faults[0]
        refuse_common(self.written, self.refused, self.settings)

    def with_captions(self, clip: ClipRow) -> ClipRow:
        """The row of a clip with the captions that it is trained with and the log of all others."""
        original = json.loads(clip.captions)
        written = self.written.get(clip.clip_id, {})
        captions = choose_captions(original, written, clip.clip_id, self.settings)
        is_written = bool(written) and captions is written
        log = {
            "writer": self.identity["name"],
            "written": written,
            "refused": self.refused.get(clip.clip_id, {}),
            "original": original,
            "used": "written" if is_written else "original" if captions else "none",
        }
        return replace(clip, captions=_json(captions), caption_log=_json(log))

    def _stored(self, clip_id: str) -> dict[str, Any] | None:
        return self.context.store.get(KIND, self.keys[clip_id])

    def _refuse(self, clip_id: str, reason: str) -> None:
        """Refuse all forms of caption of a clip."""
        self.refused[clip_id] = dict.fromkeys(self.forms, reason)

    def _items(
        self, missing: Sequence[ClipRow], sources: Sequence[SourceRow]
    ) -> Iterator[tuple[WorkItem, list[ClipRow]]]:
        """Work items that write the captions, each with its clips, which are of one file."""
        settings, deadline_s = self.settings, self.context.recipe.work.deadline_s
        clip_deadline_s = deadline_s
        if settings.writer == "endpoint":
            clip_deadline_s = settings.timeout_s * 4 * len(self.forms) * settings.tries

        paths = {source.source_id: source.path for source in sources if source.verdict == "used"}
        for source_id, group in group_by_source(missing, CLIPS_PER_ITEM):
            arguments = {
                "path": paths[source_id],
                "clips": [self._span(clip) for clip in group],
                "captions": to_dict(settings),
            }
            total_s = deadline_s + clip_deadline_s * len(group) + group[-1].end_s
            yield (
                WorkItem(content_key([self.keys[clip.clip_id] for clip in group]), arguments, total_s),
                group,
            )

    def _span(self, clip: ClipRow) -> dict[str, Any]:
        """The span of a clip at the size that the writer gets: an endpoint gets at most `side` pixels of the
        source.
        """
        span = {**span_of(clip, clip.clip_id), "texts": self.texts_in_file.get(clip.name, {})}
        if self.settings.writer == "endpoint":
            scale = min(1.0, self.settings.side / max(clip.box_height, clip.box_width))
            span["height"] = max(1, round(clip.box_height * scale))
            span["width"] = max(1, round(clip.box_width * scale))
        return span


def add_captions(
    context: BuildContext, clips: Sequence[ClipRow], sources: Sequence[SourceRow]
) -> tuple[list[ClipRow], dict[str, Any]]:
    """The rows of the clips with their captions, and the writer's identity, which is empty if the recipe has
    no writer.

    Raises `EndpointError` if the endpoint fails; captions written before are stored.
    """
    settings = context.recipe.captions
    if settings.writer == "none":
        return list(clips), {}

    step = _CaptionStep(context, clips)
    step.write_missing(clips, sources)
    step.check()
    rows = [step.with_captions(clip) if clip.is_kept else clip for clip in clips]
    return rows, {**step.identity, "share": settings.share}


def _identity(settings: CaptionSettings) -> dict[str, Any]:
    """What captions depend on besides the clips: the writer's name and weights, and its settings. Part of
    stored keys.
    """
    identity: dict[str, Any] = {
        "writer": settings.writer,
        "forms": forms_of(settings),
        "tries": settings.tries,
        "temperature": settings.temperature,
        "version": VERSION,
    }
    match settings.writer:
        case "model":
            weights = CaptionerRunner.load(settings.model).weights
            identity |= {"name": f"captioner {weights}", "weights": weights, "seed": settings.seed}
        case "endpoint":
            identity |= {
                "name": f"{settings.model} at {settings.endpoint}",
                "language": settings.language,
                "asked": content_key([INSTRUCTIONS, QUESTIONS])[:16],
                "pictures": settings.pictures,
                "side": settings.side,
            }
        case _:
            identity["name"] = f"file {Path(settings.file).name}"

    if settings.min_agreement > -1:
        identity["clip"] = weights_hash(load_clip(resolve_model(settings.clip)))
    return identity


def _texts_in_file(settings: CaptionSettings) -> dict[str, TextsByForm]:
    """The captions in the recipe's file, by path and form. Raises `DataError` for other values."""
    if settings.writer != "file":
        return {}

    found: dict[str, TextsByForm] = {}
    for name, row in read_rows(Path(settings.file)).items():
        value = row.get("caption")
        texts = {ORIGINAL: value} if isinstance(value, str) else value
        if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
            raise DataError(
                f"{settings.file}: {name}: caption must be a text, or texts by form; got {value!r}"
            )
        found[name] = {
            ("written" if form == ORIGINAL else form): " ".join(text.split()) for form, text in texts.items()
        }
    return found


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, sort_keys=True)
