"""Blending of decoded frames with kept ones: kept pixels replace decoded ones, and the generated frames
beside them are corrected.

A round trip through the VAE changes every pixel slightly, so a cut from a kept frame to a generated one would
be visible as a flash. The generated frames next to a kept one therefore take over the difference between the
kept frame and its decoding, where the picture has not moved since: all of it in the adjacent frame, where
motion hides the join, and linearly less in the next ones.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from kinema.generation.conditioning.encode import KeptFrame

MAX_BLENDED = 4
"""Maximum number of generated frames that are corrected at a join."""
STILL_LEVELS = 80.0
"""Difference in levels of 255 at which a pixel counts as half moved. A lower value separates moving pixels
sooner, and the join shows. Moving the correction along the optical flow is worse: a generated object does not
move as a kept one does."""


def compose(decoded: Iterable[np.ndarray], kept: Mapping[int, KeptFrame]) -> Iterator[np.ndarray]:
    """The frames of the result from decoded ones, uint8 (h, w, 3), in order and in constant memory.

    A frame that is kept whole equals the input bit for bit, as do the pixels of weight 1 of one that is kept
    in part.
    """
    if not kept:
        yield from decoded
        return

    known: dict[int, np.ndarray] = {}
    index = 0
    for index, frame in enumerate(decoded):
        known[index] = frame
        if index >= MAX_BLENDED:
            yield _frame(index - MAX_BLENDED, known, kept)
            known.pop(index - 2 * MAX_BLENDED, None)
    for late in range(max(0, index - MAX_BLENDED + 1), index + 1):
        if late in known:
            yield _frame(late, known, kept)


def _frame(index: int, decoded: Mapping[int, np.ndarray], kept: Mapping[int, KeptFrame]) -> np.ndarray:
    """Frame `index` of the result; `decoded` has its neighbours up to `MAX_BLENDED` away."""
    own = kept.get(index)
    if own is not None and own.is_whole:
        return own.pixels
    if own is not None:
        weight = own.weight[..., None] if isinstance(own.weight, np.ndarray) else own.weight
        mixed = weight * own.pixels.astype(np.float32) + (1 - weight) * decoded[index]
        return np.round(mixed).astype(np.uint8)

    corrections = [_correction(index, step, decoded, kept) for step in (-1, 1)]
    found = [correction for correction in corrections if correction is not None]
    if not found:
        return decoded[index]
    total = max(1.0, sum(fade for fade, _ in found))
    corrected = decoded[index] + sum(fade / total * difference for fade, difference in found)
    return np.clip(np.round(corrected), 0, 255).astype(np.uint8)


def _correction(
    index: int, step: int, decoded: Mapping[int, np.ndarray], kept: Mapping[int, KeptFrame]
) -> tuple[float, np.ndarray] | None:
    """The correction from the next kept frame in direction `step`: its fade, 1 for an adjacent frame, and a
    difference (h, w, 3)."""
    for distance in range(1, MAX_BLENDED + 1):
        neighbour = index + step * distance
        other = kept.get(neighbour)
        if other is None:
            continue
        if not other.is_whole or neighbour not in decoded:
            return None
        difference = other.pixels.astype(np.float32) - decoded[neighbour]
        moved = np.abs(decoded[index].astype(np.float32) - decoded[neighbour]).max(axis=2, keepdims=True)
        return 1 - (distance - 1) / MAX_BLENDED, difference * np.exp2(-((moved / STILL_LEVELS) ** 2))
    return None
