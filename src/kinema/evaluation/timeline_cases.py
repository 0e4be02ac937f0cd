"""The cases of each timeline task: how a case is generated, and how its result is measured against the truth.

A case is a clip of the model's world, of combinations that training could show. The benchmark measures how
well generated and known frames fit together; `kinema.evaluation.prompts` measures how well prompts are
followed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from random import Random
from typing import Any

import cv2
import numpy as np

from kinema.checkpoints.manifest import Manifest
from kinema.evaluation.timeline_metrics import (
    MIN_VISIBLE,
    Metrics,
    measure_edit,
    measure_join,
    measure_long,
    measure_loop,
)
from kinema.evaluation.vae_clip_metrics import vae_round_trip
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.tasks import Direction
from kinema.generation.output.quality import QualityMonitor
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.oracle import Oracle
from kinema.video import Video
from kinema.worlds import Clip, World

FIRST_SEED = 4 * 10**9
"""The first seed of the cases; the splits of `kinema evaluate` use other seeds."""
KNOWN, NEW, GAP, LOOP = 9, 16, 8, 16
"""Frames: given of a clip, added by an extension, between two clips, and of a loop. All are whole latents."""
MIN_MARGIN_PX = 2
"""Pixels between the path of an object and the border of the edited region."""
SMALL_PX = 8
"""Shorter side in pixels of the clips that are drawn to search for a seed."""
Videos = dict[str, np.ndarray]
"""The videos of a case, uint8 (f, h, w, 3): "result", and "plain" if it is compared with another video."""


@dataclass(frozen=True, eq=False)
class Case:
    """One case of a task, for one model at one size. `sampling` are fields of its requests."""

    index: int
    world: World
    pipeline: Pipeline
    sampling: Mapping[str, Any]
    num_frames: int
    stays_in_view: bool = False
    """Whether the object must be in view in the first and last frames."""

    @cached_property
    def clip(self) -> Clip:
        """The true clip."""
        height, width = self.sampling["height"], self.sampling["width"]
        if not self.stays_in_view:
            return self._clip(FIRST_SEED + self.index, height, width)

        # The truth depends on the aspect ratio only, and small clips are drawn much faster.
        unit = gcd(height, width)
        scale = -(-SMALL_PX * unit // min(height, width))
        small_height, small_width = height // unit * scale, width // unit * scale

        rng = Random(FIRST_SEED + self.index)
        while True:
            seed = FIRST_SEED + rng.randrange(10**9)
            tracks = self._clip(seed, small_height, small_width).truth["objects"][0]["tracks"]
            visible = tracks["visible"]
            if min(*visible[: 2 * KNOWN], *visible[-2 * KNOWN :]) >= MIN_VISIBLE:
                return self._clip(seed, height, width)

    def _clip(self, seed: int, height: int, width: int) -> Clip:
        return self.world.clip(seed, height=height, width=width, num_frames=self.num_frames, fps=self.fps)

    @property
    def round_trip(self) -> np.ndarray:
        """The true clip after encoding and decoding by the model's VAE."""
        return vae_round_trip(self.pipeline.vae, self.clip.frames)

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.pipeline.manifest

    @property
    def fps(self) -> float:
        """The model's frame rate."""
        return self.manifest.fps

    @property
    def prompt(self) -> str:
        """The medium caption of the true clip."""
        return self.clip.captions["medium"]

    @property
    def request(self) -> Request:
        """The request without what depends on the task."""
        return Request(self.prompt, seed=self.index, **self.sampling)

    def excerpt(self, frames: slice) -> Video:
        """Frames of the true clip."""
        return Video(self.clip.frames[frames], self.fps)

    def run(self, task: tasks.TaskRequest) -> np.ndarray:
        """The frames that the model generates."""
        request, inputs = task
        return self.pipeline.run(request, inputs=inputs).video.frames


