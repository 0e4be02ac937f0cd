"""Safetensors files, one or several shards, read strictly: every tensor and every shape is accounted for."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.errors import ModelError

MOST_LISTED = 8


def read_tensors(
    folder: Path,
    weights: str,
    expected: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = torch.float32,
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """The tensors of `folder / weights`, or of the shards that `weights.index.json` names, as `dtype` on the CPU (None: as stored).

    `expected` says which names and shapes there must be (it may lie on the meta device); those of `ignored` may be there and are left.
    Raises `ModelError` that names the file that is missing, truncated or damaged, or every tensor that is missing, unexpected, of another
    shape or in two files.
    """
    files = {file: names.difference(ignored) for file, names in tensor_files(folder, weights).items()}
    _account(files, expected, folder)
    state: dict[str, Tensor] = {}
    for file, names in files.items():
        with opened(file) as tensors:
            # A copy, so that the tensors do not depend on the file once it is closed.
            state |= {name: tensors.get_tensor(name).to(dtype, copy=True) for name in names}
    return state


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `ModelError` that names it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{file}: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{file} does not hold a JSON object")
    return values


def tensor_files(folder: Path, weights: str) -> dict[Path, set[str]]:
    """The safetensors files of a component, one or the shards of an index, with the names in each."""
    index = folder / f"{weights}.index.json"
    if (folder / weights).is_file():
        files = [folder / weights]
    elif index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ModelError(f"{index} does not say in weight_map which file holds which tensor")
        files = [folder / name for name in sorted(set(names.values()))]
    else:
        raise ModelError(f"{folder} has neither {weights} nor {index.name}")
    result = {}
    for file in files:
        with opened(file) as tensors:
            result[file] = set(tensors.keys())
    return result


def _account(files: Mapping[Path, set[str]], expected: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `ModelError` unless the files hold exactly the expected names and shapes, each once."""
    where = {name: file for file, names in files.items() for name in names}
    shapes: dict[str, tuple[int, ...]] = {}
    for file, names in files.items():
        with opened(file) as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    wrong = [
        f"{name} is {shapes[name]} in {where[name].name}, not {tuple(expected[name].shape)}"
        for name in sorted(shapes.keys() & expected.keys())
        if shapes[name] != tuple(expected[name].shape)
    ]
    problems = {
        "missing": sorted(expected.keys() - shapes.keys()),
        "unexpected": [f"{name} (in {where[name].name})" for name in sorted(shapes.keys() - expected.keys())],
        "of another shape": wrong,
        "in two files": sorted(name for name in where if sum(name in names for names in files.values()) > 1),
    }
    found = [f"{len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
    if found:
        raise ModelError(f"{folder}: tensors do not fit config.json: {'; '.join(found)}")


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The open safetensors file: its header is read now, a tensor when it is asked for. Raises `ModelError` that names it."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise ModelError(f"{file} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is truncated or damaged: {error}") from None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
