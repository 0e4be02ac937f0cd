"""The requests of a batch, each with its clips, its job folder and its file."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from kinema.errors import KinemaError, RequestError
from kinema.generation.conditioning.clips import Inputs
from kinema.generation.conditioning.encode import KeptFrame, describe_inputs
from kinema.generation.job import Job, SamplingState
from kinema.generation.output.decode import FrameSink
from kinema.generation.output.quality import QualityMonitor
from kinema.generation.plan import Plan, batch_fields
from kinema.generation.request import Request
from kinema.generation.result import Failure, Phase, Step
from kinema.shapes import Float


@dataclass(frozen=True, eq=False)
class BatchItem:
    """A request of a batch."""

    request: Request
    inputs: Inputs = field(default_factory=dict)
    """The clips and pictures that the request's conditions name."""
    path: Path | None = None
    """The file that the video is written to while it is decoded."""
    job: Path | None = None
    """The job folder, from which an interrupted run can be continued."""
    is_continued: bool = False
    """Whether the job folder already holds the request, and perhaps a state to continue from."""

    @classmethod
    def of_job(cls, folder: Path, *, path: Path | None = None) -> "BatchItem":
        """The request in a job folder. Raises `RequestError` if the folder is no job, or damaged."""
        job = Job(folder)
        request = job.request()
        return cls(request, job.inputs(request), path, folder, is_continued=True)


class ItemRun:
    """A request of a batch while it is generated; a context manager that keeps the status of its job."""

    def __init__(self, index: int, item: BatchItem, plan: Plan, model_hash: str) -> None:
        self.index, self.item, self.plan, self.model_hash = index, item, plan, model_hash
        self.notes = describe_inputs(plan, item.inputs)
        self.job = None if item.job is None else Job(item.job)
        self.kept: dict[int, KeptFrame] = {}
        self.state = SamplingState()
        self.cache_counts: dict[str, int] = {}
        self.is_failed = False
        self.start_s = self.phase_start_s = time.perf_counter()
        self._record: Callable[[Step], None] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "ItemRun":
        if self.job is not None:
            if not self.item.is_continued:
                self.job.save_request(self.plan.request, self.item.inputs)
            self._record = self._stack.enter_context(self.job.running())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def begin_decoding(self, sink: FrameSink, monitor: QualityMonitor) -> None:
        """Begin to decode into `sink`, which is closed before the job ends."""
        self.sink, self.monitor = self._stack.enter_context(sink), monitor
        self.phase_start_s = time.perf_counter()

    def close(self) -> None:
        """End the run: the file is complete and the job is done."""
        self._stack.close()

    def fail(self, error: KinemaError) -> Failure:
        """End the run by an error, which the status of the job states. Its file is removed."""
        self.is_failed = True
        self._stack.__exit__(type(error), error, error.__traceback__)
        return Failure(error, self.index)

    def step(self, phase: Phase, index: int, total: int, x0: Tensor | None = None) -> Step:
        """The report of a unit of work, which is recorded in the job."""
        has_cache = phase == "sample" and self.plan.request.cache is not None
        num_computed = self.state.cache.num_computed if has_cache else None
        if num_computed is not None:
            self.cache_counts = {"computed": num_computed, "steps": total}

        seconds = time.perf_counter() - self.phase_start_s
        step = Step(phase, index, total, seconds, x0, num_computed, self.index)
        if self._record is not None:
            self._record(step)
        return step

    def load_state(self) -> None:
        """Continue from the state in the job folder, if any. Raises `RequestError` for another model's."""
        if self.job is not None:
            self.state = self.job.state(model_hash=self.model_hash) or self.state

    def save_state(self) -> None:
        """Write the state of sampling to the job folder."""
        if self.job is not None and not self.is_failed:
            self.job.save_state(self.state, model_hash=self.model_hash)

    @property
    def is_sampled(self) -> bool:
        """Whether the job holds the latents of the result."""
        return self.job is not None and self.job.is_sampled

    @property
    def latents(self) -> Float[Tensor, "1 c lf lh lw"]:
        """The latents of the result, after sampling."""
        assert self.state.latents is not None, "the run is sampled"
        return self.state.latents

    def load_latents(self) -> None:
        """Read the latents from the job folder. Raises `RequestError` for another model's."""
        assert self.job is not None
        self.state.latents = self.job.latents(model_hash=self.model_hash).unsqueeze(0)

    def save_latents(self) -> None:
        """Write the latents of the result to the job folder."""
        if self.job is not None and not self.is_failed:
            self.job.save_latents(self.latents[0], model_hash=self.model_hash)

    def is_finite(self) -> bool:
        """Whether the latest sample is finite."""
        return self.state.x is None or bool(torch.isfinite(self.state.x).all())


def check_batch(plans: Sequence[Plan]) -> None:
    """Raise `RequestError` unless all plans have one `batch_key`."""
    if not plans:
        raise RequestError("a batch needs at least one request")
    first = batch_fields(plans[0])
    for number, plan in enumerate(plans[1:], start=2):
        fields = batch_fields(plan)
        differing = [name for name in first if fields[name] != first[name]]
        if differing:
            name = differing[0]
            raise RequestError(
                f"request {number} cannot be in one batch with request 1, because they differ in "
                f"{', '.join(differing)} ({name}: {fields[name]} and {first[name]}): run it by itself"
            )
