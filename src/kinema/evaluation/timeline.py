"""The tasks of the timeline, evaluated. Stopped at any time it goes on: what is in its folder is not made again.

out/settings.json        model and sampling; another evaluation needs another folder
out/clips/TASK-0000.mkv  the result of a case, without loss; TASK-0000.plain.mkv what it is compared with
out/clips/TASK-0000.mp4  truth and result side by side
out/report.json          every figure of every case
out/index.html           the same to look at
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinema.checkpoints.folders import load_oracle
from kinema.config import to_dict
from kinema.errors import RequestError, VideoError
from kinema.evaluation.prompts import CLIP_QUALITY, OnProgress
from kinema.evaluation.run_folder import claim
from kinema.evaluation.samples import stage_of, world_of
from kinema.evaluation.timeline_cases import TASKS, Case, Frames, TimelineTask, beside
from kinema.evaluation.timeline_metrics import Metrics, row
from kinema.evaluation.trust import add_noun_to_drift_report, check_vocabulary
from kinema.files import write_json
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.registry import lookup
from kinema.video import Video


@dataclass(frozen=True)
class TimelineConfig:
    """Which tasks, how many cases of each (None: as many as the task says), and how they are sampled (None: the model's defaults)."""

    tasks: tuple[str, ...] = tuple(TASKS)
    cases: int | None = None
    long_seconds: float = 60.0
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        for name in self.tasks:
            lookup(TASKS, name, kind="task")
        if self.cases is not None and self.cases < 1:
            raise RequestError(f"{self.cases} cases are none: use 1 or more")
        if not 4 <= self.long_seconds <= 600:
            raise RequestError(f"a long video of {self.long_seconds:g} s is out of range: use 4 to 600")


def evaluate_timeline(
    pipeline: Pipeline,
    config: TimelineConfig,
    out: Path,
    *,
    oracle_folder: Path | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Every figure of the chosen tasks, also written to `out / "report.json"`; plain JSON.

    Raises before any work `ModelError` for a model or an oracle that does not know the stage, `RequestError` for what cannot be sampled,
    and `OutputError` for a folder that cannot be written or holds another evaluation.
    """
    stage = stage_of(pipeline.manifest)
    oracle = load_oracle(oracle_folder, device=pipeline.device)
    check_vocabulary(oracle, stage, pipeline.manifest.name)
    add_noun_to_drift_report(pipeline, oracle_folder)
    asked = {
        name: getattr(config, name) for name in ("width", "height", "steps", "sampler", "guidance", "shift")
    }
    planned = pipeline.plan(Request("any", **asked)).request.to_dict()
    settings = {
        "model": pipeline.manifest.name,
        "model_hash": pipeline.model_hash,
        "sampling": {name: planned[name] for name in asked},
        "asked": asked,
        "stage": to_dict(stage),
        "long_seconds": config.long_seconds,
    }
    # What nobody asked for is left to the model, whose guidance depends on the task.
    sampling = asked | {name: planned[name] for name in ("width", "height")}
    claim(out, settings)
    world = world_of(stage, "seen")
    report: dict[str, Any] = {**settings, "tasks": {}, "cases": []}
    for name in config.tasks:
        task = TASKS[name]
        num_frames = round(config.long_seconds * pipeline.manifest.fps) if task.is_long else task.num_frames
        results: list[Metrics] = []
        count = config.cases or task.num_cases
        for index in range(count):
            on_progress(task.title, index, count)
            case = Case(index, world, pipeline, sampling, num_frames, task.stays_in_view)
            made = _made(name, task, case, out)
            numbers = task.measure(case, made, oracle)
            results.append(numbers)
            about = {
                "name": f"{name}-{index:04d}",
                "task": name,
                "prompt": case.prompt,
                "good": numbers.is_good,
            }
            report["cases"].append({**about, "numbers": _rounded(numbers)})
        on_progress(task.title, count, count)
        kind = type(results[0])
        report["tasks"][name] = {
            "title": task.title,
            "most": dict(kind.MOST),
            "least": dict(kind.LEAST),
            **row(results),
        }
    write_json(out / "report.json", report)
    return report


def _made(name: str, task: TimelineTask, case: Case, out: Path) -> Frames:
    """The videos of a case, which are made when they are not in the folder."""
    stem = out / "clips" / f"{name}-{case.index:04d}"
    files = {
        key: stem.with_name(stem.name + suffix)
        for key, suffix in (("plain", ".plain.mkv"), ("result", ".mkv"))
    }
    if files["result"].exists():
        made = {key: Video.read(file).frames for key, file in files.items() if file.exists()}
    else:
        made = task.make(case)
        for key in files:  # the result last: when it is there, so is all of the case
            if key in made:
                Video(made[key], case.fps).save(files[key])
    if any(frames.shape != case.clip.frames.shape for frames in made.values()):
        raise VideoError(f"{files['result']} is not a clip of this evaluation: delete it")
    if not stem.with_suffix(".mp4").exists():
        Video(beside(name, case, made), case.fps).save(stem.with_suffix(".mp4"), quality=CLIP_QUALITY)
    return made


def _rounded(numbers: Metrics) -> dict[str, Any]:
    """Plain JSON of one case's numbers."""
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in asdict(numbers).items()
    }
