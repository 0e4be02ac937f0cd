"""Complete, atomic checkpoints, verified before older ones are deleted.

A checkpoint is a folder `checkpoint-00001000/`: model.safetensors, ema.safetensors, optimizer.pt and, written
last, state.json with the SHA-256 of the others. It is written next to its place and renamed. The latest one
is found by scanning the run folder. It holds whole tensors, so any number of ranks can write and read it.
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

from kinema.distributed.group import Group
from kinema.distributed.sharding import gathered, like
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
    group: Group,
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint after `step` steps and return its folder. The first rank writes it.

    Once it reads back as written, all but the last `keep` intact ones are deleted. Raises `OutputError` if it
    cannot be written.
    """
    contents = {
        "model": _plain(model),
        "ema": _plain(ema),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    contents = gathered(contents, keep=group.ranks.is_first)
    final = folder / f"{PREFIX}{step:08d}"
    if group.ranks.is_first:
        _write(final, contents, {"step": step, **state})
        _delete_old(final, keep)
    group.wait()
    return final


def _write(final: Path, contents: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint and read it back. Raises `OutputError`."""
    if not (final / STATE).is_file():  # a damaged checkpoint
        shutil.rmtree(final, ignore_errors=True)
    try:
        with atomic_folder(final, STATE) as partial:
            save_file(contents["model"], partial / "model.safetensors")
            save_file(contents["ema"], partial / "ema.safetensors")
            torch.save(contents["optimizers"], partial / "optimizer.pt")
            hashes = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            write_json(partial / STATE, {**state, "sha256": hashes})
    except RuntimeError as error:  # torch.save raises it when the disk is full
        raise OutputError(f"cannot write {final}: {error}") from error

    if read_state(final) is None:
        raise OutputError(f"{final} does not read back as it was written; older checkpoints are kept")


def _delete_old(final: Path, keep: int) -> None:
    """Delete all intact checkpoints up to `final` but the last `keep`."""
    paths = [path for path in _all(final.parent) if path <= final]
    whole = [path for path in paths if path == final or read_state(path) is not None]
    for old in whole[:-keep]:
        shutil.rmtree(old)


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
            saved, own = _plain(module), module.state_dict()
            released = {key: value for key, value in own.items() if key not in saved}
            tensors = load_file(path / f"{name}.safetensors")
            spread = {key: like(value, own.get(key)) for key, value in tensors.items()}
            module.load_state_dict(released | spread)
        states = torch.load(path / "optimizer.pt", weights_only=True)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(_spread(state, optimizer))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{path} does not fit the model of the recipe: {str(error).splitlines()[0]}"
        ) from error


def _spread(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer with its tensors sharded as their parameters are."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    spread = {
        index: {name: like(value, params[index]) for name, value in values.items()}
        for index, values in state["state"].items()
        if index < len(params)
    }
    return {**state, "state": spread}


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
