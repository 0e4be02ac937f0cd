"""The chain from files to a data set: probe, look, filter, find duplicates, caption, encode, write shards.

Each stage takes the rows of the one before. What costs time runs in children (`engine`) and is stored as soon as it is done (`store`);
what follows from rows alone is computed anew every time.
"""

import dataclasses
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kinema
from kinema.checkpoints.folders import load_clip, load_vae, resolve_model
from kinema.checkpoints.tensors import vae_hash, weights_hash
from kinema.config import to_dict
from kinema.data.curation import filters, plug_ins, stages
from kinema.data.curation.captioning import add_captions, refusals
from kinema.data.curation.dedup import Seen, duplicates, look_alikes
from kinema.data.curation.engine import Engine, Job, Outcome, Pool, Stage
from kinema.data.curation.recipe import Clips, DataRecipe
from kinema.data.curation.sources import Found, find
from kinema.data.curation.store import WORK, Store, only_builder
from kinema.data.dataset import (
    CARD,
    SCHEMA_VERSION,
    SHARDS,
    ClipRow,
    Row,
    SourceRow,
    group_by_source,
    parquet,
    read_card,
    to_table,
)
from kinema.errors import DataError
from kinema.files import atomic_file, content_key, output_errors, sha256_of, write_json
from kinema.models.clip import CLIP
from kinema.models.vae import VAEConfig
from kinema.video import pyav

log = logging.getLogger(__name__)

PROBE_S = 20.0
"""Deadline of reading a header and hashing a file, beyond a second for each `HASHED_PER_S` bytes."""
HASHED_PER_S = 20e6
ENCODE_AT_ONCE = 16
"""Clips of one file that a task encodes."""
ALWAYS_ALLOWED = 3
"""Unusable files that no error budget forbids."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, what is done and what there is in all."""


@dataclass(frozen=True)
class Funnel:
    """What became of files and clips: lines of a stage, what came out of it, and what was taken out by reason."""

    stages: tuple[tuple[str, int, Mapping[str, int]], ...]

    def lines(self) -> list[str]:
        """The funnel to print."""
        lines = []
        for name, left, reasons in self.stages:
            lines.append(f"{left:>8}  {name}")
            lines += [
                f"{-count:>8}    {reason}"
                for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
            ]
        return lines


@dataclass(frozen=True)
class Encoder:
    """The VAE of a data set as the chain needs it: where it is, what it does to sizes, and a hash of its weights."""

    folder: Path
    config: VAEConfig
    weights: str

    @classmethod
    def load(cls, name: str) -> "Encoder":
        """The VAE called `name` in a recipe."""
        folder = resolve_model(name)
        vae = load_vae(folder)
        return cls(folder, vae.config, vae_hash(vae))

    @property
    def multiple(self) -> int:
        """What sides are multiples of: two latents, which is a patch of the DiT."""
        return 2 * self.config.spatial_factor


