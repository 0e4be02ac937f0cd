"""The cases of each task of the timeline: what the model is asked for, and how the result is measured against the truth.

A case is a clip of the world that the model was trained on, of combinations that training could show: what is asked here is whether
the parts fit together, and whether the words are followed has its own evaluation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from random import Random
from typing import Any

import cv2
import numpy as np

from kinema.checkpoints.folders import Manifest
from kinema.evaluation.timeline_metrics import (
    SEEN,
    Metrics,
    measure_edit,
    measure_join,
    measure_long,
    measure_loop,
)
from kinema.evaluation.trust import vae_round_trip
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.tasks import Direction
from kinema.generation.output.quality import QualityMonitor
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.oracle import Oracle
from kinema.video import Video
from kinema.worlds import Clip, StageWorld
from kinema.worlds.stage.nouns import NOUNS

FIRST_SEED = 4 * 10**9
"""Where the seeds of cases begin; the splits of `kinema evaluate` have others."""
KNOWN, NEW, GAP, LOOP = 9, 16, 8, 16
"""Frames of a clip that are given, that an extension adds, between two clips, and of a loop: whole latents all."""
LEAST_ASIDE = 2
"""Pixels around an object's path that an edited region has at least."""
Frames = dict[str, np.ndarray]
"""The videos of one case by name: "result", and where there is one "plain", what it is compared with."""


