"""Tasks in, outcomes out: a stage runs in child processes, each task with a deadline, and no file can stop the rest.

A child that is silent past the deadline of its task is killed; one that dies (FFmpeg may) takes only its own task with it. Both become
an outcome with a reason. Children end when their parent does, however it ends.
"""

import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from kinema.errors import KinemaError

Stage = Callable[[Mapping[str, Any]], dict[str, Any]]

TASKS_PER_CHILD = 200
"""A child is replaced after so many tasks, whatever it may have leaked."""
PRELOADED = ["av", "kinema.data.curation.stages", "kinema.models.vae_conditioning", "kinema.checkpoints.folders"]
"""Imported once, in the process that children are forked from."""
START_S = 60.0
"""What a child may take to start and import, beyond the deadline of its first task."""


@dataclass(frozen=True)
class Job:
    """A task with the key that its outcome carries and the seconds it may take."""

    key: str
    task: Mapping[str, Any]
    deadline_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a result, or the reason why there is none. `seconds` is the processor time of the child."""

    key: str
    result: dict[str, Any] | None
    reason: str
    seconds: float


class Engine(Protocol):
    """Something that runs a stage over jobs, in any order."""

    def run(self, stage: Stage, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """An outcome for every job."""


class Pool:
    """`num_workers` child processes on this machine."""

    def __init__(self, num_workers: int = 1) -> None:
        self.num_workers = num_workers

    def run(self, stage: Stage, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """An outcome for every job, as they are done. Children are ended when the iterator is closed."""
        waiting = iter(jobs)
        children: list[_Child] = []
        try:
            while True:
                for _ in range(self.num_workers - sum(child.job is not None for child in children)):
                    job = next(waiting, None)
                    if job is None:
                        break
                    idle = next((child for child in children if child.job is None), None)
                    if idle is None:
                        idle = _Child(stage)
                        children.append(idle)
                    idle.start(job)
                busy = [child for child in children if child.job is not None]
                if not busy:
                    return
                ready = wait(
                    [child.pipe for child in busy],
                    timeout=max(0.0, min(child.end for child in busy) - time.monotonic()),
                )
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


def run_in_child(stage: Stage, job: Job) -> Outcome:
    """The outcome of one job in a child of its own."""
    return next(iter(Pool(1).run(stage, [job])))


class _Child:
    """One process that does one task after another."""

    def __init__(self, stage: Stage) -> None:
        context: Any = mp.get_context("forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn")
        context.set_forkserver_preload(PRELOADED)
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, stage), daemon=True)
        self.process.start()
        other.close()
        self.job: Job | None = None
        self.num_done = 0
        self.end = 0.0
        self.is_broken = False

    def start(self, job: Job) -> None:
        self.job = job
        self.end = time.monotonic() + job.deadline_s + (START_S if not self.num_done else 0)
        try:
            self.pipe.send(job)
        except OSError:  # it has died between two tasks: finish() says how
            self.is_broken = True

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.end

    @property
    def is_spent(self) -> bool:
        """Whether the process is gone, or has done enough."""
        return self.is_broken or self.num_done >= TASKS_PER_CHILD

    def finish(self) -> Outcome:
        job, self.job = self.job, None
        assert job is not None, "finish() is called for a child that has a job"
        self.num_done += 1
        try:
            if self.is_late and not self.pipe.poll():
                self.is_broken = True
                return Outcome(
                    job.key, None, f"took longer than its deadline of {job.deadline_s:.0f} s", job.deadline_s
                )
            outcome: Outcome | BaseException = self.pipe.recv()
        except (EOFError, OSError):
            self.is_broken = True
            self.process.join(5)
            return Outcome(job.key, None, _death(self.process.exitcode), 0.0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"the process that read it was killed by {name}" + (
            " (out of memory?)" if name == "SIGKILL" else ""
        )
    return f"the process that read it ended with code {code}"


def _serve(pipe: Connection, stage: Stage) -> None:
    """The life of a child: jobs from the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what FFmpeg says of odd files is in the reasons
    os.dup2(null, 2)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(attempt(stage, job))
        except (BrokenPipeError, ConnectionError):
            return
        except BaseException as error:
            pipe.send(error)


def attempt(stage: Stage, job: Job) -> Outcome:
    """The outcome of a job in this process. Raises `ImportError` when something is not installed; all else is taken for the file's fault.

    An odd file can make any library raise anything. A fault of our own meets every file, and then the error budget stops the build.
    """
    started = time.process_time()
    result, reason = None, ""
    try:
        result = stage(job.task)
    except ImportError:
        raise
    except Exception as error:
        reason = _said(error, str(job.task.get("path", "")))
    return Outcome(job.key, result, reason, time.process_time() - started)


def _said(error: Exception, path: str) -> str:
    """The message of an error as a reason: one line, without the path that stands beside it anyway."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text if isinstance(error, KinemaError | OSError) else f"{type(error).__name__}: {text}"
    text = " ".join(text.split()).replace(f"cannot read {path}: ", "").replace(path, "the file")
    text = text.removesuffix("; allow_damaged=True reads what is left")
    return text or type(error).__name__
