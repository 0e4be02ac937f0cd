"""Packs clips of any size and length into batches of at most a given number of tokens.

Attention over packed tokens is block-diagonal, so a batch needs no padding and costs what its tokens cost. An
epoch is a permutation of the clips, cut into batches. Batch i of epoch e is a pure function of (seed, e), so
a run resumes from one integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from kinema.config import check_range
from kinema.data.seeds import numpy_rng
from kinema.errors import DataError

WINDOW = 1024
"""Clips of the permutation that are packed together. More fill the batches better; fewer keep them more
random.
"""
EPOCHS_HELD = 4


@dataclass(frozen=True)
class PackConfig:
    """Largest number of `tokens` per batch. "pack" mixes clips of all sizes; "bucket" uses one size and
    length per batch.
    """

    tokens: int = 2048
    mode: Literal["pack", "bucket"] = "pack"

    def __post_init__(self) -> None:
        check_range(self, ("tokens",), 1)


class Packing:
    """The batches of a data set. `tokens[i]` is the number of tokens of clip i and `shapes[i]` its bucket."""

    def __init__(
        self, tokens: Sequence[int], shapes: Sequence[tuple[int, ...]], config: PackConfig, seed: int
    ) -> None:
        self.tokens, self.shapes, self.config, self.seed = np.asarray(tokens), list(shapes), config, seed
        self.used = np.flatnonzero(self.tokens <= config.tokens)
        self.ends: list[int] = []  # number of batches up to the end of each epoch
        self.epoch = lru_cache(maxsize=EPOCHS_HELD)(self._epoch)
        if not len(self.used):
            smallest = int(self.tokens.min()) if len(self.tokens) else 0
            raise DataError(
                f"no clip fits into a batch of {config.tokens} tokens (the smallest has {smallest}): "
                "raise pack.tokens"
            )

    def batch(self, step: int) -> list[int]:
        """The indices of the clips of a step; steps are counted over all epochs."""
        while not self.ends or step >= self.ends[-1]:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(self.epoch(len(self.ends))))
        epoch = int(np.searchsorted(self.ends, step, side="right"))
        return self.epoch(epoch)[step - (self.ends[epoch - 1] if epoch else 0)]

    def table(self) -> list[str]:
        """Lines to print before training: clips used and left out, shapes, and how full the batches are."""
        left_out = len(self.tokens) - len(self.used)
        batches = self.epoch(0)
        filled = self.tokens[self.used].sum() / (len(batches) * self.config.tokens)
        lines = [
            f"{len(self.tokens)} clips in, {left_out} left out"
            + (f": more than {self.config.tokens} tokens" if left_out else "")
        ]
        counts: dict[tuple[int, ...], int] = {}
        for index in self.used:
            counts[self.shapes[index]] = counts.get(self.shapes[index], 0) + 1
        lines += [
            f"  {count:>6} of {' x '.join(map(str, shape))} latents"
            for shape, count in sorted(counts.items())
        ]
        sizes = [len(batch) for batch in batches]
        lines.append(
            f"{len(batches)} batches an epoch of up to {self.config.tokens} tokens ({self.config.mode}), "
            f"{min(sizes)} to {max(sizes)} clips each, {filled:.1%} full"
        )
        return lines

    def _epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch in order. Every clip that fits is in exactly one."""
        rng = numpy_rng(self.seed, "epoch", epoch)
        order = rng.permutation(self.used)
        batches = self._buckets(order) if self.config.mode == "bucket" else self._packs(order)
        return [batches[i] for i in rng.permutation(len(batches))]

    def _buckets(self, order: np.ndarray) -> list[list[int]]:
        """Batches of one shape each. The last batch of a shape may be partly full."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index in order:
            by_shape.setdefault(self.shapes[index], []).append(int(index))
        batches = []
        for indices in by_shape.values():
            size = self.config.tokens // int(self.tokens[indices[0]])
            batches += [indices[first : first + size] for first in range(0, len(indices), size)]
        return batches

    def _packs(self, order: np.ndarray) -> list[list[int]]:
        """First-fit decreasing within windows of the permutation. The emptiest batch of a window moves to the
        next one.
        """
        batches: list[list[int]] = []
        carried: list[int] = []
        for first in range(0, len(order), WINDOW):
            window = carried + [int(i) for i in order[first : first + WINDOW]]
            packs: list[list[int]] = []
            room: list[int] = []
            for index in sorted(
                window, key=lambda i: -self.tokens[i]
            ):  # equal lengths stay in the order of the permutation
                size = int(self.tokens[index])
                at = next((i for i, free in enumerate(room) if free >= size), None)
                if at is None:
                    packs.append([])
                    room.append(self.config.tokens)
                    at = len(packs) - 1
                packs[at].append(index)
                room[at] -= size
            carried = []
            if first + WINDOW < len(order):
                carried = packs.pop(int(np.argmax(room)))
            batches += packs
        return batches
