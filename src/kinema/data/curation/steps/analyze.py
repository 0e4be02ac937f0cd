"""Step 2: decode each file once, cut it into shots and runs of frames, and score each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kinema.config import from_dict, to_dict
from kinema.data.curation import plug_ins
from kinema.data.curation.context import BuildContext
from kinema.data.curation.cuts import BLACK, FramePlanes, in_shots
from kinema.data.curation.engine import WorkItem
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.scores import score
from kinema.data.dataset import SourceRow
from kinema.errors import VideoError
from kinema.files import content_key
from kinema.video.reading import at_constant_rate
from kinema.video.scanning import scan

KIND = "look"
"""Folder of the stored results, as version 0.1.0 named it."""
VERSION = 2
"""Raise this when `analyze` gives other results for the same arguments, so that stored ones are not used."""

Analysis = dict[str, Any]
"""A result of `analyze`."""


def analyze(arguments: Mapping[str, Any]) -> Analysis:
    """{"height", "width", "num_frames", "clips": [rows]} of the file at arguments["path"], from one pass over
    its frames.

    A row holds the shot's index, start_s, end_s, num_source_frames, source_fps and the `Scores`.
    arguments["recipe"] is a `DataRecipe` as a dict. Raises `VideoError` if the file cannot be decoded.
    """
    recipe = from_dict(DataRecipe, arguments["recipe"])
    path = Path(arguments["path"])
    rows, num_frames, last = [], 0, None

    for run in _runs(in_shots(scan(path, max_side=recipe.side), recipe.cuts), recipe):
        num_frames += len(run.frames)
        last = run.frames[-1].frame
        if run.shot != BLACK:
            rows.append({"shot": run.shot, **_row(run, recipe.clips.fps)})

    if last is None:
        raise VideoError(f"cannot read {path}: it holds no frame")
    return {"height": last.height, "width": last.width, "num_frames": num_frames, "clips": rows}


def analyze_files(
    context: BuildContext, sources: Sequence[SourceRow]
) -> tuple[list[SourceRow], dict[str, Analysis]]:
    """The rows of the files, and the analysis of each used file by source_id. Files that fail are
    quarantined.
    """
    recipe = _recipe_table(context.recipe)
    function = context.recipe.cuts.function
    detector = [] if function is None else [plug_ins.function_version(function)]

    items: dict[str, WorkItem] = {}
    for source in sources:
        if source.verdict == "used":
            key = content_key([VERSION, source.sha256, recipe, *detector])
            deadline_s = context.recipe.work.deadline_s + source.duration_s
            items[source.source_id] = WorkItem(key, {"path": source.path, "recipe": recipe}, deadline_s)
    outcomes = context.run_stored("analyze", KIND, analyze, list(items.values()))

    rows: list[SourceRow] = []
    analyses: dict[str, Analysis] = {}
    for source in sources:
        if source.verdict == "used":
            outcome = outcomes[items[source.source_id].key]
            if outcome.result is None:
                source = source.quarantined(outcome.reason)
            else:
                analyses[source.source_id] = analysis = outcome.result
                sizes = {name: analysis[name] for name in ("height", "width", "num_frames")}
                source = replace(source, **sizes)
                if not analysis["clips"]:
                    source = source.dropped("no shot: every frame is nearly black")
        rows.append(source)
    return rows, analyses


def _recipe_table(recipe: DataRecipe) -> dict[str, Any]:
    """The settings on which an analysis depends, as a dict that `from_dict` reads. It is hashed into stored
    keys.
    """
    clips = to_dict(recipe.clips)
    used = {name: clips[name] for name in clips if name in ("fps", "max_frames")}
    return {"side": recipe.side, "cuts": to_dict(recipe.cuts), "clips": {"min_frames": 1, **used}}


@dataclass(frozen=True)
class _Run:
    """Consecutive frames of one shot, and the time of the frame after them."""

    shot: int
    frames: list[FramePlanes]
    next_s: float


def _runs(frames: Iterator[tuple[int, FramePlanes]], recipe: DataRecipe) -> Iterator[_Run]:
    """The shots cut into runs of at most the longest clip. Only grey planes are kept in memory."""
    longest_s = recipe.clips.max_frames / recipe.clips.fps
    run: list[FramePlanes] = []
    current = BLACK

    for shot, planes in frames:
        frame = planes.frame
        is_full = run and frame.time_s - run[0].frame.time_s > longest_s - 0.5 * frame.duration_s
        if run and (shot != current or is_full):
            yield _Run(current, run, frame.time_s)
            run = []
        current = shot
        run.append(planes.grey_only())

    if run:
        yield _Run(current, run, float("inf"))


def _row(run: _Run, fps: float) -> dict[str, Any]:
    """Times and scores of a run. Frames are scored at `fps`, or at the source's rate where that is lower."""
    first, last = run.frames[0].frame, run.frames[-1].frame
    end_s = min(last.time_s + last.duration_s, run.next_s)  # declared durations may overlap the next frame
    duration_s = max(end_s - first.time_s, 1e-6)
    source_fps = len(run.frames) / duration_s

    rate = min(fps, source_fps)
    timed = [(item.frame.time_s, item.frame.duration_s, item.grey) for item in run.frames]
    greys = list(at_constant_rate(timed, rate, source_fps))

    return {
        "start_s": first.time_s,
        "end_s": end_s,
        "num_source_frames": len(run.frames),
        "source_fps": round(source_fps, 4),
        **asdict(score(greys, 1 / rate)),
    }