@dataclass(frozen=True)
class TimelineTask:
    """A measured task: how its cases are generated and measured."""

    title: str
    num_frames: int
    generate: Callable[[Case], Videos]
    measure: Callable[[Case, Videos, Oracle], Metrics]
    num_cases: int = 50
    """Default number of cases."""
    known: tuple[slice, ...] = ()
    """The frames of the true clip that are given."""
    stays_in_view: bool = False
    is_long: bool = False
    """Whether `long_seconds` sets the length in place of `num_frames`."""


def _extension(direction: Direction) -> TimelineTask:
    is_forward = direction == "forward"
    known = slice(0, KNOWN) if is_forward else slice(NEW, NEW + KNOWN)
    new = slice(KNOWN, KNOWN + NEW) if is_forward else slice(0, NEW)

    def generate(case: Case) -> Videos:
        seconds = NEW / case.fps
        extended = tasks.extend(
            case.request, case.excerpt(known), seconds=seconds, direction=direction, fps=case.fps
        )
        return {"result": case.run(extended)}

    def measure(case: Case, videos: Videos, oracle: Oracle) -> Metrics:
        return _measure_join(case, videos["result"], [known], new, oracle)

    return TimelineTask(f"extend {direction}", KNOWN + NEW, generate, measure, known=(known,))


def _measure_join(
    case: Case, frames: np.ndarray, known: Sequence[slice], new: slice, oracle: Oracle
) -> Metrics:
    asked = case.world.named_slots(case.clip.truth)
    return measure_join(frames, case.clip, known, new, oracle, asked=asked, round_trip=case.round_trip)


def _connection() -> TimelineTask:
    # Of 26 frames, 9 and 9 leave a gap of two latents: the canvas starts with the first clip's image latent,
    # and the gap ends on a latent boundary.
    known = (slice(0, KNOWN), slice(KNOWN + GAP, 2 * KNOWN + GAP))
    new = slice(KNOWN, KNOWN + GAP)

    def generate(case: Case) -> Videos:
        first, second = map(case.excerpt, known)
        connected = tasks.connect(case.request, first, second, seconds=GAP / case.fps, fps=case.fps)
        return {"result": case.run(connected)}

    def measure(case: Case, videos: Videos, oracle: Oracle) -> Metrics:
        return _measure_join(case, videos["result"], known, new, oracle)

    return TimelineTask("connect", 2 * KNOWN + GAP, generate, measure, known=known)


def _loop() -> TimelineTask:
    def generate(case: Case) -> Videos:
        request = replace(case.request, frames=LOOP)
        looped = case.run(tasks.loop(request, fps=case.fps))
        return {"result": looped, "plain": case.run(tasks.TaskRequest(request, {}))}

    def measure(case: Case, videos: Videos, oracle: Oracle) -> Metrics:
        return measure_loop(videos["result"], videos["plain"], case.clip.truth["noun"], oracle)

    return TimelineTask("loop", LOOP, generate, measure)


def _edit() -> TimelineTask:
    def generate(case: Case) -> Videos:
        slot, value = edit_target(case)
        prompt = case.world.caption({**case.clip.truth, slot: value}, "medium")
        edited = tasks.edit(
            replace(case.request, prompt=prompt),
            case.excerpt(slice(0, KNOWN + GAP)),
            strength=1.0,
            region=edit_region(case, slot),
            fps=case.fps,
        )
        return {"result": case.run(edited)}

    def measure(case: Case, videos: Videos, oracle: Oracle) -> Metrics:
        slot, value = edit_target(case)
        region = edit_region(case, slot)
        return measure_edit(videos["result"], case.clip, region, slot, value, oracle, case.fps)

    return TimelineTask("edit region", KNOWN + GAP, generate, measure)


def edit_target(case: Case) -> tuple[str, str]:
    """The slot and value that an edit requests.

    Even cases request another noun that can do the same, odd ones another ground."""
    truth, rng = case.clip.truth, Random(case.index)
    nouns = case.world.foil_values(truth, "noun")
    if case.index % 2 == 0 and nouns:
        return "noun", rng.choice(nouns)
    return "ground", rng.choice(case.world.foil_values(truth, "ground"))


