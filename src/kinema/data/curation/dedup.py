"""Which clips show the same thing: a hash finds candidates, a thumbnail decides.

The hash of the middle frame (64 bits) stays nearly the same through scaling and compression. Two clips whose hashes are near are the
same when no cell of their three 16 x 16 thumbnails differs much: a small thing that is elsewhere changes a cell, compression does not.
Clips of one shot are never duplicates of each other. The cost is one comparison of 64 bits for each pair: 5e9 for 100,000 clips.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.data.curation.recipe import Dedup


@dataclass(frozen=True)
class Seen:
    """What deduplication wants to know of a clip."""

    clip_id: str
    shot: str
    hash: str
    thumbnails: str


def duplicates(clips: Sequence[Seen], config: Dedup) -> Iterator[tuple[str, str]]:
    """(clip, the earlier clip that it repeats); `clips` come in the order in which they are to be preferred."""
    if config.max_bits < 0:
        return
    hashes = np.array([int(clip.hash, 16) for clip in clips], dtype=np.uint64)
    is_kept = np.zeros(len(clips), dtype=bool)
    for index, clip in enumerate(clips):
        near = np.flatnonzero(
            is_kept[:index] & (np.bitwise_count(hashes[:index] ^ hashes[index]) <= config.max_bits)
        ).tolist()
        first = next(
            (
                i
                for i in near
                if clips[i].shot != clip.shot and difference(clips[i], clip) <= config.max_difference
            ),
            None,
        )
        if first is None:
            is_kept[index] = True
        else:
            yield clip.clip_id, clips[first].clip_id


def difference(first: Seen, second: Seen) -> float:
    """The largest difference of a cell of the thumbnails of two clips, 0 to 255."""
    cells = [
        np.frombuffer(base64.b64decode(seen.thumbnails), dtype=np.uint8).astype(np.int16)
        for seen in (first, second)
    ]
    return float(np.abs(cells[0] - cells[1]).max())


def look_alikes(
    clips: Sequence[tuple[str, str, np.ndarray]], most: float
) -> Iterator[tuple[str, str, float]]:
    """(clip, the earlier clip of another file that it repeats, their cosine).

    `clips` are (clip, file, unit embedding), in the order in which they are to be preferred. The cost is one product of two vectors for
    each pair of clips.
    """
    kept: list[int] = []
    for index, (clip_id, source_id, embedding) in enumerate(clips):
        others = [i for i in kept if clips[i][1] != source_id]
        cosines = np.array([clips[i][2] for i in others]) @ embedding if others else np.zeros(0)
        if len(cosines) and cosines.max() > most:
            best = int(cosines.argmax())
            yield clip_id, clips[others[best]][0], float(cosines[best])
        else:
            kept.append(index)