def build(
    place: Path,
    out: Path,
    recipe: DataRecipe | None = None,
    *,
    engine: Engine | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> Funnel:
    """Makes the data set `out` of the files of `place`, a folder or a list, and says what became of them.

    Killed at any moment and called again, it goes on with what is left, and the result is the same bit for bit. What failed before is
    tried again only with `retry`, with another recipe, or when the file has changed. Raises `DataError` when more files are unusable
    than the error budget allows, and when no clip is left.
    """
    recipe = recipe or DataRecipe()
    parquet()  # said before the work when it is missing
    files = find(place)
    for function in (recipe.cuts.function, *(rule.function for rule in recipe.scorers.values())):
        if function is not None:
            plug_ins.load(function)
    encoder = Encoder.load(recipe.vae)
    with only_builder(out):
        chain = _Chain(
            out, recipe, encoder, engine or Pool(), retry, progress or (lambda stage, done, total: None)
        )
        sources = chain.probe(files)
        sources, looks = chain.look(sources, files)
        clips, seen = chain.cut(sources, looks, files)
        clips = chain.drop_duplicates(clips, seen)
        clips = chain.caption(clips, sources)
        clips = chain.see(clips, sources)
        clips, sources = chain.encode(clips, sources)
        funnel = _funnel(files, sources, clips)
        chain.write(sources, clips, funnel)
    if not any(clip.verdict == "kept" for clip in clips):
        raise DataError(f"no clip of {place} is left:\n" + "\n".join(funnel.lines()))
    return funnel


class _Chain:
    """One build: where it writes, what it goes by, who does the work."""

    def __init__(
        self, out: Path, recipe: DataRecipe, encoder: Encoder, engine: Engine, retry: bool, progress: Progress
    ) -> None:
        self.out, self.recipe, self.encoder, self.engine, self.retry, self.progress = (
            out,
            recipe,
            encoder,
            engine,
            retry,
            progress,
        )
        self.store = Store(out)
        self.num_bad = self.num_files = 0
        self.first_bad = ""

    def probe(self, files: Sequence[Found]) -> list[SourceRow]:
        """A row a file, in their order; a file with the bytes of an earlier one is dropped."""
        self.num_files = len(files)
        jobs, keys = [], {}
        for file in files:
            try:
                stat = file.path.stat()
                size, keys[file.name] = (
                    stat.st_size,
                    content_key([str(file.path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]),
                )
            except OSError:
                size, keys[file.name] = 0, content_key([str(file.path), "unreadable"])
            jobs.append(Job(keys[file.name], {"path": str(file.path)}, PROBE_S + size / HASHED_PER_S))
        outcomes = self._done("probe", stages.fingerprint, jobs, stores_failures=False)
        rows, first_of = [], dict[str, str]()
        for file in files:
            outcome = outcomes[keys[file.name]]
            said = outcome.result or {}
            sha256 = str(said.get("sha256", ""))
            verdict, reason = ("used", "") if outcome.result else ("quarantined", outcome.reason)
            if sha256 in first_of:
                verdict, reason = "dropped", f"same bytes as another file: {first_of[sha256]}"
            elif sha256:
                first_of[sha256] = file.name
                side = min(said["width"], said["height"])
                if side < self.recipe.filters.min_side:
                    verdict, reason = (
                        "dropped",
                        f"too small: shorter side of {side} pixels, at least {self.recipe.filters.min_side}",
                    )
            rows.append(_source(file, said, verdict, reason, self.recipe.licence))
        return rows

    def look(
        self, sources: Sequence[SourceRow], files: Sequence[Found]
    ) -> tuple[list[SourceRow], dict[str, dict[str, Any]]]:
        """What each used file holds, by source_id; a file that cannot be decoded is quarantined."""
        by_name = {file.name: file for file in files}
        clips = {
            name: value for name, value in to_dict(self.recipe.clips).items() if name in ("fps", "max_frames")
        }
        table = {
            "side": self.recipe.side,
            "cuts": to_dict(self.recipe.cuts),
            "clips": {"min_frames": 1, **clips},
        }
        detector = [] if self.recipe.cuts.function is None else [plug_ins.version(self.recipe.cuts.function)]
        jobs, keys = [], {}
        for source in sources:
            if source.verdict == "used":
                keys[source.source_id] = content_key([stages.LOOK_VERSION, source.sha256, table, *detector])
                task = {"path": str(by_name[source.name].path), "recipe": table}
                jobs.append(
                    Job(keys[source.source_id], task, self.recipe.work.deadline_s + source.duration_s)
                )
        outcomes = self._done("look", stages.look, jobs)
        rows, looks = [], {}
        for source in sources:
            if source.verdict == "used":
                outcome = outcomes[keys[source.source_id]]
                if outcome.result is None:
                    source = replace(source, verdict="quarantined", reason=outcome.reason)
                else:
                    looks[source.source_id] = said = outcome.result
                    source = replace(
                        source, height=said["height"], width=said["width"], num_frames=said["num_frames"]
                    )
                    if not said["clips"]:
                        source = replace(
                            source, verdict="dropped", reason="no shot: every frame is nearly black"
                        )
            rows.append(source)
        return rows, looks

    def cut(
        self, sources: Sequence[SourceRow], looks: Mapping[str, dict[str, Any]], files: Sequence[Found]
    ) -> tuple[list[ClipRow], dict[str, Seen]]:
        """A row a clip, filtered and with captions, and what deduplication wants to know of each."""
        by_name = {file.name: file for file in files}
        clips, seen = [], {}
        for source in sources:
            for said in looks[source.source_id]["clips"] if source.verdict == "used" else ():
                clip = self._clip(source, said, by_name[source.name])
                why = filters.reason(clip, self.recipe)
                clips.append(replace(clip, verdict="dropped" if why else "kept", reason=why))
                shot = f"{source.source_id}/{said['shot']}"
                seen[clip.clip_id] = Seen(clip.clip_id, shot, said["hash"], said["thumbnails"])
        return clips, seen

    def drop_duplicates(self, clips: Sequence[ClipRow], seen: Mapping[str, Seen]) -> list[ClipRow]:
        """The clips, those that repeat another dropped; the one with more pixels stays."""
        best_first = sorted(
            (clip for clip in clips if clip.verdict == "kept"),
            key=lambda clip: -clip.box_height * clip.box_width,
        )
        names = {clip.clip_id: f"{clip.name} at {clip.start_s:.2f} s" for clip in clips}
        repeats = dict(duplicates([seen[clip.clip_id] for clip in best_first], self.recipe.dedup))
        return [
            replace(
                clip,
                verdict="dropped",
                reason=f"duplicate: of {repeats[clip.clip_id]}, {names[repeats[clip.clip_id]]}",
            )
            if clip.clip_id in repeats
            else clip
            for clip in clips
        ]

    def caption(self, clips: Sequence[ClipRow], sources: Sequence[SourceRow]) -> list[ClipRow]:
        """The clips with the captions of the recipe's writer."""
        paths = {source.source_id: source.path for source in sources if source.verdict == "used"}
        clips, self.writer = add_captions(clips, paths, self.recipe, self.store, self.engine, self.progress)
        return clips

    def see(self, clips: Sequence[ClipRow], sources: Sequence[SourceRow]) -> list[ClipRow]:
        """The clips with what the recipe's CLIP and scorers say of them; those that break a rule, or repeat another file, are dropped."""
        agreement, rules = self.recipe.agreement, self.recipe.scorers
        if not agreement.is_asked and not rules:
            return list(clips)
        folder = resolve_model(agreement.clip) if agreement.is_asked else None
        clip = load_clip(folder) if folder is not None else None
        tool = weights_hash(clip) if clip is not None else ""
        table = {name: rule.function for name, rule in rules.items()}
        versions = [plug_ins.version(function) for function in table.values()]
        paths = {source.source_id: source.path for source in sources if source.verdict == "used"}
        jobs, members = [], {}
        for source_id, group in group_by_source(
            [clip for clip in clips if clip.verdict == "kept"], ENCODE_AT_ONCE
        ):
            rows = [_span(one, one.clip_id) for one in group]
            key = content_key([stages.SEE_VERSION, source_id, rows, tool, table, versions, self.recipe.side])
            task = {
                "path": paths[source_id],
                "clips": rows,
                "clip": folder and str(folder),
                "scorers": table,
                "side": self.recipe.side,
            }
            jobs.append(Job(key, task, self.recipe.work.deadline_s * (1 + len(group)) + group[-1].end_s))
            members[key] = group
        outcomes = self._done("see", stages.see, jobs)
        failed = {
            one.clip_id: outcomes[key].reason
            for key, group in members.items()
            for one in group
            if outcomes[key].result is None
        }
        said = {
            clip_id: row for outcome in outcomes.values() for clip_id, row in (outcome.result or {}).items()
        }
        rows_out, embeddings = [], {}
        for one in clips:
            if one.verdict == "kept" and one.clip_id in failed:
                one = replace(one, verdict="dropped", reason=f"unreadable: {failed[one.clip_id]}")
            elif one.verdict == "kept":
                scores = dict(said[one.clip_id]["scores"])
                if clip is not None:
                    embeddings[one.clip_id] = embedding = np.array(
                        said[one.clip_id]["embedding"], dtype=np.float32
                    )
                    if texts := list(json.loads(one.captions).values()):
                        scores["caption"] = round(float((_embed(clip, texts) @ embedding).max()), 5)
                why = filters.score_reason(scores, self.recipe)
                one = replace(
                    one,
                    scores=json.dumps(scores, sort_keys=True),
                    verdict="dropped" if why else "kept",
                    reason=why,
                )
            rows_out.append(one)
        return self._drop_look_alikes(rows_out, embeddings)

    def _drop_look_alikes(self, clips: Sequence[ClipRow], embeddings: Mapping[str, np.ndarray]) -> list[ClipRow]:
        most = self.recipe.agreement.max_same
        if most is None:
            return list(clips)
        best_first = sorted(
            (clip for clip in clips if clip.verdict == "kept"),
            key=lambda clip: -clip.box_height * clip.box_width,
        )
        names = {clip.clip_id: f"{clip.name} at {clip.start_s:.2f} s" for clip in clips}
        found = look_alikes(
            [(clip.clip_id, clip.source_id, embeddings[clip.clip_id]) for clip in best_first], most
        )
        why = {
            one: f"looks like another: {names[other]}, cosine {cosine:.3f}, at most {most:g}"
            for one, other, cosine in found
        }
        return [
            replace(clip, verdict="dropped", reason=why[clip.clip_id]) if clip.clip_id in why else clip
            for clip in clips
        ]

    def encode(self, clips: Sequence[ClipRow], sources: Sequence[SourceRow]) -> tuple[list[ClipRow], list[SourceRow]]:
        """The clips with the keys of their latents, which are stored or in a shard of the build before."""
        from kinema.device import pick_device

        pick_device(self.recipe.device)  # refused here rather than in every child
        paths = {source.source_id: source.path for source in sources if source.verdict == "used"}
        clips = [
            replace(clip, latents_key=self._latents_key(clip)) if clip.verdict == "kept" else clip
            for clip in clips
        ]
        self.shards_before = _shards_by_key(self.out)
        missing = [
            c
            for c in clips
            if c.latents_key
            and c.latents_key not in self.shards_before
            and not self.store.has_array("latents", c.latents_key)
        ]
        jobs, members = [], {}
        for source_id, group in group_by_source(missing, ENCODE_AT_ONCE):
            rows = [_span(c, c.latents_key) for c in group]
            key = content_key([[clip.latents_key for clip in group]])
            members[key] = group
            task = {
                "path": paths[source_id],
                "clips": rows,
                "vae": str(self.encoder.folder),
                "device": self.recipe.device,
            }
            jobs.append(Job(key, task, self.recipe.work.deadline_s * (1 + len(group)) + group[-1].end_s))
        failed: dict[str, str] = {}
        done = len(clips) - len(missing) - sum(clip.verdict != "kept" for clip in clips)
        total = done + len(missing)
        self.progress("encode", done, total)
        for outcome in self.engine.run(stages.encode, jobs):
            group = members[outcome.key]
            for key, latents in (outcome.result or {}).items():
                self.store.put_array("latents", key, latents)
            if outcome.result is None:
                failed |= {clip.source_id: outcome.reason for clip in group}
                self._count_bad(paths[group[0].source_id], outcome.reason)
            done += len(group)
            self.progress("encode", done, total)
        bad = {source_id: f"cannot be decoded again: {reason}" for source_id, reason in failed.items()}
        sources = [
            replace(s, verdict="quarantined", reason=bad[s.source_id])
            if s.source_id in bad and s.verdict == "used"
            else s
            for s in sources
        ]
        clips = [
            replace(c, verdict="dropped", reason=f"unreadable: {failed[c.source_id]}", latents_key="")
            if c.verdict == "kept" and c.source_id in failed
            else c
            for c in clips
        ]
        return clips, sources

    def write(self, sources: Sequence[SourceRow], clips: Sequence[ClipRow], funnel: Funnel) -> None:
        """Shards, tables and, last of all, dataset.json; then what nothing names any more is removed."""
        kept = [index for index, clip in enumerate(clips) if clip.verdict == "kept"]
        rows = list(clips)
        size = self.recipe.work.shard_clips
        shards = []
        for done, first in enumerate(range(0, len(kept), size)):
            indices = kept[first : first + size]
            keys = [clips[i].latents_key for i in indices]
            name = f"{content_key([keys])}.safetensors"
            shapes = self._write_shard(self.out / SHARDS / name, keys)
            shards.append(name)
            for i, shape in zip(indices, shapes):
                rows[i] = replace(
                    clips[i],
                    shard=name,
                    latent_frames=shape[1],
                    latent_height=shape[2],
                    latent_width=shape[3],
                )
            self.progress("shards", done + 1, -(-len(kept) // size))
        tables = {
            "clips": _write_table(self.out, "clips", rows, ClipRow),
            "sources": _write_table(self.out, "sources", sources, SourceRow),
        }
        card = {
            "schema_version": SCHEMA_VERSION,
            "tables": tables,
            "shards": {name: sha256_of(self.out / SHARDS / name) for name in shards},
            "num_clips": len(kept),
            "recipe": to_dict(self.recipe),
            "vae": {"name": self.recipe.vae, "weights": self.encoder.weights},
            "stages": lineage(self.recipe, self.encoder, self.writer),
            "funnel": [[name, left, dict(reasons)] for name, left, reasons in funnel.stages],
        }
        write_json(self.out / CARD, card)
        named = {*shards, *tables.values()}
        for old in [
            *(self.out / SHARDS).glob("*.safetensors"),
            *self.out.glob("clips-*.parquet"),
            *self.out.glob("sources-*.parquet"),
        ]:
            if old.name not in named:
                old.unlink()
        shutil.rmtree(self.out / WORK / "latents", ignore_errors=True)

    def _write_shard(self, path: Path, keys: Sequence[str]) -> list[tuple[int, ...]]:
        """The shapes of the latents of a shard, written if it is not there."""
        from safetensors.numpy import load_file, save_file

        if path.exists():
            held = load_file(path)
            return [held[key].shape for key in keys]
        arrays = {key: self._latents(key) for key in keys}
        with atomic_file(path) as partial, output_errors(path):
            save_file(arrays, partial)
        return [arrays[key].shape for key in keys]

    def _latents(self, key: str) -> np.ndarray:
        from safetensors.numpy import load_file

        stored = self.store.get_array("latents", key)
        if stored is None:
            stored = load_file(self.out / SHARDS / self.shards_before[key])[key]
        return stored

    def _done(
        self, name: str, stage: Stage, jobs: Sequence[Job], *, stores_failures: bool = True
    ) -> dict[str, Outcome]:
        """The outcome of every job by key: stored ones, and those that the engine makes now, which are stored."""
        outcomes: dict[str, Outcome] = {}
        left: dict[str, Job] = {}
        for job in jobs:
            said = self.store.get(name, job.key)
            if said is not None and (
                said["result"] is not None or (not self.retry and said["deadline_s"] >= job.deadline_s)
            ):
                outcomes[job.key] = Outcome(job.key, said["result"], said["reason"], said["seconds"])
                self._count_bad(str(job.task["path"]), said["reason"])
            else:
                left[job.key] = job
        total = len(outcomes) + len(left)
        self.progress(name, len(outcomes), total)
        for outcome in self.engine.run(stage, list(left.values())):
            outcomes[outcome.key] = outcome
            if outcome.result is not None or stores_failures:
                self.store.put(
                    name,
                    outcome.key,
                    {**dataclasses.asdict(outcome), "deadline_s": left[outcome.key].deadline_s},
                )
            self.progress(name, len(outcomes), total)
            self._count_bad(str(left[outcome.key].task["path"]), outcome.reason)
        return outcomes

    def _count_bad(self, path: str, reason: str) -> None:
        """Note an unusable file. Raises `DataError` when there are more than the budget allows."""
        if not reason:
            return
        self.num_bad += 1
        self.first_bad = self.first_bad or f"{path}: {reason}"
        log.info("quarantined %s: %s", path, reason)
        budget = self.recipe.work.error_budget
        if self.num_bad > max(ALWAYS_ALLOWED, budget * self.num_files):
            raise DataError(
                f"{self.num_bad} of {self.num_files} files cannot be used, and error_budget allows {budget:.0%}; the first is "
                f"{self.first_bad}. Mend or remove them, or raise it: --set work.error_budget=0.5 (what is done is kept)"
            )

    def _clip(self, source: SourceRow, said: Mapping[str, Any], file: Found) -> ClipRow:
        """The row of a clip, its size as the VAE will see it."""
        config, (top, left, bottom, right) = self.recipe.clips, said["box"]
        if config.borders != "crop":
            top, left, bottom, right = 0.0, 0.0, 1.0, 1.0
        # Inwards by a pixel of the small frames where something is cut off, for it may be half border.
        slack = 1 / min(self.recipe.side, max(source.height, source.width))
        box_top = -(-int((top + slack * (top > 0)) * source.height * 1000) // 1000)
        box_left = -(-int((left + slack * (left > 0)) * source.width * 1000) // 1000)
        box_height = max(1, int((bottom - slack * (bottom < 1)) * source.height + 1e-6) - box_top)
        box_width = max(1, int((right - slack * (right < 1)) * source.width + 1e-6) - box_left)
        height, width = target_size(box_height, box_width, config, self.encoder.multiple)
        is_still = source.num_frames == 1
        captions = file.captions_of(said["start_s"], said["end_s"])
        names = (
            "start_s",
            "end_s",
            "num_source_frames",
            "source_fps",
            "brightness",
            "contrast",
            "sharpness",
            "motion",
            "border",
            "hash",
            "shot",
        )
        return ClipRow(
            clip_id=content_key([source.sha256, said["start_s"], said["end_s"]])[:16],
            source_id=source.source_id,
            name=source.name,
            licence=source.licence,
            is_still=is_still,
            **{name: said[name] for name in names},
            source_height=source.height,
            source_width=source.width,
            box_top=box_top,
            box_left=box_left,
            box_height=box_height,
            box_width=box_width,
            height=height,
            width=width,
            num_frames=1
            if is_still
            else target_frames(said["end_s"] - said["start_s"], config, self.encoder.config.temporal_factor),
            fps=config.fps,
            captions=json.dumps(captions, ensure_ascii=False, sort_keys=True),
            verdict="",
            reason="",
        )

    def _latents_key(self, clip: ClipRow) -> str:
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
        return content_key([stages.ENCODE_VERSION, clip.clip_id, size, self.encoder.weights])


def target_size(height: int, width: int, config: Clips, multiple: int) -> tuple[int, int]:
    """Height and width that a clip of `height` x `width` is encoded at: multiples, never more than there is; zeros when none fits.

    Without `crop` the multiples whose area is near `area` and whose shape is nearest to the clip's own.
    """
    if config.crop is not None:
        sides = config.crop[0] // multiple * multiple, config.crop[1] // multiple * multiple
        return sides if sides[0] <= height and sides[1] <= width and min(sides) else (0, 0)
    scale = min(1.0, (config.area / (height * width)) ** 0.5)
    tall, wide = max(1, round(height * scale / multiple)), max(1, round(width * scale / multiple))
    tall, wide = min(tall, height // multiple), min(wide, width // multiple)
    return (tall * multiple, wide * multiple) if tall and wide else (0, 0)


def target_frames(duration_s: float, config: Clips, temporal_factor: int) -> int:
    """The most frames of the form 4k+1 that `duration_s` holds at the recipe's rate, up to its longest; 0 below its shortest."""
    count = min(config.max_frames, int(duration_s * config.fps + 0.5))
    count = (count - 1) // temporal_factor * temporal_factor + 1 if count else 0
    return count if count >= config.min_frames else 0


def lineage(recipe: DataRecipe, encoder: Encoder, writer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tool, version and parameters of every stage, in their order."""
    import cv2

    tables = to_dict(recipe)
    versions = {
        "probe": "PyAV " + pyav.load().__version__,
        "look": f"{stages.LOOK_VERSION}, PyAV {pyav.load().__version__}, OpenCV {cv2.__version__}",
    }
    rows = [
        ("probe", "kinema.data.curation.stages.fingerprint", {}),
        (
            "look",
            "kinema.data.curation.stages.look",
            {"side": recipe.side, "cuts": tables["cuts"], "clips": tables["clips"]},
        ),
        ("filter", "kinema.data.curation.filters", tables["filters"]),
        ("dedup", "kinema.data.curation.dedup", tables["dedup"]),
        (
            "caption",
            "kinema.data.curation.captioning" if writer else "kinema.data.curation.sources",
            dict(writer),
        ),
        (
            "see",
            "kinema.data.curation.stages.see",
            {"agreement": tables["agreement"], "scorers": tables["scorers"], "version": stages.SEE_VERSION},
        ),
        (
            "encode",
            "kinema.data.curation.stages.encode",
            {"vae": recipe.vae, "weights": encoder.weights, "version": stages.ENCODE_VERSION},
        ),
    ]
    version = getattr(kinema, "__version__", "")
    return [
        {"stage": n, "tool": tool, "version": versions.get(n, version), "parameters": values}
        for n, tool, values in rows
    ]


def _source(file: Found, said: Mapping[str, Any], verdict: str, reason: str, licence: str) -> SourceRow:
    sha256 = str(said.get("sha256", ""))
    return SourceRow(
        source_id=(sha256 or content_key([file.name]))[:16],
        name=file.name,
        path=str(file.path),
        sha256=sha256,
        size_bytes=int(said.get("size_bytes", 0)),
        container=str(said.get("container", "")),
        codec=str(said.get("codec", "")),
        pixel_format=str(said.get("pixel_format", "")),
        width=int(said.get("width", 0)),
        height=int(said.get("height", 0)),
        num_frames=int(said.get("num_frames", 0)),
        fps=float(said.get("fps", 0)),
        duration_s=float(said.get("duration_s", 0)),
        licence=file.licence or licence,
        verdict=verdict,
        reason=reason,
    )


def _span(clip: ClipRow, key: str) -> dict[str, Any]:
    """What the children that decode a clip again need to know of it, under the key that they answer with."""
    wanted = ("start_s", "end_s", "num_source_frames", "source_fps", "height", "width", "num_frames", "fps")
    box = [clip.box_top, clip.box_left, clip.box_height, clip.box_width]
    return {"clip_id": key, "box": box, **{name: getattr(clip, name) for name in wanted}}


def _embed(clip: CLIP, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings of texts, a row each."""
    with torch.no_grad():
        return clip.encode_text(texts)[1].numpy()


def _shards_by_key(out: Path) -> dict[str, str]:
    """The shard of every key of latents that builds before have written; shards that are damaged are deleted, to be made anew."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    known = read_card(out)["shards"] if (out / CARD).exists() else {}
    found: dict[str, str] = {}
    for path in sorted((out / SHARDS).glob("*.safetensors")):
        try:
            if path.name in known and sha256_of(path) != known[path.name]:
                raise SafetensorError("its bytes have changed")
            found |= dict.fromkeys(load_file(path), path.name)
        except (OSError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is made anew", path, error)
            path.unlink()
    return found


def _write_table(out: Path, name: str, rows: Sequence[Row], kind: type[Row]) -> str:
    """The name of the Parquet file that holds the rows, with a hash of them in it."""
    table = to_table(rows, kind)
    file_name = f"{name}-{content_key([[dataclasses.asdict(row) for row in rows]])[:16]}.parquet"
    path = out / file_name
    if not path.exists():
        with atomic_file(path) as partial, output_errors(path):
            parquet().write_table(table, partial)
    return file_name


def _funnel(files: Sequence[Found], sources: Sequence[SourceRow], clips: Sequence[ClipRow]) -> Funnel:
    def reasons(rows: Iterable[Row]) -> Counter[str]:
        """How many rows have a reason, without the detail that follows a colon or stands in brackets."""
        return Counter(re.split(r"[:(]", row.reason)[0].strip() for row in rows)

    used = [source for source in sources if source.verdict == "used"]
    unusable = Counter(
        {
            f"quarantined: {reason}": n
            for reason, n in reasons([s for s in sources if s.verdict == "quarantined"]).items()
        }
    )
    repeated = reasons([source for source in sources if source.verdict == "dropped"])
    dropped = [clip for clip in clips if clip.verdict == "dropped"]
    kept = [clip for clip in clips if clip.verdict == "kept"]
    captioned = sum(clip.captions != "{}" for clip in kept)
    written = sum(json.loads(clip.caption_log).get("used") == "written" for clip in kept)
    return Funnel(
        (
            ("files", len(files), {}),
            ("files used", len(used), unusable + repeated),
            ("clips in their shots", len(clips), {}),
            ("clips kept", len(kept), reasons(dropped)),
            ("of them with a caption", captioned, refusals(kept)),
            *([("of these written by a model", written, {})] if written else []),
        )
    )
