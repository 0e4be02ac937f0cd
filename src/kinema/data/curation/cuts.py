"""Shot boundaries from small frames. The answer for a frame lags by at most the length of a flash.

A frame that differs much from the previous one is a candidate for the start of a shot. It starts one unless a
frame within `flash_s` looks like the last frame before the change. The measure is that of PySceneDetect's
ContentDetector, which compares neighbouring frames only and therefore cannot reject flashes. Nearly black
frames belong to no shot, so a fade through black separates two shots.

Dissolves are not found, because each of their frames is like its neighbours; `kinema.data.curation.transnet`
finds them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kinema.data.curation import plug_ins
from kinema.data.curation.recipe import CutSettings
from kinema.errors import ConfigError
from kinema.video.scanning import ScannedFrame

BLACK = -1
"""The shot index of frames that belong to no shot."""


@dataclass(frozen=True, eq=False)
class FramePlanes:
    """A small frame with its planes: hue, saturation and value (h, w, 3), and grey (h, w), all uint8."""

    frame: ScannedFrame
    hsv: np.ndarray
    grey: np.ndarray

    @classmethod
    def of(cls, frame: ScannedFrame) -> "FramePlanes":
        """The planes of a frame."""
        hsv = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2HSV)
        return cls(frame, hsv, cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY))

    def grey_only(self) -> "FramePlanes":
        """The same frame with the grey plane alone, in a seventh of the memory."""
        empty = np.empty((0, 0, 3), np.uint8)  # a slice of the planes would keep them in memory
        return FramePlanes(replace(self.frame, pixels=empty), empty, self.grey)

    def is_darker_than(self, share: float) -> bool:
        """Whether the mean grey is below this share (0 to 1) of white."""
        return bool(cv2.mean(self.grey)[0] < 255 * share)


def change(first: FramePlanes, second: FramePlanes) -> float:
    """Mean absolute difference of hue (0 to 179), saturation and value (0 to 255) of two frames of a size."""
    return float(np.mean(cv2.mean(cv2.absdiff(first.hsv, second.hsv))[:3]))


def in_shots(frames: Iterable[ScannedFrame], settings: CutSettings) -> Iterator[tuple[int, FramePlanes]]:
    """Every frame with the index of its shot, counted from 0, or `BLACK`."""
    if settings.function is not None:
        yield from _cut_by_function(frames, settings.function, settings.black)
    elif settings.detector == "none":
        yield from ((0, FramePlanes.of(frame)) for frame in frames)
    else:
        yield from _cut_by_content(frames, settings)


def _cut_by_content(
    frames: Iterable[ScannedFrame], settings: CutSettings
) -> Iterator[tuple[int, FramePlanes]]:
    """Shots by the threshold on `change`, with flashes rejected."""
    shot = -1  # no shot yet
    before: FramePlanes | None = None  # the last frame of the shot; None at the start and after black
    waiting: list[FramePlanes] = []  # frames after a change that may be a flash

    for frame in frames:
        planes = FramePlanes.of(frame)
        is_black = planes.is_darker_than(settings.black)

        if waiting and before is not None:
            is_over = frame.time_s - waiting[0].frame.time_s > settings.flash_s
            if not is_over and not is_black and change(before, planes) < settings.threshold:
                yield from ((shot, held) for held in waiting)  # a flash
                waiting = []
            elif is_over or is_black:
                shot += 1
                yield from ((shot, held) for held in waiting)  # a cut
                before, waiting = waiting[-1], []
            else:
                waiting.append(planes)
                continue

        if is_black:
            before = None
            yield BLACK, planes
        elif before is None:
            shot, before = shot + 1, planes
            yield shot, planes
        elif change(before, planes) >= settings.threshold:
            waiting = [planes]
        else:
            before = planes
            yield shot, planes

    if waiting:
        yield from ((shot + 1, held) for held in waiting)


def _cut_by_function(
    frames: Iterable[ScannedFrame], function: str, black: float
) -> Iterator[tuple[int, FramePlanes]]:
    """Shots by the detector `function`; frames darker than `black` belong to none.

    Raises `ConfigError` unless the detector answers exactly once for every frame.
    """
    waiting: deque[ScannedFrame] = deque()
    rest = iter(frames)

    def pixels() -> Iterator[np.ndarray]:
        for frame in rest:
            waiting.append(frame)
            yield frame.pixels

    shot, is_new = -1, True
    for is_cut in plug_ins.load_function(function)(pixels()):
        if not waiting:
            raise ConfigError(f"the detector '{function}' gives more answers than there are frames")

        planes = FramePlanes.of(waiting.popleft())
        is_black = planes.is_darker_than(black)
        is_new |= bool(is_cut)
        if not is_black and is_new:
            shot, is_new = shot + 1, False
        is_new |= is_black
        yield (BLACK if is_black else shot), planes

    if left := len(waiting) + sum(1 for _ in rest):
        raise ConfigError(f"the detector '{function}' left {left} frames without an answer")
