"""A network larger than memory: the weights of its blocks come one block at a time, the next one's while one
works, and go again.
"""

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
    """Blocks that have weights while they are iterated over, and lie on the meta device otherwise.

    `read` gives the weights of a block where it is to work; a thread calls it for the next block while one
    works, so that the weights of two blocks are there at a time. The numbers are those of blocks that stay.
    """

    def __init__(self, blocks: Iterable[nn.Module], read: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__(blocks)
        self.read = read
        self.changes: dict[int, list[tuple[str, Change]]] = {}

    def change(self, name: str, change: Change) -> None:
        """From now on the tensor `name` ("3.mlp.expand.weight") is what `change` makes of it when it comes."""
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
    """`module`, made on the meta device, on `device` with the tensors of `state`; those of the list `blocks`
    inside it are streamed.

    `convert` gives the form in which the tensor of a name is used. On an accelerator the blocks' tensors wait
    in the host's memory; on a CPU they are asked of `state`, which reads them from their files, each time.
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
    left = {name for name, tensor in module.state_dict().items() if tensor.is_meta}
    assert not unexpected, "the tensors are those of the network"
    assert left == streamed, "every tensor has its place"

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
