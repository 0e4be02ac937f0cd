"""Runs the function of a step over work items in child processes. No file can stop the build.

Each item has a deadline. A child that misses the deadline is killed; a child that dies (FFmpeg may crash)
loses only its own item. Both give an outcome with a reason. Children end when their parent ends, in whatever
way it ends.
"""

import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from kinema.errors import KinemaError

StepFunction = Callable[[Mapping[str, Any]], dict[str, Any]]
"""The part of a step that runs in a child: plain arguments in, a plain result out."""

ITEMS_PER_CHILD = 200
"""A child is replaced after this many items, which bounds what a leak can cost."""
PRELOADED = [
    "av",
    "kinema.data.curation.steps.analyze",
    "kinema.data.curation.steps.encode",
    "kinema.models.vae_conditioning",
    "kinema.checkpoints.components",
]
"""Modules imported once, in the process from which the children are forked."""
START_S = 60.0
"""Seconds that a child may take to start and import, in addition to the deadline of its first item."""


@dataclass(frozen=True)
class WorkItem:
    """The arguments of a step function, the key of the outcome, and the seconds that it may take."""

    key: str
    arguments: Mapping[str, Any]
    deadline_s: float


@dataclass(frozen=True)
class WorkOutcome:
    """The result of a work item, or None and the reason of the failure. `seconds` is CPU time."""

    key: str
    result: dict[str, Any] | None
    reason: str
    seconds: float


class Engine(Protocol):
    """Runs a step function over work items, in any order."""

    def run(self, function: StepFunction, items: Iterable[WorkItem]) -> Iterator[WorkOutcome]:
        """One outcome for every item."""


class Pool:
    """An engine with `num_workers` child processes on this machine."""

    def __init__(self, num_workers: int = 1) -> None:
        self.num_workers = num_workers

    def run(self, function: StepFunction, items: Iterable[WorkItem]) -> Iterator[WorkOutcome]:
        """One outcome for every item, in order of completion. Closing the iterator ends the children."""
        waiting = iter(items)
        children: list[_Child] = []
        try:
            while True:
                self._start_items(function, waiting, children)
                busy = [child for child in children if child.item is not None]
                if not busy:
                    return

                next_deadline_s = max(0.0, min(child.end for child in busy) - time.monotonic())
                ready = wait([child.pipe for child in busy], timeout=next_deadline_s)

                for child in busy:
                    if child.pipe in ready or child.is_late:
                        outcome = child.finish()
                        if child.is_spent:
                            child.close()
                            children.remove(child)
                        yield outcome
        finally:
            for child in children:
                child.close()

    def _start_items(
        self, function: StepFunction, waiting: Iterator[WorkItem], children: "list[_Child]"
    ) -> None:
        """Give every idle worker an item, and start workers up to `num_workers`."""
        for _ in range(self.num_workers - sum(child.item is not None for child in children)):
            item = next(waiting, None)
            if item is None:
                return

            idle = next((child for child in children if child.item is None), None)
            if idle is None:
                idle = _Child(function)
                children.append(idle)
            idle.start(item)


def run_in_child(function: StepFunction, item: WorkItem) -> WorkOutcome:
    """The outcome of one item, run in a child of its own."""
    return next(iter(Pool(1).run(function, [item])))


class _Child:
    """One process that runs one item after another."""

    def __init__(self, function: StepFunction) -> None:
        context: Any = mp.get_context("forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn")
        context.set_forkserver_preload(PRELOADED)
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, function), daemon=True)
        self.process.start()
        other.close()
        self.item: WorkItem | None = None
        self.num_done = 0
        self.end = 0.0
        self.is_broken = False

    def start(self, item: WorkItem) -> None:
        """Send an item to the process. A process that has died is reported by `finish`."""
        self.item = item
        self.end = time.monotonic() + item.deadline_s + (START_S if not self.num_done else 0)
        try:
            self.pipe.send(item)
        except OSError:
            self.is_broken = True

    @property
    def is_late(self) -> bool:
        """Whether the deadline of the current item has passed."""
        return time.monotonic() >= self.end

    @property
    def is_spent(self) -> bool:
        """Whether the process is gone or has run `ITEMS_PER_CHILD` items."""
        return self.is_broken or self.num_done >= ITEMS_PER_CHILD

    def finish(self) -> WorkOutcome:
        """The outcome of the current item. Raises what the child raised outside of the step function."""
        item, self.item = self.item, None
        assert item is not None, "finish() is called for a child that has an item"
        self.num_done += 1

        try:
            if self.is_late and not self.pipe.poll():
                self.is_broken = True
                reason = f"took longer than its deadline of {item.deadline_s:.0f} s"
                return WorkOutcome(item.key, None, reason, item.deadline_s)
            outcome: WorkOutcome | BaseException = self.pipe.recv()
        except (EOFError, OSError):
            self.is_broken = True
            self.process.join(5)
            return WorkOutcome(item.key, None, _death(self.process.exitcode), 0.0)

        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _death(code: int | None) -> str:
    """How the process ended, from its exit code."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process that read it was killed by {name}{hint}"
    return f"the process that read it ended with code {code}"


def _serve(pipe: Connection, function: StepFunction) -> None:
    """The main loop of a child: run items from the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # FFmpeg prints about odd files; the reasons contain its errors
    os.dup2(null, 2)

    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(attempt(function, item))
        except (BrokenPipeError, ConnectionError):
            return
        except BaseException as error:
            pipe.send(error)


def attempt(function: StepFunction, item: WorkItem) -> WorkOutcome:
    """The outcome of an item in this process. Raises ImportError if a package is not installed.

    Every other exception is attributed to the file, because an odd file can make any library raise anything.
    A bug of our own fails for every file, and then the error budget stops the build.
    """
    started = time.process_time()
    result, reason = None, ""
    try:
        result = function(item.arguments)
    except ImportError:
        raise
    except Exception as error:
        reason = _reason(error, str(item.arguments.get("path", "")))
    return WorkOutcome(item.key, result, reason, time.process_time() - started)


def _reason(error: Exception, path: str) -> str:
    """The message of an error as one line without the path, which the report shows beside it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text if isinstance(error, KinemaError | OSError) else f"{type(error).__name__}: {text}"
    text = " ".join(text.split()).replace(f"cannot read {path}: ", "").replace(path, "the file")
    text = text.removesuffix("; allow_damaged=True reads what is left")
    return text or type(error).__name__


@contextmanager
def one_thread() -> Iterator[None]:
    """Sets PyTorch to one thread, so that sums do not depend on the number of processes; restores the old
    value.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
