"""Batches as pure functions of (seed, step): the data position of a run is one integer.

There is no shuffling state, so a run resumes at any step, with any number of workers, with the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, Any]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from all parts; equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))


def torch_rng(*parts: int | str) -> torch.Generator:
    """A torch generator on the CPU, seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class Steps(Dataset[Batch]):
    """The batches of a run by step number."""

    def __init__(self, make: Callable[[int], Batch]):
        self.make = make

    def __getitem__(self, step: int) -> Batch:
        return self.make(step)


def batches(make: Callable[[int], Batch], start: int, stop: int, *, num_workers: int = 0) -> Iterator[Batch]:
    """The batches of steps start..stop-1 in order, prepared by `num_workers` processes (0: in this one)."""
    loader = DataLoader(Steps(make), batch_size=None, sampler=range(start, stop), num_workers=num_workers)
    return iter(loader)
