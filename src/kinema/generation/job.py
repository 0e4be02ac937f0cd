"""A job: the folder that holds a request, its inputs, the state of its sampling, its latents before they are
decoded, and its status for other processes."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.diffusion.samplers import SamplerStep
from kinema.diffusion.step_cache import CacheState
from kinema.errors import KinemaError, RequestError
from kinema.files import atomic_file, output_errors
from kinema.generation.conditioning.clips import Inputs, content_hash
from kinema.generation.request import Request
from kinema.generation.result import Phase, Step
from kinema.shapes import Float
from kinema.video import Video

REQUEST = "request.json"
LATENTS = "latents.safetensors"
STATE = "state.safetensors"
STATUS = "status.json"
INPUTS = "inputs"
STATUS_EVERY_S = 0.5
"""Shortest time between two updates of the status within a phase."""

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class JobStatus:
    """The state and progress of a job. Times are Unix times in seconds.

    A process that was killed leaves the state "running" with an old `updated_s`. A job that is cancelled or
    failed can be continued.
    """

    state: State = "queued"
    phase: Phase | None = None
    """The phase of the last step. None before the first one."""
    step: int = 0
    """Steps of the phase that are done."""
    total: int = 0
    """Steps of the phase."""
    started_s: float | None = None
    """The start of the last run."""
    updated_s: float | None = None
    error: str | None = None
    """One line. None unless the job failed."""


@dataclass(eq=False)
class SamplingState:
    """The state of the sampling of one clip: with the request and its inputs, everything that the remaining
    steps depend on. Updated in place."""

    window: int = 0
    """The current window. Earlier ones are done."""
    latents: Tensor | None = None
    """Latents of the whole canvas with the finished windows. None before the first window is done."""
    x: Tensor | None = None
    """The window's sample after `next_step` steps. None before the first step."""
    next_step: int = 0
    memory: list[Tensor] = field(default_factory=list)
    """Tensors of earlier steps that the sampler's next step needs (`SamplerStep.memory`)."""
    cache: CacheState = field(default_factory=CacheState)
    """Earlier estimates for forecasts. Its counts are over all windows."""

    def finish_step(self, step: SamplerStep, row: int) -> None:
        """Record a step of the sampler, in which this clip is `row` of the batch."""
        self.x, self.next_step = step.x[row : row + 1], step.i + 1
        self.memory = [tensor[row : row + 1] for tensor in step.memory]

    def finish_window(self, latents: Float[Tensor, "1 c lf lh lw"]) -> None:
        """Record the end of a window, with the latents of the whole canvas."""
        self.window, self.latents = self.window + 1, latents
        self.x, self.next_step, self.memory, self.cache = None, 0, [], self.cache.next_canvas()


