"""Complete, atomic checkpoints, verified before older ones are deleted.

A checkpoint is a folder `checkpoint-00001000/`: model.safetensors, ema.safetensors, optimizer.pt and, written
last, state.json with the SHA-256 of the others. It is written next to its place and renamed. The latest one
is found by scanning the run folder.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kinema.errors import OutputError, TrainingError
from kinema.files import atomic_folder, read_json, sha256_of, write_json

log = logging.getLogger(__name__)

PREFIX = "checkpoint-"
STATE = "state.json"


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    ema: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint after `step` steps and return its folder.

    Once it reads back as written, all but the last `keep` intact ones are deleted. Raises `OutputError` if it
    cannot be written.
    """
    final = folder / f"{PREFIX}{step:08d}"
    if not (final / STATE).is_file():  # a damaged checkpoint
        shutil.rmtree(final, ignore_errors=True)
    try:
        with atomic_folder(final, STATE) as partial:
            save_file(_plain(model), partial / "model.safetensors")
            save_file(_plain(ema), partial / "ema.safetensors")
            torch.save([optimizer.state_dict() for optimizer in optimizers], partial / "optimizer.pt")
            hashes = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            write_json(partial / STATE, {"step": step, **state, "sha256": hashes})
    except RuntimeError as error:  # torch.save raises it when the disk is full
        raise OutputError(f"cannot write {final}: {error}") from error

    if read_state(final) is None:
        raise OutputError(f"{final} does not read back as it was written; older checkpoints are kept")
    whole = [
        path for path in _all(folder) if path <= final and (path == final or read_state(path) is not None)
    ]
    for old in whole[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest intact checkpoint of a run, or None. Damaged ones are logged and skipped."""
    for path in reversed(_all(folder)):
        if read_state(path) is not None:
            return path
        log.warning("%s is damaged and is skipped", path)
    return None


def read_state(path: Path) -> dict[str, Any] | None:
    """The state.json of a checkpoint, or None when a file is missing or does not match its hash."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        whole = all(sha256_of(path / name) == digest for name, digest in state["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if whole else None


def load(path: Path, model: nn.Module, ema: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Load a checkpoint into model, average and optimizers. Raises `TrainingError` if it does not fit."""
    try:
        for module, name in ((model, "model"), (ema, "ema")):
            saved = _plain(module)
            released = {key: value for key, value in module.state_dict().items() if key not in saved}
            module.load_state_dict(released | load_file(path / f"{name}.safetensors"))
        states = torch.load(path / "optimizer.pt", weights_only=True)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{path} does not fit the model of the recipe: {str(error).splitlines()[0]}"
        ) from error


def fork(path: Path, folder: Path, recipe: dict[str, Any]) -> None:
    """Copy a checkpoint into the run folder of another recipe, which continues from it.

    Raises `OutputError` if it cannot be written.
    """
    with atomic_folder(folder / path.name, STATE) as partial:
        shutil.copytree(path, partial, dirs_exist_ok=True)
        write_json(partial / STATE, {**read_json(path / STATE), "recipe": recipe})


def _plain(model: nn.Module) -> dict[str, Tensor]:
    """All tensors except those that are loaded from a released model."""
    state = model.state_dict(keep_vars=True)
    return {
        name: value.detach().contiguous()
        for name, value in state.items()
        if not getattr(value, "is_released", False)
    }


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))
