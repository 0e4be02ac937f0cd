"""Quality of a result without ground truth: transitions, the seam of a loop, and drift over time.

All numbers are measured on the frames while they stream to the file, in constant memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np

from kinema.generation.conditioning.encode import KeptFrame
from kinema.generation.conditioning.layout import frames_of
from kinema.generation.plan import Plan
from kinema.models.clip import CLIP
from kinema.models.pixels import from_uint8
from kinema.shapes import UInt8

FrameMetric = Callable[[np.ndarray, str], float | str]
"""A model's answer for frames (f, h, w, 3) and their prompt: a number that drift would change, or a word."""

MOTION_FLOOR = 0.25
"""Mean change from frame to frame, in levels of 255, below which a video counts as frozen."""

ROW_PX, WORD_ROW_PX, TIME_AXIS_PX, PLOT_WIDTH_PX = 110, 32, 30, 640
"""Sizes of the plot: height of a row of numbers, of a row of words and of the time axis, and width."""
DPI = 100
UNITS = {
    "red": "0-255",
    "green": "0-255",
    "blue": "0-255",
    "contrast": "std, 0-255",
    "sharpness": "var. of Laplacian",
    "clip_similarity": "-1 to 1",
}
"""Unit or range of the metrics that every report has."""


class Segment(NamedTuple):
    """Frames `first` to `stop` - 1 of the result, which one window generated, and their prompt."""

    first: int
    stop: int
    prompt: str


