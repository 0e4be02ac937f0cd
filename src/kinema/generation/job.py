"""A job: the folder that holds a request, its inputs, the state of its sampling, and its latents before they
are decoded."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.diffusion.samplers import SamplerState
from kinema.diffusion.step_cache import CacheState
from kinema.errors import RequestError
from kinema.files import atomic_file, output_errors
from kinema.generation.conditioning.clips import Inputs, content_hash
from kinema.generation.request import Request
from kinema.shapes import Float
from kinema.video import Video

REQUEST = "request.json"
LATENTS = "latents.safetensors"
STATE = "state.safetensors"
INPUTS = "inputs"


@dataclass(eq=False)
class SamplingState:
    """The state of the sampling of a canvas: with the request and its inputs, everything that the remaining
    steps depend on."""

    window: int = 0
    """The current window. Earlier ones are done."""
    latents: Tensor | None = None
    """Latents of the whole canvas with the finished windows. None before the first window is done."""
    x: Tensor | None = None
    """The window's sample after `sampler.next_step` steps. None before the first step."""
    sampler: SamplerState = field(default_factory=SamplerState)
    cache: CacheState = field(default_factory=CacheState)
    """Earlier estimates for forecasts. Its counts are over all windows."""


@dataclass(frozen=True)
class Job:
    """A folder with `request.json`, `inputs/`, and `state.safetensors` while sampling or
    `latents.safetensors` after it.

    Every file is written atomically.
    """

    folder: Path

    def save_request(self, request: Request, inputs: Inputs | None = None) -> None:
        """Write the request and its inputs, and delete the state and latents of an earlier request.

        Raises `OutputError` if the folder cannot be written.
        """
        text = request.to_json() + "\n"
        _write(self.folder / REQUEST, lambda path: path.write_text(text, encoding="utf-8"))
        for media, video in (inputs or {}).items():
            content = {"frames": torch.from_numpy(np.ascontiguousarray(video.frames))}
            save = functools.partial(save_file, content, metadata={"fps": repr(video.fps)})
            _write(self._input_file(media), save)
        for name in (LATENTS, STATE):
            with output_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def request(self) -> Request:
        """The request of this job. Raises `RequestError` if the folder has none."""
        try:
            text = (self.folder / REQUEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{self.folder} is not the folder of a job: {error}") from None
        return Request.from_json(text)

    def inputs(self, request: Request) -> dict[str, Video]:
        """The clips that the request names. Raises `RequestError` if one is missing, damaged or a different
        clip."""
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
        tensors |= {f"memory.{i}": tensor for i, tensor in enumerate(state.sampler.tensors)}
        tensors |= {f"cache.{i}": tensor for i, tensor in enumerate(state.cache.tensors)}
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

        counts = {
            "window": state.window,
            "next_step": state.sampler.next_step,
            "memory": len(state.sampler.tensors),
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
                SamplerState(counts["next_step"], memory),
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
        """Write the clean latents of the result with the hash of their model, and delete the state. Raises
        `OutputError`."""
        content = {"latents": latents.cpu().contiguous()}
        metadata = {"model_hash": model_hash}
        _write(self.folder / LATENTS, lambda path: save_file(content, path, metadata=metadata))
        (self.folder / STATE).unlink(missing_ok=True)

    def latents(self, *, model_hash: str) -> Float[Tensor, "c lf lh lw"]:
        """The latents of this job. Raises `RequestError` if sampling has not finished or another model made
        them."""
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


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` atomically. Raises `OutputError`."""
    with atomic_file(path) as partial, output_errors(path):
        write(partial)
