"""What can be said of a result without knowing the truth: how its joins and its loop close, and whether it drifts.

The numbers are taken while the frames pass on their way to the file, in constant memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from kinema.generation.conditioning.encode import KeptFrame
from kinema.generation.conditioning.layout import frames_of
from kinema.generation.request import Plan

Judge = Callable[[np.ndarray, str], float | str]
"""What a model makes of frames (f, h, w, 3) and the prompt that they should show: a number that drift would change, or a word."""

MOTION_FLOOR = 0.25
"""Mean change from frame to frame, in levels of 255, below which a video counts as frozen."""
WORDS_PX = 32
"""Height of a row of words in the plot."""


def neighbour_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two frames, in levels of 255."""
    return float(cv2.absdiff(a, b).mean())


def sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000): falls when a picture blurs."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


class Watch:
    """Takes the numbers of a result from its frames."""

    def __init__(self, plan: Plan, kept: Mapping[int, KeptFrame], judges: Mapping[str, Judge]) -> None:
        self.plan, self.judges = plan, judges
        self.errors: list[float] = []
        self.windows: list[dict[str, Any]] = []
        self.loop_error: float | None = None
        self.parts = _parts(plan)
        whole = [index in kept and kept[index].is_whole for index in range(plan.frames)]
        changes = {i for i in range(1, plan.frames) if whole[i] != whole[i - 1]}
        self.joins = sorted(changes | {first for first, _, _ in self.parts[1:]})

    def over(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """`frames`, looked at as they pass."""
        first: np.ndarray | None = None
        before: np.ndarray | None = None
        held: list[np.ndarray] = []
        parts = list(self.parts)
        for index, frame in enumerate(frames):
            if before is None or first is None:
                first = frame
            else:
                self.errors.append(neighbour_error(before, frame))
            before = frame
            if len(self.parts) > 1:
                held.append(frame)
                if index + 1 == parts[0][1]:
                    self._judge(np.stack(held), *parts.pop(0))
                    held = []
            yield frame
        if self.plan.request.loop and first is not None and before is not None:
            self.loop_error = neighbour_error(before, first)

    @property
    def report(self) -> dict[str, Any]:
        """Plain JSON. `joins`: the change from frame to frame at each, in levels, and its ratio to the median of all others.

        A loop has `loop`, a result of several windows `windows` and `slopes`, the change a second of each of their numbers that is no word.
        """
        others = [error for index, error in enumerate(self.errors, start=1) if index not in self.joins]
        median = float(np.median(others)) if others else 0.0
        report: dict[str, Any] = {
            "median_error": round(median, 3),
            "is_frozen": bool(others) and float(np.mean(others)) < MOTION_FLOOR,
        }
        report["joins"] = [
            {
                "frame": at,
                "seconds": at / self.plan.fps,
                "error": round(error, 3),
                "ratio": round(error / max(median, 1e-3), 2),
            }
            for at, error in enumerate(self.errors, start=1)
            if at in self.joins
        ]
        if self.loop_error is not None:
            loop = {
                "seam": self.loop_error,
                "median": median,
                "largest": max(self.errors),
                "motion": float(np.mean(self.errors)),
            }
            report["loop"] = {name: round(value, 3) for name, value in loop.items()}
        if self.windows:
            middles = [(window["from_s"] + window["to_s"]) / 2 for window in self.windows]
            names = [name for name in self.windows[0] if name not in ("from_s", "to_s", "prompt")]
            values = {name: [window[name] for window in self.windows] for name in names}
            slopes = {
                name: _slope(middles, values[name]) for name in names if not isinstance(values[name][0], str)
            }
            report |= {"windows": self.windows, "slopes": slopes}
        return report

    def _judge(self, frames: np.ndarray, first: int, stop: int, prompt: str) -> None:
        red, green, blue = frames.reshape(-1, 3).mean(axis=0)
        numbers = {
            "red": red,
            "green": green,
            "blue": blue,
            "contrast": frames.std(),
            "sharpness": np.mean([sharpness(f) for f in frames]),
        }
        numbers |= {name: judge(frames, prompt) for name, judge in self.judges.items()} if prompt else {}
        plain = {
            name: value if isinstance(value, str) else round(float(value), 4)
            for name, value in numbers.items()
        }
        self.windows.append(
            {"from_s": first / self.plan.fps, "to_s": stop / self.plan.fps, "prompt": prompt, **plain}
        )


def summary(report: Mapping[str, Any]) -> str:
    """One line for the user; empty when there is nothing to say."""
    parts = []
    if "loop" in report:
        loop = report["loop"]
        parts.append(
            f"loop seam {loop['seam']:g} levels, between other frames {loop['median']:g} in the median and {loop['largest']:g} at most"
        )
    if report["joins"]:
        worst = max(report["joins"], key=lambda join: join["error"])
        parts.append(
            f"{len(report['joins'])} joins, the worst at {worst['seconds']:g} s with {worst['ratio']:g} times the median change"
        )
    for name, words in _words(report).items():
        parts.append(f"{name} '{words[0]}' in {words.count(words[0])} of {len(words)} windows")
    if report["is_frozen"]:
        parts.append("hardly anything moves")
    return "; ".join(parts)


def _words(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the judges that answer in words said, window by window."""
    windows = report.get("windows", [])
    names = (
        [name for name, value in windows[0].items() if isinstance(value, str) and name != "prompt"]
        if windows
        else []
    )
    return {name: [window[name] for window in windows] for name in names}


def plot(report: Mapping[str, Any], *, width_px: int = 640, row_px: int = 110) -> np.ndarray:
    """The windows' numbers over time as a picture, uint8 (h, w, 3): a row for each, with its range and its slope.

    What is said in words is written where it changes.
    """
    windows, slopes = report["windows"], report["slopes"]
    left, right, ink, line = 130, 16, (34, 34, 40), (31, 95, 191)
    words = _words(report)
    picture = np.full((row_px * len(slopes) + WORDS_PX * len(words) + 30, width_px, 3), 255, np.uint8)
    end_s = windows[-1]["to_s"]
    places = [
        left + round((width_px - left - right) * (w["from_s"] + w["to_s"]) / 2 / end_s) for w in windows
    ]

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)

    for row, (name, slope) in enumerate(slopes.items()):
        top, bottom = row * row_px + 16, (row + 1) * row_px - 8
        values = [window[name] for window in windows]
        low, high = min(values), max(values)
        heights = [bottom - round((bottom - top) * (value - low) / ((high - low) or 1)) for value in values]
        cv2.rectangle(picture, (left, top), (width_px - right, bottom), (220, 220, 224), 1)
        cv2.polylines(picture, [np.array(list(zip(places, heights)), np.int32)], False, line, 2, cv2.LINE_AA)
        write(name, 8, top + 12)
        write(f"{low:.4g} to {high:.4g}", 8, top + 30)
        write(f"{slope:+.2g} a second", 8, top + 48)
    for row, (name, said) in enumerate(words.items()):
        middle = row_px * len(slopes) + WORDS_PX * row + WORDS_PX // 2
        write(name, 8, middle)
        changes = [0, *(i for i, (a, b) in enumerate(pairwise(said), 1) if a != b)]
        free = 0
        for i in changes:
            cv2.line(picture, (places[i], middle + 4), (places[i], middle + 9), line, 2)
            if places[i] >= free:  # words that would cover each other are left out: the JSON has them all
                write(said[i], places[i], middle)
                free = places[i] + 8 * len(said[i])
    write("0 s", left, picture.shape[0] - 8)
    write(f"{end_s:g} s", width_px - right - 40, picture.shape[0] - 8)
    return picture


def _parts(plan: Plan) -> list[tuple[int, int, str]]:
    """The result's frames from join to join of its windows, each part with its prompt; one part for what is made in one window."""
    windows = plan.windows if len(plan.windows) > 1 else []
    firsts = sorted(
        {max(0, frames_of(w.new_first, plan.temporal_factor)[0] - plan.canvas_first) for w in windows} | {0}
    )
    stops = [*firsts[1:], plan.frames]
    starts = [
        (max(0, frames_of(latent, plan.temporal_factor)[0] - plan.canvas_first), prompt)
        for latent, prompt in plan.prompts
    ]
    return [(a, b, [prompt for at, prompt in starts if at <= a][-1]) for a, b in zip(firsts, stops) if a < b]


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Change of `y` for one of `x`, by least squares."""
    return round(float(np.polyfit(x, y, 1)[0]), 6) if len(x) > 1 else 0.0
