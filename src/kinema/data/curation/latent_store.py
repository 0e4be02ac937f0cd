"""The latents of a build: in the store of results, or in a shard of an earlier build."""

import logging
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from kinema.data.curation.store import Store
from kinema.data.dataset import CARD, SHARDS, read_card
from kinema.files import sha256_of

log = logging.getLogger(__name__)

KIND = "latents"
"""Folder of the stored arrays, which is removed once they are in shards."""


class LatentStore:
    """Latents by key, float16 (z, lf, lh, lw). Opening it deletes damaged shards of the data set `out`."""

    def __init__(self, out: Path, store: Store) -> None:
        self.out, self.store = out, store
        self._shard_of = _shards_by_key(out)

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of or self.store.has_array(KIND, key)

    def put(self, key: str, latents: np.ndarray) -> None:
        """Store the latents of a clip."""
        self.store.put_array(KIND, key, latents)

    def get(self, key: str) -> np.ndarray:
        """The latents of a clip. The key must be in the store."""
        stored = self.store.get_array(KIND, key)
        if stored is None:
            stored = load_file(self.out / SHARDS / self._shard_of[key])[key]
        return stored

    def clear(self) -> None:
        """Remove the stored arrays, which are in the shards now."""
        self.store.remove(KIND)


def _shards_by_key(out: Path) -> dict[str, str]:
    """The file name of the shard that holds each key. Damaged shards are deleted, so that they are written
    again.
    """
    digests = read_card(out)["shards"] if (out / CARD).exists() else {}
    found: dict[str, str] = {}
    for path in sorted((out / SHARDS).glob("*.safetensors")):
        try:
            if path.name in digests and sha256_of(path) != digests[path.name]:
                raise SafetensorError("its bytes have changed")
            found |= dict.fromkeys(load_file(path), path.name)
        except (OSError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is written again", path, error)
            path.unlink()
    return found
