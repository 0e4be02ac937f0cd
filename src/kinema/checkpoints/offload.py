"""Networks larger than memory: one block's weights are loaded at a time, the next's during computation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from kinema.device import CPU, Copier

M = TypeVar("M", bound=nn.Module)
Change = Callable[[Tensor], Tensor]


class StreamedBlocks(nn.ModuleList):
    """Blocks that have weights during iteration and are on the meta device otherwise.

    `read` returns the weights of a block on the device of the computation. A thread calls it for the next
    block while one computes, so that the weights of two blocks are in memory. The results equal those of
    resident blocks.
    """

    def __init__(self, blocks: Iterable[nn.Module], read: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__(blocks)
        self.read = read
        self.changes: dict[int, list[tuple[str, Change]]] = {}

    def change(self, name: str, change: Change) -> None:
        """From now on apply `change` to the tensor `name` ("3.mlp.expand.weight") each time it is read."""
        index, _, rest = name.partition(".")
        self.changes.setdefault(int(index), []).append((rest, change))

    def __iter__(self) -> Iterator[nn.Module]:
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.read, 0)
            for i, block in enumerate(super().__iter__()):
                state, without = coming.result(), block.state_dict()
                if i + 1 < len(self):
                    coming = reader.submit(self.read, i + 1)
                for name, change in self.changes.get(i, ()):
                    state[name] = change(state[name])
                block.load_state_dict(state, strict=True, assign=True)
                del state
                try:
                    yield block
                finally:
                    block.load_state_dict(without, strict=True, assign=True)


def with_streamed_blocks(
    module: M,
    blocks: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    convert: Callable[[str, Tensor], Tensor],
) -> M:
    """`module` on `device` with the tensors of `state`; the blocks of its list `blocks` are streamed.

    `module` is built on the meta device. `convert` maps the name and tensor of the state to the tensor that
    is used. On an accelerator the tensors of the blocks wait in host memory; on a CPU they are read from
    `state`, that is from their files, each time.
    """
    inside: dict[int, dict[str, str]] = {}
    for name in state:
        if name.startswith(f"{blocks}."):
            index, _, rest = name.removeprefix(f"{blocks}.").partition(".")
            inside.setdefault(int(index), {})[rest] = name
    streamed = {name for names in inside.values() for name in names.values()}
    resident = {name: convert(name, state[name]).to(device) for name in state if name not in streamed}
    _, unexpected = module.load_state_dict(resident, strict=False, assign=True)
    inner = module.get_submodule(blocks)
    missing = {name for name, tensor in module.state_dict().items() if tensor.is_meta}
    assert not unexpected, "the state has only tensors of the network"
    assert missing == streamed, "the state has every tensor of the network"

    def from_state(i: int) -> dict[str, Tensor]:
        return {rest: convert(name, state[name]) for rest, name in inside[i].items()}

    read: Callable[[int], dict[str, Tensor]] = from_state
    if device.type != CPU.type:
        copier = Copier(device)
        read = partial(_copied, copier, [copier.hold(from_state(i)) for i in range(len(inside))])
    assert isinstance(inner, nn.ModuleList), f"{blocks} is a list of blocks"
    module.set_submodule(blocks, StreamedBlocks(inner, read))
    return module.eval()


def _copied(copier: Copier, waiting: Sequence[Mapping[str, Tensor]], i: int) -> dict[str, Tensor]:
    return copier.copy(waiting[i])
