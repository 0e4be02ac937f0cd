"""The timeline benchmark: extension, connection, loops, edits and long videos. An interrupted run continues.

out/settings.json model and sampling; a run with other settings needs another folder out/clips/TASK-0000.mkv
the result of a case, lossless; TASK-0000.plain.mkv the video that it is compared with out/clips/TASK-0000.mp4
truth and result side by side out/report.json the metrics of every case out/index.html the same as a page
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinema.errors import RequestError, VideoError
from kinema.evaluation.run_folder import (
    CLIP_QUALITY,
    OnProgress,
    SamplingOptions,
    claim_folder,
    reported,
    run_settings,
)
from kinema.evaluation.samples import trained_world, world_of
from kinema.evaluation.timeline_cases import TIMELINE_TASKS, Case, TimelineTask, Videos, side_by_side
from kinema.evaluation.timeline_metrics import Metrics, summarize
from kinema.evaluation.trust import load_checked_oracle, noun_metric
from kinema.files import write_json
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.registry import lookup
from kinema.video import Video
from kinema.worlds import check_slots


@dataclass(frozen=True, kw_only=True)
class TimelineConfig(SamplingOptions):
    """Which tasks, how many cases of each (None: the task's default), and how they are sampled."""

    tasks: tuple[str, ...] = tuple(TIMELINE_TASKS)
    cases: int | None = None
    long_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in self.tasks:
            lookup(TIMELINE_TASKS, name, kind="task")
        if self.cases is not None and self.cases < 1:
            raise RequestError(f"cases={self.cases}: use at least 1")
        if not 4 <= self.long_seconds <= 600:
            raise RequestError(f"long_seconds={self.long_seconds:g} is out of range: use 4 to 600")


def evaluate_timeline(
    pipeline: Pipeline,
    config: TimelineConfig,
    out: Path,
    *,
    oracle_folder: Path | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> dict[str, Any]:
    """All metrics of the chosen tasks as plain JSON, also written to `out / "report.json"`.

    Raises, before any generation, `ModelError` if the model or the oracle does not know the world,
    `RequestError` for an invalid request, and `OutputError` if the folder cannot be written or belongs to
    another run.
    """
    world = world_of(trained_world(pipeline.manifest), "seen")
    check_slots(world, "the timeline benchmark", ("noun", "verb", "ground"))
    oracle = load_checked_oracle(pipeline, world, oracle_folder)
    pipeline = pipeline.with_metrics(noun_metric(pipeline.manifest, pipeline.device, oracle_folder))

    options = config.request_fields
    planned = pipeline.plan(Request("any", **options)).request
    settings = {
        **run_settings(pipeline, world, planned, tuple(options)),
        "options": options,
        "long_seconds": config.long_seconds,
    }
    claim_folder(out, settings)

    # Other options stay None if the user did not set them: the model's default guidance depends on the task.
    sampling = {**options, "width": planned.width, "height": planned.height}
    report: dict[str, Any] = {**settings, "tasks": {}, "cases": []}
    for name in config.tasks:
        task = TIMELINE_TASKS[name]
        long_frames = round(config.long_seconds * pipeline.manifest.fps)
        num_frames = long_frames if task.is_long else task.num_frames
        results: list[Metrics] = []
        for index in reported(range(config.cases or task.num_cases), task.title, on_progress):
            case = Case(index, world, pipeline, sampling, num_frames, task.stays_in_view)
            metrics = task.measure(case, _load_or_generate(name, task, case, out), oracle)
            results.append(metrics)
            report["cases"].append(_case_row(name, case, metrics))

        limits = {"max": dict(results[0].MAX), "min": dict(results[0].MIN)}
        report["tasks"][name] = {"title": task.title, **limits, **summarize(results)}

    write_json(out / "report.json", report)
    return report


def _case_row(name: str, case: Case, metrics: Metrics) -> dict[str, Any]:
    values = {
        metric: round(value, 3) if isinstance(value, float) else value
        for metric, value in asdict(metrics).items()
    }
    return {
        "name": f"{name}-{case.index:04d}",
        "task": name,
        "prompt": case.prompt,
        "good": metrics.is_good,
        "metrics": values,
    }


def _load_or_generate(name: str, task: TimelineTask, case: Case, out: Path) -> Videos:
    """The videos of a case, read from the folder if they are there.

    Raises `VideoError` if they have another shape.
    """
    stem = f"{name}-{case.index:04d}"
    files = {
        key: out / "clips" / f"{stem}{suffix}"
        for key, suffix in (("plain", ".plain.mkv"), ("result", ".mkv"))
    }
    comparison = out / "clips" / f"{stem}.mp4"

    if files["result"].exists():
        videos = {key: Video.read(file).frames for key, file in files.items() if file.exists()}
    else:
        videos = task.generate(case)
        for key, file in files.items():  # the result last: if it exists, the case is complete
            if key in videos:
                Video(videos[key], case.fps).save(file)

    if any(frames.shape != case.clip.frames.shape for frames in videos.values()):
        raise VideoError(f"{files['result']} is not a clip of this evaluation: delete it")
    if not comparison.exists():
        Video(side_by_side(name, case, videos), case.fps).save(comparison, quality=CLIP_QUALITY)
    return videos
