"""Packed tokens that are spread over ranks: Ulysses sequence parallelism (Jacobs et al. 2023).

A rank has consecutive rows of all tokens. For self-attention the ranks exchange rows for heads, so that each
has all rows of some heads. Every other layer works on rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from kinema.errors import RequestError
from kinema.shapes import Float


@dataclass(frozen=True, eq=False)
class Spread:
    """Rows that are spread over the ranks of `group`: rank r has `pieces[r]` of them."""

    group: dist.ProcessGroup
    pieces: tuple[int, ...]
    index: int

    @classmethod
    def of(cls, group: dist.ProcessGroup, num_rows: int) -> "Spread":
        """`num_rows` rows in nearly equal pieces. Raises `RequestError` for fewer rows than ranks."""
        size = group.size()
        if num_rows < size:
            raise RequestError(f"{num_rows} tokens cannot be spread over {size} ranks: use fewer")
        ends = [num_rows * rank // size for rank in range(size + 1)]
        return cls(group, tuple(b - a for a, b in pairwise(ends)), group.rank())

    def own(self, rows: Tensor) -> Tensor:
        """The rows of this rank."""
        return rows.split(self.pieces)[self.index]

    def own_lengths(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """How many rows of each segment this rank has. `lengths` are those of the segments of all rows."""
        first = sum(self.pieces[: self.index])
        last = first + self.pieces[self.index]
        ends = list(accumulate(lengths, initial=0))
        return tuple(max(0, min(b, last) - max(a, first)) for a, b in pairwise(ends))

    def to_heads(self, x: Float[Tensor, "n k dh"]) -> Float[Tensor, "all_n own_k dh"]:
        """All rows of the heads of this rank, from its rows of all heads. The inverse of `to_rows`."""
        size = len(self.pieces)
        n, k, dh = x.shape
        parts = x.view(n, size, k // size, dh).transpose(0, 1).reshape(size * n, k // size, dh)
        return _Exchange.apply(parts, list(self.pieces), [n] * size, self.group)

    def to_rows(self, x: Float[Tensor, "all_n own_k dh"]) -> Float[Tensor, "n k dh"]:
        """The rows of this rank of all heads, from all rows of its heads."""
        size, n = len(self.pieces), self.pieces[self.index]
        parts = _Exchange.apply(x.contiguous(), [n] * size, list(self.pieces), self.group)
        return parts.view(size, n, *x.shape[1:]).transpose(0, 1).reshape(n, -1, x.shape[-1])

    def gather(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "all_n d"]:
        """The rows of all ranks, which compute the same loss from them."""
        return _Gather.apply(rows, self)


class _Exchange(Function):
    """All-to-all of rows: `sent[r]` rows go to rank r, and `received[r]` come from it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, received: list[int], sent: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sizes = (sent, received, group)
        out = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(gradients[0], *ctx.sizes), None, None, None


class _Gather(Function):
    """All-gather of rows. The gradient is that of the sum of the equal losses of all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, spread: Spread) -> Tensor:
        ctx.spread = spread
        padded = rows.new_zeros(max(spread.pieces), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in spread.pieces]
        dist.all_gather(parts, padded, group=spread.group)
        return torch.cat([part[:length] for part, length in zip(parts, spread.pieces)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.spread.own(gradients[0]) * len(ctx.spread.pieces), None
