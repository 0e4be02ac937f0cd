"""A job: the folder that holds a request, and its latents from before they are decoded, so that no sampling is ever lost."""

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
    """Where the sampling of a canvas stands: all that the steps to come depend on, beside the request and its inputs."""

    window: int = 0
    """The window that is being made; those before it are done."""
    latents: Tensor | None = None
    """Those of the whole canvas, as far as they are done; None before the first window is."""
    x: Tensor | None = None
    """The window's sample after `sampler.next_step` steps; None before the first."""
    sampler: SamplerState = field(default_factory=SamplerState)
    cache: CacheState = field(default_factory=CacheState)
    """What the steps to come may be forecast from; its counts are those of all windows."""


@dataclass(frozen=True)
class Job:
    """`request.json`, `inputs/`, while it is sampled `state.safetensors` and then `latents.safetensors`, in one folder.

    A file is there whole or not at all.
    """

    folder: Path

    def save_request(self, request: Request, inputs: Inputs | None = None) -> None:
        """Write the request and its inputs, and take away latents that an earlier one left.

        Raises `OutputError` when the folder cannot be written.
        """
        _write(
            self.folder / REQUEST, lambda path: path.write_text(request.to_json() + "\n", encoding="utf-8")
        )
        for media, video in (inputs or {}).items():
            content = {"frames": torch.from_numpy(np.ascontiguousarray(video.frames))}
            save = functools.partial(save_file, content, metadata={"fps": repr(video.fps)})
            _write(self._input(media), save)
        for name in (LATENTS, STATE):
            with output_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def inputs(self, request: Request) -> dict[str, Video]:
        """The clips that the request names. Raises `RequestError` when one is missing, damaged or another."""
        found = {}
        for media in {
            media for place in request.places for media in (place.media, place.mask) if media is not None
        }:
            path = self._input(media)
            try:
                with safe_open(path, framework="pt") as file:
                    found[media] = Video(
                        file.get_tensor("frames").numpy().copy(), float(file.metadata()["fps"])
                    )
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                raise RequestError(
                    f"{path} is missing or damaged ({error}): give the task its files again"
                ) from None
            if content_hash(found[media]) != media:
                raise RequestError(
                    f"{path} is not the clip that the request names: give the task its files again"
                )
        return found

    def _input(self, media: str) -> Path:
        return self.folder / INPUTS / f"{media}.safetensors"

    def save_state(self, state: SamplingState, *, model_hash: str) -> None:
        """Write where the sampling stands. Raises `OutputError`."""
        tensors = {
            name: value for name, value in (("latents", state.latents), ("x", state.x)) if value is not None
        }
        tensors |= {f"memory.{i}": tensor for i, tensor in enumerate(state.sampler.tensors)}
        tensors |= {f"cache.{i}": tensor for i, tensor in enumerate(state.cache.tensors)}
        cache = {name: value for name, value in vars(state.cache).items() if name != "tensors"}
        counts = {
            "window": state.window,
            "next_step": state.sampler.next_step,
            "memory": len(state.sampler.tensors),
            "cache": cache,
        }
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        words = {"model_hash": model_hash, "counts": json.dumps(counts)}
        _write(self.folder / STATE, lambda path: save_file(content, path, metadata=words))

    def state(self, *, model_hash: str) -> SamplingState | None:
        """Where the sampling stands, or None before the first save. Raises `RequestError` when it is damaged or another model's."""
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                words = file.metadata()
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, it is no dict
            counts = json.loads(words["counts"])
            memory = [tensors[f"memory.{i}"] for i in range(counts["memory"])]
            sampler = SamplerState(counts["next_step"], memory)
            cache = CacheState(
                **counts["cache"],
                tensors=[tensors[f"cache.{i}"] for i in range(len(counts["cache"]["times"]))],
            )
            state = SamplingState(counts["window"], tensors.get("latents"), tensors.get("x"), sampler, cache)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{path} is damaged ({error}): delete it to begin the job again") from None
        if words.get("model_hash") != model_hash:
            raise RequestError(
                f"{path} was made by model {words.get('model_hash')}, not by {model_hash}: load that model to continue it"
            )
        return state

    @property
    def is_sampled(self) -> bool:
        """Whether the latents are there and only have to be decoded."""
        return (self.folder / LATENTS).is_file()

    def save_latents(self, latents: Float[Tensor, "c lf lh lw"], *, model_hash: str) -> None:
        """Write the clean latents of one video and the hash of the model they belong to. Raises `OutputError`."""
        content = {"latents": latents.cpu().contiguous()}
        _write(
            self.folder / LATENTS, lambda path: save_file(content, path, metadata={"model_hash": model_hash})
        )
        (self.folder / STATE).unlink(missing_ok=True)

    def request(self) -> Request:
        """The request of this job. Raises `RequestError` when the folder holds none."""
        try:
            text = (self.folder / REQUEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{self.folder} is not the folder of a job: {error}") from None
        return Request.from_json(text)

    def latents(self, *, model_hash: str) -> Float[Tensor, "c lf lh lw"]:
        """The latents of this job. Raises `RequestError` when its sampling has not finished or another model made them."""
        path = self.folder / LATENTS
        if not path.is_file():
            raise RequestError(
                f"{self.folder} holds no latents: its sampling has not finished, so generate it again"
            )
        try:
            with safe_open(path, framework="pt") as file:
                maker = file.metadata()["model_hash"]
                latents: Tensor = file.get_tensor("latents").clone()
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path} is damaged or not the latents of a job ({error}): generate it again"
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
