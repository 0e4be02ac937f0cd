"""The latents or the pixels of a build: in the store of results, or in a shard of an earlier build."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from kinema.data.curation.store import Store
from kinema.data.dataset import CARD, ShardKind, read_card
from kinema.files import atomic_file, output_errors, sha256_of

log = logging.getLogger(__name__)


class ArrayStore:
    """Arrays of one kind by key. Opening it deletes damaged shards of that kind in the data set `out`."""

    def __init__(self, out: Path, store: Store, kind: ShardKind) -> None:
        self.out, self.store, self.kind = out, store, kind
        self._shard_of = _shards_by_key(out, kind)

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of or self.store.has_array(self.kind.name, key)

    def put(self, key: str, array: np.ndarray) -> None:
        """Store the array of a clip."""
        self.store.put_array(self.kind.name, key, array)

    def get(self, key: str) -> np.ndarray:
        """The array of a clip. The key must be in the store."""
        stored = self.store.get_array(self.kind.name, key)
        if stored is None:
            with safe_open(self.out / self.kind.folder / self._shard_of[key], "np") as file:
                stored = file.get_tensor(key)
        return stored

    def write_shard(self, name: str, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of a shard by key. The shard is written unless it exists.

        Its arrays leave the store of results, so that they are on the disk once.
        """
        path = self.out / self.kind.folder / name
        if path.exists():
            arrays = load_file(path)
        else:
            arrays = {key: self.get(key) for key in keys}
            with atomic_file(path) as partial, output_errors(path):
                save_file(arrays, partial)
        self._shard_of |= dict.fromkeys(arrays, name)
        self.store.remove_arrays(self.kind.name, arrays)
        return {key: array.shape for key, array in arrays.items()}

    def remove_others(self, names: Iterable[str]) -> None:
        """Remove the shards that are not among `names`, and what is left in the store of results."""
        for path in (self.out / self.kind.folder).glob("*.safetensors"):
            if path.name not in names:
                path.unlink()
        self.store.remove(self.kind.name)


def _shards_by_key(out: Path, kind: ShardKind) -> dict[str, str]:
    """The file name of the shard that holds each key. Damaged shards are deleted, so that they are written
    again.
    """
    digests = read_card(out).get(kind.folder, {}) if (out / CARD).exists() else {}
    found: dict[str, str] = {}
    for path in sorted((out / kind.folder).glob("*.safetensors")):
        try:
            if path.name in digests and sha256_of(path) != digests[path.name]:
                raise SafetensorError("its bytes have changed")
            with safe_open(path, "np") as file:
                found |= dict.fromkeys(file.keys(), path.name)
        except (OSError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is written again", path, error)
            path.unlink()
    return found
