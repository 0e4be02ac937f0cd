"""From decoded frames to the result's: kept pixels take their place, and what is generated beside them is joined to them.

A network's round trip changes every pixel a little, so a cut from a kept frame to a generated one would show as a flash. The few
generated frames next to a kept one therefore take over the kept frame's difference from its own decoding, where the picture has not
moved since: all of it in the frame beside the kept one, whose join has the motion of two models to hide already, and then evenly less.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from kinema.generation.conditioning.encode import KeptFrame

BLENDED = 4
"""Most generated frames at a join that are blended."""
STILL_LEVELS = 80.0
"""Difference in levels, of 255, at which a pixel counts as half moved. With less, what moved is told apart sooner and the join shows;
carrying the correction along by optical flow is worse, for a generated object does not move as a known one does."""


def compose(decoded: Iterable[np.ndarray], kept: Mapping[int, KeptFrame]) -> Iterator[np.ndarray]:
    """The frames of the result from decoded ones, uint8 (h, w, 3), in order and in constant memory.

    A frame that is kept whole is the input's, bit for bit; so are the pixels of weight 1 of one kept in part.
    """
    if not kept:
        yield from decoded
        return
    known: dict[int, np.ndarray] = {}
    index = 0
    for index, frame in enumerate(decoded):
        known[index] = frame
        if index >= BLENDED:
            yield _frame(index - BLENDED, known, kept)
            known.pop(index - 2 * BLENDED, None)
    for late in range(max(0, index - BLENDED + 1), index + 1):
        if late in known:
            yield _frame(late, known, kept)


def _frame(index: int, decoded: Mapping[int, np.ndarray], kept: Mapping[int, KeptFrame]) -> np.ndarray:
    own = kept.get(index)
    if own is not None and own.is_whole:
        return own.pixels
    if own is not None:
        weight = own.weight[..., None] if isinstance(own.weight, np.ndarray) else own.weight
        return np.round(weight * own.pixels.astype(np.float32) + (1 - weight) * decoded[index]).astype(
            np.uint8
        )
    sides = [_correction(index, step, decoded, kept) for step in (-1, 1)]
    found = [side for side in sides if side is not None]
    if not found:
        return decoded[index]
    total = max(1.0, sum(fade for fade, _ in found))
    corrected = decoded[index] + sum(fade / total * difference for fade, difference in found)
    return np.clip(np.round(corrected), 0, 255).astype(np.uint8)


def _correction(
    index: int, step: int, decoded: Mapping[int, np.ndarray], kept: Mapping[int, KeptFrame]
) -> tuple[float, np.ndarray] | None:
    """How near the next kept frame in that direction is, and its difference from its decoding where nothing has moved since."""
    for distance in range(1, BLENDED + 1):
        beside = index + step * distance
        other = kept.get(beside)
        if other is None:
            continue
        if not other.is_whole or beside not in decoded:
            return None
        difference = other.pixels.astype(np.float32) - decoded[beside]
        moved = np.abs(decoded[index].astype(np.float32) - decoded[beside]).max(axis=2, keepdims=True)
        return 1 - (distance - 1) / BLENDED, difference * np.exp2(-((moved / STILL_LEVELS) ** 2))
    return None