def edit_region(case: Case, slot: str) -> tuple[int, int, int, int]:
    """x, y, width and height in pixels of the edited region.

    It covers the whole path of the object (noun), or everything below the horizon (ground)."""
    _, height, width, _ = case.clip.frames.shape
    truth = case.clip.truth
    if slot == "ground":
        top = min(height - 1, int(truth["horizon"] * height))
        return 0, top, width, height - top

    tracks = {name: np.array(values) * height for name, values in truth["objects"][0]["tracks"].items()}
    half = 0.5 * tracks["size"] + MIN_MARGIN_PX
    left, right = max(0, int((tracks["x"] - half).min())), min(width, int((tracks["x"] + half).max()) + 1)
    top, bottom = max(0, int((tracks["y"] - half).min())), min(height, int((tracks["y"] + half).max()) + 1)
    return left, top, right - left, bottom - top


def _long() -> TimelineTask:
    def request(case: Case) -> Request:
        return replace(case.request, frames=case.num_frames)

    def generate(case: Case) -> Videos:
        result = case.run(tasks.TaskRequest(request(case), {}))
        return {"result": result, "plain": plain_extension(case)}

    def slopes(case: Case, frames: np.ndarray) -> Mapping[str, float]:
        monitor = QualityMonitor(case.pipeline.plan(request(case)), {}, case.pipeline.metrics)
        for _ in monitor.over(iter(frames)):
            pass
        return monitor.report["slopes"]

    def measure(case: Case, videos: Videos, oracle: Oracle) -> Metrics:
        return measure_long(
            videos["result"],
            videos["plain"],
            slopes(case, videos["result"]),
            slopes(case, videos["plain"]),
            case.clip.truth["noun"],
            oracle,
            case.manifest.default_frames,
        )

    return TimelineTask("long", 480, generate, measure, num_cases=5, stays_in_view=True, is_long=True)


def plain_extension(case: Case) -> np.ndarray:
    """A long video made by extending decoded pixels: every extension encodes the last frames again.

    Uint8 (f, h, w, 3).
    """
    window = case.manifest.max_frames
    history = window // 2 // 4 * 4 + 1
    seconds = (window - history) / case.fps

    frames = case.run(tasks.TaskRequest(replace(case.request, frames=window), {}))
    while len(frames) < case.num_frames:
        tail = Video(frames[-history:].copy(), case.fps)
        longer = case.run(tasks.extend(case.request, tail, seconds=seconds, fps=case.fps))
        frames = np.concatenate([frames, longer[history:]])
    return frames[: case.num_frames]


TIMELINE_TASKS = {
    "forward": _extension("forward"),
    "backward": _extension("backward"),
    "connect": _connection(),
    "loop": _loop(),
    "edit": _edit(),
    "long": _long(),
}


def side_by_side(name: str, case: Case, videos: Videos) -> np.ndarray:
    """The videos of a case side by side, uint8 (f, h, w, 3), above a strip that is green for known frames.

    The true clip comes first.

    A loop is repeated once, beside the repeated non-looping video. In the true clip of an edit a frame marks
    the region.
    """
    if name == "loop":
        columns = [np.concatenate([videos[key]] * 2) for key in ("plain", "result")]
    else:
        columns = [case.clip.frames.copy(), *(videos[key] for key in ("result", "plain") if key in videos)]
    if name == "edit":
        x, y, w, h = edit_region(case, edit_target(case)[0])
        for frame in columns[0]:
            cv2.rectangle(frame, (x, y), (x + w - 1, y + h - 1), (255, 255, 255), 1)

    gap = 4
    length, height, width, _ = columns[0].shape
    out = np.full((length, height + gap, len(columns) * (width + gap) - gap, 3), 255, np.uint8)
    for i, frames in enumerate(columns):
        left = i * (width + gap)
        out[:, :height, left : left + width] = frames
    for known in TIMELINE_TASKS[name].known:
        out[known, height:] = (60, 160, 60)

    even_height, even_width = out.shape[1] // 2 * 2, out.shape[2] // 2 * 2
    return out[:, :even_height, :even_width]