@dataclass(frozen=True)
class Job:
    """A folder with `inputs/`, `request.json`, `status.json`, and `state.safetensors` while sampling or
    `latents.safetensors` after it.

    Every file is written atomically. `request.json` is written last: a folder without it is not a job. A copy
    of a job without its `status.json` is a queued job that continues from the same state.
    """

    folder: Path

    def save_request(self, request: Request, inputs: Inputs | None = None) -> None:
        """Make this folder a queued job of `request`, in place of an earlier one.

        Raises `OutputError` if the folder cannot be written.
        """
        self._delete(REQUEST, LATENTS, STATE, STATUS)
        for media, video in (inputs or {}).items():
            content = {"frames": torch.from_numpy(np.ascontiguousarray(video.frames))}
            save = functools.partial(save_file, content, metadata={"fps": repr(video.fps)})
            _write(self._input_file(media), save)
        _write_text(self.folder / REQUEST, request.to_json())

    def replace_request(self, request: Request) -> None:
        """Queue this job again for `request`, which has the same inputs. Raises `OutputError`."""
        self._delete(LATENTS, STATE, STATUS)
        _write_text(self.folder / REQUEST, request.to_json())

    def _delete(self, *names: str) -> None:
        for name in names:
            with output_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def status(self) -> JobStatus:
        """The state and progress, which another process may be writing; "queued" before the first run.

        Raises `RequestError` if the folder is not a job or its status is damaged.
        """
        path = self.folder / STATUS
        if not path.is_file():
            self.request()
            return JobStatus()
        try:
            return JobStatus(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RequestError(f"{path} is damaged ({error}): continue the job to write it again") from None

    @contextmanager
    def running(self) -> Iterator[Callable[[Step], None]]:
        """A function that records a step in the status. The status also records how the body ends.

        An exception that is no `Exception` (a closed iterator, KeyboardInterrupt) cancels the job. Raises
        `OutputError` if the status cannot be written.
        """
        status, written_s = JobStatus("running", started_s=time.time()), time.time()
        self._write_status(status)

        def record(step: Step) -> None:
            nonlocal status, written_s
            is_due = step.phase != status.phase or time.time() - written_s >= STATUS_EVERY_S
            status = replace(status, phase=step.phase, step=step.index + 1, total=step.total)
            if is_due:
                written_s = time.time()
                self._write_status(status)

        try:
            yield record
        except Exception as error:
            self._write_status(replace(status, state="failed", error=_one_line(error)))
            raise
        except BaseException:
            self._write_status(replace(status, state="cancelled"))
            raise
        self._write_status(replace(status, state="done"))

    def _write_status(self, status: JobStatus) -> None:
        values = asdict(replace(status, updated_s=time.time()))
        _write_text(self.folder / STATUS, json.dumps(values, ensure_ascii=False))

    def request(self) -> Request:
        """The request of this job. Raises `RequestError` if the folder has none."""
        try:
            text = (self.folder / REQUEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{self.folder} is not the folder of a job: {error}") from None
        return Request.from_json(text)

    def inputs(self, request: Request) -> dict[str, Video]:
        """The clips that the request names. Raises `RequestError` if one is missing, damaged or another."""
        names: set[str] = set()
        for condition in request.conditions:
            names |= {media for media in (condition.media, condition.mask) if media is not None}
        return {media: self._read_input(media) for media in names}

    def _read_input(self, media: str) -> Video:
        path = self._input_file(media)
        try:
            with safe_open(path, framework="pt") as file:
                video = Video(file.get_tensor("frames").numpy().copy(), float(file.metadata()["fps"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RequestError(
                f"{path} is missing or damaged ({error}): start the job again with its input files"
            ) from None
        if content_hash(video) != media:
            raise RequestError(
                f"{path} is not the clip that the request names: start the job again with its input files"
            )
        return video

    def _input_file(self, media: str) -> Path:
        return self.folder / INPUTS / f"{media}.safetensors"

    def save_state(self, state: SamplingState, *, model_hash: str) -> None:
        """Write the sampling state. Raises `OutputError`."""
        named = {"latents": state.latents, "x": state.x}
        tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
        tensors |= {f"memory.{i}": tensor for i, tensor in enumerate(state.memory)}
        tensors |= {f"cache.{i}": tensor for i, tensor in enumerate(state.cache.tensors)}
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

        counts = {
            "window": state.window,
            "next_step": state.next_step,
            "memory": len(state.memory),
            "cache": {name: value for name, value in vars(state.cache).items() if name != "tensors"},
        }
        metadata = {"model_hash": model_hash, "counts": json.dumps(counts)}
        _write(self.folder / STATE, lambda path: save_file(content, path, metadata=metadata))

    def state(self, *, model_hash: str) -> SamplingState | None:
        """The saved sampling state, or None before the first save. Raises `RequestError` if it is damaged or
        another model's."""
        path = self.folder / STATE
        if not path.is_file():
            return None

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, it is no dict
            counts = json.loads(metadata["counts"])
            memory = [tensors[f"memory.{i}"] for i in range(counts["memory"])]
            forecasts = [tensors[f"cache.{i}"] for i in range(len(counts["cache"]["times"]))]
            state = SamplingState(
                counts["window"],
                tensors.get("latents"),
                tensors.get("x"),
                counts["next_step"],
                memory,
                CacheState(**counts["cache"], tensors=forecasts),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{path} is damaged ({error}): delete it to start the job again") from None

        if metadata.get("model_hash") != model_hash:
            raise RequestError(
                f"{path} was made by model {metadata.get('model_hash')}, not by {model_hash}: load that "
                "model to continue it"
            )
        return state

    @property
    def is_sampled(self) -> bool:
        """Whether the latents are complete and only need decoding."""
        return (self.folder / LATENTS).is_file()

    def save_latents(self, latents: Float[Tensor, "c lf lh lw"], *, model_hash: str) -> None:
        """Write the clean latents with their model's hash, and delete the state. Raises `OutputError`."""
        content = {"latents": latents.cpu().contiguous()}
        metadata = {"model_hash": model_hash}
        _write(self.folder / LATENTS, lambda path: save_file(content, path, metadata=metadata))
        (self.folder / STATE).unlink(missing_ok=True)

    def latents(self, *, model_hash: str) -> Float[Tensor, "c lf lh lw"]:
        """The latents of this job. Raises `RequestError` if they are not complete or another model's."""
        path = self.folder / LATENTS
        if not path.is_file():
            raise RequestError(
                f"{self.folder} has no latents because its sampling has not finished: continue the job"
            )

        try:
            with safe_open(path, framework="pt") as file:
                maker = file.metadata()["model_hash"]
                latents: Tensor = file.get_tensor("latents").clone()
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path} is damaged or not the latents of a job ({error}): start the job again"
            ) from None
        if maker != model_hash:
            raise RequestError(
                f"{path} was made by model {maker}, not by {model_hash}: load that model to decode it"
            )
        return latents


def _one_line(error: Exception) -> str:
    """An error in one line, with its class unless it is one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, KinemaError) else f"{type(error).__name__}: {text}"


def _write_text(path: Path, text: str) -> None:
    """Write one line of text to `path` atomically. Raises `OutputError`."""
    _write(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` atomically. Raises `OutputError`."""
    with atomic_file(path) as partial, output_errors(path):
        write(partial)
