"""The ranks of a run as values: how many there are, which one this is, and what each of them does."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kinema.errors import ConfigError

EQUAL_COST_TOKENS = 8192
"""Tokens of a clip at which attention costs as much as the matrices. It is 7 * d for a block with an MLP of
width 4 * d, 10,752 for Wan 2.1 1.3B."""


@dataclass(frozen=True)
class ParallelConfig:
    """How a model is spread over the ranks of torchrun. One rank ignores it.

    Weights, average and optimizer state are sharded over `shard` ranks ("auto": those of one machine), and
    `replicate` groups of so many ranks hold copies ("auto": as many as there are). `sequence` consecutive
    ranks share the tokens of the same clips. A rank that does not answer for `timeout_s` seconds ends the
    run. Raises `ConfigError` for values out of range.
    """

    shard: int | Literal["auto"] = "auto"
    replicate: int | Literal["auto"] = "auto"
    sequence: int = 1
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("shard", "replicate", "sequence"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ConfigError(f"parallel.{name} = {value}: use 1 or more")
        if self.timeout_s <= 0:
            raise ConfigError(f"parallel.timeout_s = {self.timeout_s:g} must be positive")


@dataclass(frozen=True)
class Share:
    """The clips of a batch that a rank predicts, one of `num_shares` parts.

    A rank without a clip of its own (`counts` is False) predicts one whose error has no weight, because all
    ranks take part in every forward and backward pass.
    """

    clips: tuple[int, ...]
    num_shares: int = 1
    counts: bool = True


@dataclass(frozen=True)
class Ranks:
    """Rank `index` of `size`, the `local_index`th of its machine, and the sizes of the mesh.

    size = replicate * shard. `sequence` divides size.
    """

    index: int = 0
    size: int = 1
    local_index: int = 0
    shard: int = 1
    replicate: int = 1
    sequence: int = 1

    @classmethod
    def of(cls, config: ParallelConfig) -> "Ranks":
        """The ranks that torchrun's environment variables describe; one rank without them.

        Raises `ConfigError` for a mesh that does not have as many ranks.
        """
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()

        shard, replicate = config.shard, config.replicate
        if shard == "auto":
            local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
            shard = size // replicate if replicate != "auto" else local
        if replicate == "auto":
            replicate = size // shard
        if shard * replicate != size:
            raise ConfigError(
                f"parallel.replicate = {replicate} times parallel.shard = {shard} is not the number of "
                f"ranks, {size}: set both so that they multiply to {size}"
            )
        if size % config.sequence:
            raise ConfigError(
                f"{size} ranks do not divide into groups of parallel.sequence = {config.sequence}: "
                f"use a divisor of {size}"
            )
        index = int(os.environ["RANK"])
        return cls(index, size, int(os.environ.get("LOCAL_RANK", index)), shard, replicate, config.sequence)

    @property
    def is_alone(self) -> bool:
        """Whether there is one rank."""
        return self.size == 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes logs, samples, checkpoints and the export."""
        return self.index == 0

    @property
    def num_shares(self) -> int:
        """The number of parts of a batch. The ranks of a sequence group have the same part."""
        return self.size // self.sequence

    def share(self, num_tokens: Sequence[int]) -> Share:
        """The clips of this rank, from the tokens of every clip of the batch, so that all ranks have equal
        work: the most expensive clip first, each to the share with the least so far."""
        if self.is_alone:
            return Share(tuple(range(len(num_tokens))))

        costs = [tokens * (1 + tokens / EQUAL_COST_TOKENS) for tokens in num_tokens]
        shares: list[list[int]] = [[] for _ in range(self.num_shares)]
        work = [0.0] * self.num_shares
        for clip in sorted(range(len(costs)), key=lambda i: -costs[i]):
            least = work.index(min(work))
            shares[least].append(clip)
            work[least] += costs[clip]

        own = sorted(shares[self.index // self.sequence])
        return Share(tuple(own) or (0,), self.num_shares, bool(own))

    def describe(self) -> str:
        """What is split, sharded and copied, for the first line of a log."""
        copies = f"with {self.replicate} copies" if self.replicate > 1 else "without copies"
        sharded = f"sharded over {self.shard} ranks" if self.shard > 1 else "not sharded"
        sequence = f"; {self.sequence} ranks share the tokens of a clip" if self.sequence > 1 else ""
        return (
            f"{self.size} ranks, {self.num_shares} parts of a batch{sequence}; weights, average and "
            f"optimizer state are {sharded}, {copies}"
        )
