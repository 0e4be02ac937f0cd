"""Where one shot ends and the next begins, from small frames as they come; the answer lags by the length of a flash.

A frame that differs much from the one before may begin a shot. It does unless a frame within `flash_s` looks again like the last one
before the change. The measure is that of PySceneDetect's ContentDetector; comparing with a frame that is not the one before is what its
detectors cannot do. Frames that are nearly black belong to no shot, so a fade through black separates two.

Not found: dissolves, whose every frame is like its neighbours; `kinema.data.curation.transnet` finds them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from kinema.data.curation import plug_ins
from kinema.data.curation.recipe import Cuts
from kinema.errors import ConfigError
from kinema.video.scanning import ScannedFrame

BLACK = -1
"""The shot of frames that belong to none."""


@dataclass(frozen=True, eq=False)
class Look:
    """A small frame as the measures want it: hue, saturation and value, and grey, all uint8."""

    frame: ScannedFrame
    hsv: np.ndarray
    grey: np.ndarray

    @classmethod
    def of(cls, frame: ScannedFrame) -> "Look":
        """The planes of a frame."""
        return cls(
            frame,
            cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2HSV),
            cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY),
        )


def change(first: Look, second: Look) -> float:
    """Mean absolute difference of hue (0 to 179), saturation and value (0 to 255) of two frames of one size."""
    return float(np.mean(cv2.mean(cv2.absdiff(first.hsv, second.hsv))[:3]))


def in_shots(frames: Iterable[ScannedFrame], cuts: Cuts) -> Iterator[tuple[int, Look]]:
    """Every frame with the number of its shot, counted from 0, or `BLACK`."""
    if cuts.function is not None:
        yield from _as_said(frames, cuts.function, cuts.black)
        return
    shot = -1  # no shot yet
    before: Look | None = None  # the last frame of the shot, None at the start and after black
    waiting: list[Look] = []  # frames after a change that may yet turn out to be a flash
    for frame in frames:
        look = Look.of(frame)
        if cuts.detector == "none":
            yield 0, look
            continue
        is_black = cv2.mean(look.grey)[0] < 255 * cuts.black
        if waiting and before is not None:
            is_over = frame.time_s - waiting[0].frame.time_s > cuts.flash_s
            if not is_over and not is_black and change(before, look) < cuts.threshold:
                yield from ((shot, held) for held in waiting)
                waiting = []
            elif is_over or is_black:
                shot += 1
                yield from ((shot, held) for held in waiting)
                before, waiting = waiting[-1], []
            else:
                waiting.append(look)
                continue
        if is_black:
            before = None
            yield BLACK, look
        elif before is None:
            shot, before = shot + 1, look
            yield shot, look
        elif change(before, look) >= cuts.threshold:
            waiting = [look]
        else:
            before = look
            yield shot, look
    if waiting:
        yield from ((shot + 1, held) for held in waiting)


def _as_said(frames: Iterable[ScannedFrame], function: str, black: float) -> Iterator[tuple[int, Look]]:
    """Every frame with its shot, as the detector `function` cuts them; frames darker than `black` belong to none."""
    waiting: deque[ScannedFrame] = deque()
    rest = iter(frames)

    def pixels() -> Iterator[np.ndarray]:
        for frame in rest:
            waiting.append(frame)
            yield frame.pixels

    shot, is_new = -1, True
    for is_cut in plug_ins.load(function)(pixels()):
        if not waiting:
            raise ConfigError(f"the detector '{function}' gives more answers than there are frames")
        look = Look.of(waiting.popleft())
        is_black = cv2.mean(look.grey)[0] < 255 * black
        is_new |= bool(is_cut)
        if not is_black and is_new:
            shot, is_new = shot + 1, False
        is_new |= is_black
        yield (BLACK if is_black else shot), look
    if left := len(waiting) + sum(1 for _ in rest):
        raise ConfigError(f"the detector '{function}' left {left} frames without an answer")
