"""Batches as pure functions of (seed, step): the whole data position of a run is one integer.

Nothing is shuffled and nothing is remembered, so a run resumes at any step, on any number of workers, with the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, Any]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: equal parts give the equal seed on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """A numpy generator that belongs to these parts."""
    return np.random.default_rng(derive_seed(*parts))


def torch_rng(*parts: int | str) -> torch.Generator:
    """A torch generator on the CPU that belongs to these parts."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class Steps(Dataset[Batch]):
    """The batches of a run by step number."""

    def __init__(self, make: Callable[[int], Batch]):
        self.make = make

    def __getitem__(self, step: int) -> Batch:
        return self.make(step)


def batches(make: Callable[[int], Batch], start: int, stop: int, *, num_workers: int = 0) -> Iterator[Batch]:
    """The batches of steps start..stop-1 in order, made ahead by `num_workers` processes (0: made in this one)."""
    loader = DataLoader(Steps(make), batch_size=None, sampler=range(start, stop), num_workers=num_workers)
    return iter(loader)
