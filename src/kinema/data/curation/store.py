"""Stored results of steps: each is a file named by a hash of everything that it depends on, written
atomically.

A build that was killed finds every finished result, and a changed input or setting never finds an old one.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import DataError
from kinema.files import atomic_file, folder_lock, output_errors

WORK = "work"


class Store:
    """The results of one data set by kind (the step) and key, in the folder `work`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / WORK

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The stored JSON object; None if it is missing or damaged."""
        try:
            value = json.loads(self._path(kind, key, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def put(self, kind: str, key: str, value: dict[str, Any]) -> None:
        """Store a JSON object. Raises `OutputError` if it cannot be written."""
        self._write(self._path(kind, key, ".json"), json.dumps(value).encode())

    def get_array(self, kind: str, key: str) -> np.ndarray | None:
        """The stored array; None if it is missing or damaged."""
        try:
            return np.load(self._path(kind, key, ".npy"))
        except (OSError, ValueError, EOFError):
            return None

    def put_array(self, kind: str, key: str, value: np.ndarray) -> None:
        """Store an array. Raises `OutputError` if it cannot be written."""
        path = self._path(kind, key, ".npy")
        with atomic_file(path) as partial, output_errors(path), partial.open("wb") as file:
            np.save(file, value)

    def has_array(self, kind: str, key: str) -> bool:
        """Whether an array of that key is stored."""
        return self._path(kind, key, ".npy").exists()

    def remove_arrays(self, kind: str, keys: Iterable[str]) -> None:
        """Remove the arrays of these keys that are stored."""
        for key in keys:
            self._path(kind, key, ".npy").unlink(missing_ok=True)

    def remove(self, kind: str) -> None:
        """Remove all results of a kind."""
        shutil.rmtree(self.folder / kind, ignore_errors=True)

    def _path(self, kind: str, key: str, ending: str) -> Path:
        return self.folder / kind / key[:2] / f"{key}{ending}"

    def _write(self, path: Path, data: bytes) -> None:
        with atomic_file(path) as partial, output_errors(path):
            partial.write_bytes(data)


@contextmanager
def only_builder(folder: Path) -> Iterator[None]:
    """Locks the folder of a data set for one build, and removes partial files of a killed one.

    The lock ends with the process. Raises `DataError` if another build holds the lock, and `OutputError` if
    the folder is not writable.
    """
    busy = DataError(f"{folder} is being built by another process: wait for it, or stop it")
    with folder_lock(folder, busy):
        yield
