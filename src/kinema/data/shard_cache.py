"""Tensors that are computed once: a folder of shards whose name is a hash of everything they depend on.

A changed input never meets old tensors. A shard is written atomically, so a run that was killed computes only
what is missing, and several processes may fill one folder.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.errors import TrainingError
from kinema.files import atomic_file, content_key, output_errors


class Shard(NamedTuple):
    """Tensors by name, and plain JSON values by name."""

    tensors: dict[str, Tensor]
    values: Mapping[str, Any] = {}


class ShardCache:
    """The shards of `identity`, plain JSON that names all that they depend on, in a folder under `root`.

    `kind` is the first part of the folder's name.
    """

    def __init__(self, root: Path, identity: Any, kind: str = "") -> None:
        self.folder = root / "-".join(filter(None, (kind, content_key(identity)[:16])))

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()

    def path(self, name: str) -> Path:
        """The file of a shard."""
        return self.folder / f"{name}.safetensors"

    def names(self) -> list[str]:
        """The names of the shards, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.safetensors"))

    def get(self, name: str, make: Callable[[], Shard]) -> Shard:
        """The shard `name`, which `make` computes if it is missing. Raises what `put` and `read` raise."""
        if name not in self:
            self.put(name, make())
        return self.read(name)

    def put(self, name: str, shard: Shard) -> None:
        """Write a shard. Raises `OutputError` if it cannot be written."""
        tensors = {key: tensor.contiguous() for key, tensor in shard.tensors.items()}
        metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in shard.values.items()}
        path = self.path(name)
        with atomic_file(path) as partial, output_errors(path):
            save_file(tensors, partial, metadata)

    def read(self, name: str, keys: Sequence[str] | None = None) -> Shard:
        """A shard, or of its tensors only `keys`. Raises `TrainingError` that names a damaged shard."""
        with self._opened(name) as file:
            wanted = file.keys() if keys is None else keys
            values = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            return Shard({key: file.get_tensor(key) for key in wanted}, values)

    def keys(self, name: str) -> list[str]:
        """The names of the tensors of a shard. Raises `TrainingError` that names a damaged shard."""
        with self._opened(name) as file:
            return list(file.keys())

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        path = self.path(name)
        try:
            with safe_open(path, "pt") as file:
                yield file
        except (OSError, SafetensorError, ValueError) as error:
            raise TrainingError(
                f"{path} is damaged ({error}); delete it and start again: only this shard is written again"
            ) from error
