"""The process group of a run: agreement between ranks, waiting for the first, and errors in one line."""

import functools
import itertools
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from kinema.device import CPU
from kinema.distributed.ranks import Ranks
from kinema.errors import KinemaError, TrainingError

LONGEST_WAIT = timedelta(days=1)
"""How long ranks wait for the first one to write a sample, a checkpoint or the export."""
ANSWER_S = 2.0
"""Time in which the ranks that live report to each other after a broken connection."""
BROKEN = ("onnection", "timed out", "Timed out", "timeout", "Broken pipe", "ncclRemoteError", "NCCL error")
"""Parts of the messages of gloo and NCCL when a rank does not answer (PyTorch 2.13)."""


NUMBERS = itertools.count()
"""Numbers of the groups that a process opens one after the other."""


class AnotherRankFailed(KinemaError):
    """A run ends because of an error that another rank reports."""


class Group:
    """The ranks of a run while they are connected. With one rank every method does nothing.

    `step` is the step that an error names.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.step = ranks, 0
        self.mesh: DeviceMesh | None = None
        self.waiting: dist.ProcessGroup | None = None

    @functools.cached_property
    def sequence(self) -> Any:
        """The process group of the ranks that share the tokens of the same clips; None if each has its
        own."""
        size = self.ranks.sequence
        if size == 1:
            return None
        own = None
        for start in range(0, self.ranks.size, size):
            group = dist.new_group(list(range(start, start + size)))
            own = group if start <= self.ranks.index < start + size else own
        return own

    def any(self, flag: bool) -> bool:
        """Whether the flag of any rank is set."""
        if self.ranks.is_alone:
            return flag
        count = torch.tensor(int(flag))
        dist.all_reduce(count)
        return bool(count)

    def mean(self, values: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
        """The mean of every value over all ranks. All ranks have the same names."""
        if self.ranks.is_alone:
            return dict(values)
        names = sorted(values)
        total = torch.stack([torch.as_tensor(values[name]).detach().float().cpu() for name in names])
        dist.all_reduce(total)
        return dict(zip(names, (total / self.ranks.size).unbind()))

    def check_equal(self, value: str, what: str) -> None:
        """Raise `TrainingError` unless `value` is the same on all ranks."""
        if self.ranks.is_alone:
            return
        values: list[str] = [""] * self.ranks.size
        dist.all_gather_object(values, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise TrainingError(
                    f"rank 0 finds {what} {values[0]}, but rank {rank} finds {other}: "
                    "use a run folder that all ranks share"
                )

    def wait(self) -> None:
        """Return when all ranks have called this."""
        if not self.ranks.is_alone:
            dist.barrier(self.waiting)


@contextmanager
def open_group(ranks: Ranks, device: torch.device, timeout_s: float) -> Iterator[Group]:
    """The connected ranks. All of them leave the context together.

    One of them raises the error of a run, the others `AnotherRankFailed`. A rank that does not answer is a
    `TrainingError`.
    """
    if ranks.is_alone:
        yield Group(ranks)
        return

    backend = "gloo"
    if device.type != CPU.type:
        backend = f"{CPU.type}:gloo,{device.type}:{dist.get_default_backend_for_device(device.type)}"
    group = Group(ranks)
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(f"group {next(NUMBERS)}", _store()),
            rank=ranks.index,
            world_size=ranks.size,
            timeout=timedelta(seconds=timeout_s),
        )
        sizes = (ranks.replicate, ranks.shard)
        group.mesh = init_device_mesh(device.type, sizes, mesh_dim_names=("replicate", "shard"))
        group.waiting = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield group
        group.wait()
    except RuntimeError as error:
        if not any(part in str(error) for part in BROKEN):
            raise
        raise TrainingError(_broken(ranks, group.step, error)) from error
    dist.destroy_process_group()


@contextmanager
def one_report(ranks: Ranks) -> Iterator[None]:
    """A context in which only the first rank that fails raises its `KinemaError`, and the others raise
    `AnotherRankFailed`."""
    try:
        yield
    except KinemaError as error:
        if not ranks.is_alone and not _is_first_to_report(ranks.index):
            raise AnotherRankFailed(str(error)) from error
        raise


@functools.cache
def _store() -> dist.Store:
    """The key-value store that torchrun hosts for its workers.

    It outlives them, so that each start of the workers has its own keys: gloo would connect to the addresses
    of the workers before (PyTorch 2.13).
    """
    store, _, _ = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _is_first_to_report(rank: int) -> bool:
    """Whether no other rank has reported an error."""
    name = f"rank {rank}"
    try:
        return _store().compare_set("error", "", name).decode() == name
    except RuntimeError:  # the store is gone with the machine that hosts it
        return True


def _broken(ranks: Ranks, step: int, error: RuntimeError) -> str:
    """Which ranks do not answer any more. SIGTERM, which torchrun sends to the others at once, waits."""
    before, store = signal.signal(signal.SIGTERM, signal.SIG_IGN), _store()
    try:
        store.set(f"alive {ranks.index}", "yes")
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            silent = [rank for rank in range(ranks.size) if not store.check([f"alive {rank}"])]
            if not silent:
                break
            time.sleep(0.1)
    except RuntimeError:
        silent = []
    finally:
        signal.signal(signal.SIGTERM, before)
    who = ", ".join(f"rank {rank}" for rank in silent) or "a connection between the ranks"
    cause = str(error).splitlines()[0].split("] ", 1)[-1].partition(". ")[0]
    return (
        f"{who} failed at step {step + 1} ({cause}): the same command continues the run after its last "
        "checkpoint"
    )
