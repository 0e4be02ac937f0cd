"""Clips that show the same: a hash finds candidates, thumbnails decide.

The hash of the middle frame (64 bits) is nearly invariant to scaling and compression. Two clips with similar
hashes are duplicates if no cell of their three 16 x 16 thumbnails differs much: a small object at another
position changes a cell, compression does not. Clips of one shot are never duplicates of each other. Each pair
costs one comparison of 64 bits: 5e9 comparisons for 100,000 clips.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kinema.data.curation.recipe import DedupSettings


@dataclass(frozen=True)
class ClipSignature:
    """What `duplicates` compares: `hash` and `thumbnails` of `Scores`, and an id of the clip's shot."""

    clip_id: str
    shot: str
    hash: str
    thumbnails: str


class ClipEmbedding(NamedTuple):
    """What `look_alikes` compares: a unit vector (d,) per clip, and the clip's file."""

    clip_id: str
    source_id: str
    embedding: np.ndarray


def duplicates(clips: Sequence[ClipSignature], settings: DedupSettings) -> Iterator[tuple[str, str]]:
    """(clip_id, clip_id of the earlier clip that it repeats). `clips` are in falling order of preference."""
    if settings.max_bits < 0:
        return

    hashes = np.array([int(clip.hash, 16) for clip in clips], dtype=np.uint64)
    is_kept = np.zeros(len(clips), dtype=bool)
    for index, clip in enumerate(clips):
        num_bits = np.bitwise_count(hashes[:index] ^ hashes[index])
        near = np.flatnonzero(is_kept[:index] & (num_bits <= settings.max_bits)).tolist()
        repeated = next((clips[i] for i in near if _is_same(clips[i], clip, settings)), None)
        if repeated is None:
            is_kept[index] = True
        else:
            yield clip.clip_id, repeated.clip_id


def _is_same(first: ClipSignature, second: ClipSignature, settings: DedupSettings) -> bool:
    return first.shot != second.shot and difference(first, second) <= settings.max_difference


def difference(first: ClipSignature, second: ClipSignature) -> float:
    """The largest difference between cells of the thumbnails of two clips, 0 to 255."""
    cells = [
        np.frombuffer(base64.b64decode(clip.thumbnails), dtype=np.uint8).astype(np.int16)
        for clip in (first, second)
    ]
    return float(np.abs(cells[0] - cells[1]).max())


def look_alikes(clips: Sequence[ClipEmbedding], max_cosine: float) -> Iterator[tuple[str, str, float]]:
    """(clip_id, clip_id of the earlier clip of another file that it resembles, their cosine above
    `max_cosine`).

    `clips` are in falling order of preference. Each pair costs one product of two vectors.
    """
    kept: list[ClipEmbedding] = []
    for clip in clips:
        others = [other for other in kept if other.source_id != clip.source_id]
        cosines = np.array([other.embedding for other in others]) @ clip.embedding if others else np.zeros(0)
        if len(cosines) and cosines.max() > max_cosine:
            best = int(cosines.argmax())
            yield clip.clip_id, others[best].clip_id, float(cosines[best])
        else:
            kept.append(clip)