def neighbour_error(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Mean absolute difference of two frames, in levels of 255."""
    return float(cv2.absdiff(a, b).mean())


def sharpness(frame: UInt8[np.ndarray, "h w 3"]) -> float:
    """Variance of the Laplacian of the grey frame (Pech-Pacheco et al. 2000). It falls when a frame blurs."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def similarity(clip: CLIP, frames: UInt8[np.ndarray, "f h w 3"], prompt: str) -> float:
    """The similarity of frames and a prompt by `clip`, -1 to 1."""
    device = next(clip.parameters()).device
    return float(clip.similarity(from_uint8([frames]).to(device), [prompt]).item())


def shown_object(clip: CLIP, frames: UInt8[np.ndarray, "f h w 3"], objects: Sequence[str]) -> str | None:
    """The object that frames are most like by a CLIP. None without objects."""
    return max(objects, key=lambda name: similarity(clip, frames, name), default=None)


class QualityMonitor:
    """Measures a result while its frames stream through `over`."""

    def __init__(self, plan: Plan, kept: Mapping[int, KeptFrame], metrics: Mapping[str, FrameMetric]) -> None:
        self.plan, self.metrics = plan, metrics
        self.errors: list[float] = []
        self.windows: list[dict[str, Any]] = []
        self.loop_error: float | None = None
        self.segments = _segments(plan)

        is_kept = [index in kept and kept[index].is_whole for index in range(plan.frames)]
        changes = {i for i in range(1, plan.frames) if is_kept[i] != is_kept[i - 1]}
        self.joins = sorted(changes | {segment.first for segment in self.segments[1:]})

    def over(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """`frames`, unchanged; every frame is measured before it is yielded."""
        first: np.ndarray | None = None
        previous: np.ndarray | None = None
        pending: list[np.ndarray] = []
        segments = list(self.segments)

        for index, frame in enumerate(frames):
            if previous is None or first is None:
                first = frame
            else:
                self.errors.append(neighbour_error(previous, frame))
            previous = frame

            if len(self.segments) > 1:
                pending.append(frame)
                if index + 1 == segments[0].stop:
                    self._measure(np.stack(pending), segments.pop(0))
                    pending = []
            yield frame

        if self.plan.request.loop and first is not None and previous is not None:
            self.loop_error = neighbour_error(previous, first)

    @property
    def report(self) -> dict[str, Any]:
        """Plain JSON.

        `joins`: the change between the two frames of each join, in levels, and its ratio to the median change
        of all other frames. A loop adds `loop`. A result of several windows adds `windows`, the metrics of
        each window, and `slopes`, the change per second of each numeric metric.
        """
        others = [error for index, error in enumerate(self.errors, start=1) if index not in self.joins]
        median = float(np.median(others)) if others else 0.0
        report: dict[str, Any] = {
            "median_error": round(median, 3),
            "is_frozen": bool(others) and float(np.mean(others)) < MOTION_FLOOR,
            "joins": [
                {
                    "frame": index,
                    "seconds": index / self.plan.fps,
                    "error": round(error, 3),
                    "ratio": round(error / max(median, 1e-3), 2),
                }
                for index, error in enumerate(self.errors, start=1)
                if index in self.joins
            ],
        }

        if self.loop_error is not None:
            loop = {
                "seam": self.loop_error,
                "median": median,
                "largest": max(self.errors),
                "motion": float(np.mean(self.errors)),
            }
            report["loop"] = {name: round(value, 3) for name, value in loop.items()}

        if self.windows:
            report |= {"windows": self.windows, "slopes": _slopes(self.windows)}
        return report

    def _measure(self, frames: np.ndarray, segment: Segment) -> None:
        red, green, blue = frames.reshape(-1, 3).mean(axis=0)
        values = {
            "red": red,
            "green": green,
            "blue": blue,
            "contrast": frames.std(),
            "sharpness": np.mean([sharpness(frame) for frame in frames]),
        }
        if segment.prompt:
            values |= {name: metric(frames, segment.prompt) for name, metric in self.metrics.items()}

        plain = {
            name: value if isinstance(value, str) else round(float(value), 4)
            for name, value in values.items()
        }
        times = {"from_s": segment.first / self.plan.fps, "to_s": segment.stop / self.plan.fps}
        self.windows.append({**times, "prompt": segment.prompt, **plain})


def summary(report: Mapping[str, Any]) -> str:
    """One line for the user. Empty if the report has nothing to mention."""
    lines = []
    if "loop" in report:
        loop = report["loop"]
        lines.append(
            f"loop seam {loop['seam']:g} levels (between other frames: median {loop['median']:g}, "
            f"maximum {loop['largest']:g})"
        )
    if report["joins"]:
        worst = max(report["joins"], key=lambda join: join["error"])
        lines.append(
            f"{len(report['joins'])} transitions, the worst at {worst['seconds']:g} s "
            f"with {worst['ratio']:g} times the median change"
        )
    for name, words in _words(report).items():
        lines.append(f"{name} '{words[0]}' in {words.count(words[0])} of {len(words)} windows")
    if report["is_frozen"]:
        lines.append("almost no motion")
    return "; ".join(lines)


def plot_quality(report: Mapping[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
    """The metrics of a report's windows over time: one row of axes per number, one row of labels per metric
    that gives words.

    Titles state the slope. A word is written where it changes. The report must have `windows`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    windows, slopes, words = report["windows"], report["slopes"], _words(report)
    heights = [*[ROW_PX] * len(slopes), *[WORD_ROW_PX] * len(words)]
    total_px = sum(heights) + TIME_AXIS_PX
    times = [(window["from_s"] + window["to_s"]) / 2 for window in windows]

    figure = Figure(figsize=(PLOT_WIDTH_PX / DPI, total_px / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights),
        1,
        height_ratios=heights,
        hspace=0.75,
        left=0.16,
        right=0.97,
        top=1 - 22 / total_px,
        bottom=42 / total_px,
    )
    shared = None
    for row, name in enumerate([*slopes, *words]):
        axes = figure.add_subplot(grid[row], sharex=shared)
        shared = shared or axes
        axes.tick_params(labelsize=7, labelbottom=row == len(heights) - 1)
        axes.set_xlim(0, windows[-1]["to_s"])
        if name in slopes:
            _plot_numbers(axes, name, times, [window[name] for window in windows], slopes[name])
        else:
            _plot_words(axes, name, times, words[name])
    axes.set_xlabel("time (s)", fontsize=8)

    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _plot_numbers(axes: Any, name: str, times: list[float], values: list[float], slope: float) -> None:
    axes.plot(times, values, marker="o", markersize=2.5, linewidth=1.2, color="#1f5fbf")
    axes.set_title(f"{name}, {slope:+.2g} per second", fontsize=8, loc="left", pad=3)
    axes.set_ylabel(UNITS.get(name, ""), fontsize=7)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.locator_params(axis="y", nbins=4)
    axes.ticklabel_format(axis="y", useOffset=False)


def _plot_words(axes: Any, name: str, times: list[float], words: list[str]) -> None:
    axes.set_ylabel(name, fontsize=7)
    axes.set_yticks([])
    changes = [0, *(i for i, (a, b) in enumerate(pairwise(words), 1) if a != b)]
    for i in changes:
        axes.axvline(times[i], color="#1f5fbf", linewidth=0.8)
        axes.text(times[i], 0.5, f" {words[i]}", fontsize=7, va="center", clip_on=True)


def _words(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """The metrics that give words, with their words window by window."""
    windows = report.get("windows", [])
    if not windows:
        return {}
    names = [name for name, value in windows[0].items() if isinstance(value, str) and name != "prompt"]
    return {name: [window[name] for window in windows] for name in names}


def _slopes(windows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The change per second of each numeric metric, by least squares over the middles of the windows."""
    middles = [(window["from_s"] + window["to_s"]) / 2 for window in windows]
    slopes = {}
    for name, first in windows[0].items():
        if name not in ("from_s", "to_s") and not isinstance(first, str):
            slopes[name] = _slope(middles, [window[name] for window in windows])
    return slopes


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Change of `y` per unit of `x`, by least squares."""
    return round(float(np.polyfit(x, y, 1)[0]), 6) if len(x) > 1 else 0.0


def _segments(plan: Plan) -> list[Segment]:
    """The result's frames, cut where a new window begins, with their prompts. One window: one segment."""
    windows = plan.windows if len(plan.windows) > 1 else []
    firsts = sorted({_frame_of(plan, window.new_first) for window in windows} | {0})
    stops = [*firsts[1:], plan.frames]
    starts = [(_frame_of(plan, latent), prompt) for latent, prompt in plan.prompts]

    segments = []
    for first, stop in zip(firsts, stops):
        if first < stop:
            prompt = [text for start, text in starts if start <= first][-1]
            segments.append(Segment(first, stop, prompt))
    return segments


def _frame_of(plan: Plan, latent: int) -> int:
    """The first frame of the result that a latent frame of the canvas holds."""
    return max(0, frames_of(latent, plan.temporal_factor)[0] - plan.canvas_first)