@dataclass(frozen=True, eq=False)
class Case:
    """One case of a task, for one model at one size; `sampling` are fields of its requests."""

    index: int
    world: StageWorld
    pipeline: Pipeline
    sampling: Mapping[str, Any]
    num_frames: int
    stays_in_view: bool = False
    """Whether the object has to be in the picture at the end."""

    @cached_property
    def clip(self) -> Clip:
        """The world's clip, which is the truth."""
        if not self.stays_in_view:
            return self._clip(FIRST_SEED + self.index, self.sampling["height"], self.sampling["width"])
        height, width = self.sampling["height"], self.sampling["width"]
        unit = gcd(height, width)
        least = -(-8 * unit // min(height, width))
        small = (
            height // unit * least,
            width // unit * least,
        )  # the truth depends on the shape alone, and this is drawn in no time
        rng = Random(FIRST_SEED + self.index)
        while True:
            seed = FIRST_SEED + rng.randrange(10**9)
            tracks = self._clip(seed, *small).truth["objects"][0]["tracks"]
            if min(*tracks["visible"][: 2 * KNOWN], *tracks["visible"][-2 * KNOWN :]) >= SEEN:
                return self._clip(seed, height, width)

    def _clip(self, seed: int, height: int, width: int) -> Clip:
        return self.world.clip(seed, height=height, width=width, num_frames=self.num_frames, fps=self.fps)

    @property
    def round_trip(self) -> np.ndarray:
        """The true clip after the model's VAE."""
        return vae_round_trip(self.pipeline.vae, self.clip.frames)

    @property
    def manifest(self) -> Manifest:
        """The model's."""
        return self.pipeline.manifest

    @property
    def fps(self) -> float:
        """The model's rate."""
        return self.manifest.fps

    @property
    def prompt(self) -> str:
        """What the request says: the truth in words."""
        return self.clip.captions["medium"]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the request that do not depend on the task."""
        return {"prompt": self.prompt, "seed": self.index, **self.sampling}

    def part(self, first: int, stop: int) -> Video:
        """Frames of the true clip."""
        return Video(self.clip.frames[first:stop], self.fps)

    def run(self, task: tasks.TaskRequest) -> np.ndarray:
        """The frames of the model's result."""
        request, inputs = task
        return self.pipeline.run(request, inputs=inputs).video.frames


@dataclass(frozen=True)
class TimelineTask:
    """A task that is measured: what its cases are, and how."""

    title: str
    num_frames: int
    make: Callable[[Case], Frames]
    measure: Callable[[Case, Frames, Oracle], Metrics]
    num_cases: int = 50
    """How many cases there are when nobody says."""
    known: tuple[slice, ...] = ()
    """Which frames of the truth were given."""
    stays_in_view: bool = False
    is_long: bool = False
    """Whether its length is that of a long video."""


def _extension(direction: Direction) -> TimelineTask:
    known = slice(0, KNOWN) if direction == "forward" else slice(NEW, NEW + KNOWN)
    new = slice(KNOWN, KNOWN + NEW) if direction == "forward" else slice(0, NEW)

    def make(case: Case) -> Frames:
        part, seconds = case.part(known.start, known.stop), NEW / case.fps
        return {
            "result": case.run(
                tasks.extend(case.fields, part, seconds=seconds, direction=direction, fps=case.fps)
            )
        }

    def measure(case: Case, made: Frames, oracle: Oracle) -> Metrics:
        return measure_join(made["result"], case.clip, [known], new, oracle, round_trip=case.round_trip)

    return TimelineTask(f"extend {direction}", KNOWN + NEW, make, measure, known=(known,))


def _connection() -> TimelineTask:
    # Of 26 frames, 9 and 9 leave a gap of two latents: the canvas begins with the first clip's one frame, and the gap ends on a latent.
    known, new = (slice(0, KNOWN), slice(KNOWN + GAP, 2 * KNOWN + GAP)), slice(KNOWN, KNOWN + GAP)

    def make(case: Case) -> Frames:
        ends = (case.part(part.start, part.stop) for part in known)
        return {"result": case.run(tasks.connect(case.fields, *ends, seconds=GAP / case.fps, fps=case.fps))}

    def measure(case: Case, made: Frames, oracle: Oracle) -> Metrics:
        return measure_join(made["result"], case.clip, known, new, oracle, round_trip=case.round_trip)

    return TimelineTask("connect", 2 * KNOWN + GAP, make, measure, known=known)


def _loop() -> TimelineTask:
    def make(case: Case) -> Frames:
        fields = {**case.fields, "frames": LOOP}
        return {
            "result": case.run(tasks.loop(fields, fps=case.fps)),
            "plain": case.run((Request(**fields), {})),
        }

    def measure(case: Case, made: Frames, oracle: Oracle) -> Metrics:
        return measure_loop(made["result"], made["plain"], case.clip.truth["noun"], oracle)

    return TimelineTask("loop", LOOP, make, measure)


def _edit() -> TimelineTask:
    def make(case: Case) -> Frames:
        slot, asked = edit_target(case)
        words = case.world.caption({**case.clip.truth, slot: asked}, "medium")
        fields, clip = {**case.fields, "prompt": words}, case.part(0, KNOWN + GAP)
        return {
            "result": case.run(
                tasks.edit(fields, clip, strength=1.0, region=edit_region(case, slot), fps=case.fps)
            )
        }

    def measure(case: Case, made: Frames, oracle: Oracle) -> Metrics:
        slot, asked = edit_target(case)
        return measure_edit(made["result"], case.clip, edit_region(case, slot), slot, asked, oracle, case.fps)

    return TimelineTask("edit region", KNOWN + GAP, make, measure)


def edit_target(case: Case) -> tuple[str, str]:
    """What an edit asks for: in even cases another noun that can do the same, in odd ones another ground."""
    truth, words, rng = case.clip.truth, case.world.vocabulary(), Random(case.index)
    nouns = [noun for noun in words.nouns if noun != truth["noun"] and truth["verb"] in NOUNS[noun].verbs]
    if case.index % 2 == 0 and nouns:
        return "noun", rng.choice(nouns)
    return "ground", rng.choice([ground for ground in words.grounds if ground != truth["ground"]])


def edit_region(case: Case, slot: str) -> tuple[int, int, int, int]:
    """x, y, width and height in pixels of what is edited: all that the object passes over, or all below the horizon."""
    _, height, width, _ = case.clip.frames.shape
    truth = case.clip.truth
    if slot == "ground":
        top = min(height - 1, int(truth["horizon"] * height))
        return 0, top, width, height - top
    tracks = {name: np.array(values) * height for name, values in truth["objects"][0]["tracks"].items()}
    half = 0.5 * tracks["size"] + LEAST_ASIDE
    left, right = max(0, int((tracks["x"] - half).min())), min(width, int((tracks["x"] + half).max()) + 1)
    top, bottom = max(0, int((tracks["y"] - half).min())), min(height, int((tracks["y"] + half).max()) + 1)
    return left, top, right - left, bottom - top


def _lasting() -> TimelineTask:
    def make(case: Case) -> Frames:
        request = Request(**case.fields, frames=case.num_frames)
        return {"result": case.run((request, {})), "plain": plain_extension(case)}

    def measure(case: Case, made: Frames, oracle: Oracle) -> Metrics:
        plan = case.pipeline.plan(Request(**case.fields, frames=case.num_frames))
        slopes = []
        for frames in (made["result"], made["plain"]):
            watch = QualityMonitor(plan, {}, case.pipeline.metrics)
            for _ in watch.over(iter(frames)):
                pass
            slopes.append(watch.report["slopes"])
        noun, num_frames = case.clip.truth["noun"], case.manifest.default_frames
        return measure_long(made["result"], made["plain"], slopes[0], slopes[1], noun, oracle, num_frames)

    return TimelineTask("long", 480, make, measure, num_cases=5, stays_in_view=True, is_long=True)


def plain_extension(case: Case) -> np.ndarray:
    """A long video as it is made without this package's windows: the end of what is there is encoded again for every stretch."""
    window = case.manifest.frames[1]
    history = window // 2 // 4 * 4 + 1
    frames = case.run((Request(**case.fields, frames=window), {}))
    while len(frames) < case.num_frames:
        tail = Video(frames[-history:].copy(), case.fps)
        longer = case.run(
            tasks.extend(case.fields, tail, seconds=(window - history) / case.fps, fps=case.fps)
        )
        frames = np.concatenate([frames, longer[history:]])
    return frames[: case.num_frames]


TASKS = {
    "forward": _extension("forward"),
    "backward": _extension("backward"),
    "connect": _connection(),
    "loop": _loop(),
    "edit": _edit(),
    "long": _lasting(),
}


def beside(name: str, case: Case, made: Frames) -> np.ndarray:
    """The truth and the videos of a case side by side, (f, h, w, 3), over a strip that is green where frames were given.

    A loop is shown twice over beside the video that is none; the region that is edited has a frame in the true clip.
    """
    task, gap = TASKS[name], 4
    shown = [case.clip.frames.copy(), *(made[key] for key in ("result", "plain") if key in made)]
    if name == "loop":
        shown = [
            np.concatenate([made["plain"], made["plain"]]),
            np.concatenate([made["result"], made["result"]]),
        ]
    if name == "edit":
        x, y, w, h = edit_region(case, edit_target(case)[0])
        for frame in shown[0]:
            cv2.rectangle(frame, (x, y), (x + w - 1, y + h - 1), (255, 255, 255), 1)
    length, height, width, _ = shown[0].shape
    out = np.full((length, height + gap, len(shown) * (width + gap) - gap, 3), 255, np.uint8)
    for i, frames in enumerate(shown):
        out[:, :height, i * (width + gap) : i * (width + gap) + width] = frames
    for part in task.known:
        out[part, height:] = (60, 160, 60)
    return out[:, : out.shape[1] // 2 * 2, : out.shape[2] // 2 * 2]
