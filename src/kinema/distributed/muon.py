"""Work on whole matrices whose rows are sharded: each rank owns some of the matrices."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def on_whole_matrices(
    function: Callable[[Tensor], Tensor], shards: Sequence[Tensor], example: DTensor
) -> list[Tensor]:
    """`function` of matrices of one shape, of which this rank has the rows `shards`; its rows of the results.

    `function` maps (m, rows, columns) to the same shape, one matrix at a time. `example` is a parameter with
    the sharding of all of them. Every rank computes 1 / size of the matrices, and receives and sends each of
    its rows once (as Moonlight's Muon, Liu et al. 2025).
    """
    mesh = example.device_mesh
    replicate, shard = mesh.get_group("replicate"), mesh.get_group("shard")
    copies, copy_index = mesh.size(0), mesh.get_local_rank("replicate")
    owners, owner_index = mesh.size(1), mesh.get_local_rank("shard")

    total = len(example)
    height = -(-total // owners)  # of all shards but the last ones, as torch.chunk cuts
    heights = [min(height, max(0, total - rank * height)) for rank in range(owners)]

    turns = [list(range(copy, len(shards), copies)) for copy in range(copies)]
    mine = turns[copy_index]
    owned = [mine[rank::owners] for rank in range(owners)]
    sent = [_stack([shards[i] for i in own], shards[0]) for own in owned]
    num_own = len(owned[owner_index])
    received = [shards[0].new_empty(num_own, rows, *shards[0].shape[1:]) for rows in heights]
    _exchange(received, sent, shard)

    whole = torch.cat(received, dim=1)
    done = function(whole).to(whole.dtype) if num_own else whole
    returned = [torch.empty_like(rows) for rows in sent]
    _exchange(returned, [rows.contiguous() for rows in done.split(heights, dim=1)], shard)

    results = list(shards)
    rows = _stack([row for own in returned for row in own], shards[0])
    order = [i for own in owned for i in own]
    rows = rows[torch.tensor(order, device=rows.device).argsort()] if order else rows
    for turn, part in zip(turns, _all_gather(rows, len(turns[0]), replicate, copies), strict=True):
        for i, matrix in zip(turn, part):
            results[i] = matrix
    return results


def _stack(matrices: Sequence[Tensor], like: Tensor) -> Tensor:
    """The matrices (m, rows, columns); m may be 0."""
    return torch.stack(list(matrices)) if matrices else like.new_empty(0, *like.shape)


def _exchange(received: list[Tensor], sent: list[Tensor], group: dist.ProcessGroup) -> None:
    """Send `sent[r]` to rank r and fill `received[r]` with what it sends."""
    buffer = sent[0].new_empty(sum(part.numel() for part in received))
    sizes = [part.numel() for part in received]
    dist.all_to_all_single(
        buffer,
        torch.cat([part.flatten() for part in sent]),
        sizes,
        [part.numel() for part in sent],
        group=group,
    )
    for part, values in zip(received, buffer.split(sizes)):
        part.copy_(values.view_as(part))


def _all_gather(rows: Tensor, most: int, group: dist.ProcessGroup, size: int) -> list[Tensor]:
    """The rows of every rank of the group, each padded to `most` entries."""
    if size == 1:
        return [rows]
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded, group=group)
    return parts
