"""Files of tensors, in one or several shards, read strictly: every tensor and every shape is checked."""

import contextlib
import hashlib
import json
import math
import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.config import to_dict
from kinema.device import CPU
from kinema.errors import ModelError
from kinema.files import content_key, read_json, write_json
from kinema.models.vae import VAE

MAX_LISTED = 8


def read_tensors(
    folder: Path, weights: str, expected: Mapping[str, Sequence[int]], what: str
) -> dict[str, Tensor]:
    """The tensors of a component (`component_files`) on the CPU.

    Raises `ModelError` as `TensorFiles.account` does for `expected` and `what`.
    """
    files = TensorFiles(component_files(folder, weights))
    files.account(expected, what)
    state: dict[str, Tensor] = {}
    for file in files.files:
        with opened(file) as tensors:
            # A copy, so that the tensors do not depend on the file once it is closed.
            state |= {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # noqa: SIM118
    return state


def component_files(folder: Path, weights: str) -> list[Path]:
    """The safetensors files of a component: `folder / weights`, or the shards that its index names.

    Raises `ModelError` if there are none.
    """
    index = folder / f"{weights}.index.json"
    if (folder / weights).is_file():
        return [folder / weights]
    if not index.is_file():
        raise ModelError(f"{folder} has neither {weights} nor {index.name}")
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} has no weight_map of file names by tensor name")
    return [folder / name for name in sorted(set(names.values()))]


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The open safetensors file: the header is read on opening, a tensor on access.

    Raises `ModelError` naming the file.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise ModelError(f"{file} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is truncated or damaged{_lengths(file)}: {error}") from None


def _lengths(file: Path) -> str:
    """The size of a safetensors file and the size in its header, as far as they can be read."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries = json.loads(stream.read(min(length, 10**8)))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return f", it has {size} bytes of {8 + length + max(ends)}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f", it has {file.stat().st_size} bytes" if file.is_file() else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of some files by name, each read on access; names and shapes are read on construction.

    Files end in .safetensors, or are PyTorch's own, of which only tensors are read, never code. Raises
    `ModelError` that names a missing or damaged file, or one that contains code.
    """

    def __init__(self, files: Sequence[Path], *, prefix: str = "") -> None:
        """Only tensors whose names begin with `prefix`, which is removed from the name."""
        self.files = tuple(files)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype | str] = {}
        self._where: dict[str, Path] = {}
        self._prefix = prefix
        self._pickled: dict[Path, Mapping[str, Tensor]] = {}
        for file in files:
            for name, shape, dtype in self._entries(file):
                if not name.startswith(prefix):
                    continue
                name = name.removeprefix(prefix)
                if name in self._where:
                    raise ModelError(f"{name} is in {self._where[name].name} and again in {file}")
                self.shapes[name], self.dtypes[name], self._where[name] = shape, dtype, file

    def _entries(self, file: Path) -> Iterator[tuple[str, tuple[int, ...], torch.dtype | str]]:
        if file.suffix == ".safetensors":
            with opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  the file is no mapping
                    entry = tensors.get_slice(name)
                    yield name, tuple(entry.get_shape()), _DTYPES.get(entry.get_dtype(), entry.get_dtype())
            return
        self._pickled[file] = read_pickle(file)
        for name, tensor in self._pickled[file].items():
            yield name, tuple(tensor.shape), tensor.dtype

    def __getitem__(self, name: str) -> Tensor:
        file, full = self._where[name], self._prefix + name
        if file in self._pickled:
            return self._pickled[file][full]
        with opened(file) as tensors:
            return tensors.get_tensor(
                full
            ).clone()  # so that it does not depend on the file once that is closed

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    @property
    def num_parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(file.stat().st_size for file in self.files)

    def account(
        self, expected: Mapping[str, Sequence[int]], what: str, ignored: Collection[str] = ()
    ) -> None:
        """Raise `ModelError` unless names and shapes are exactly those of `expected`, and all dtypes floating
        point. `what` names the expected tensors in the message.
        """
        wrong = [
            f"{name} is {self.shapes[name]}, not {tuple(expected[name])}"
            for name in sorted(self.shapes.keys() & expected.keys())
            if self.shapes[name] != tuple(expected[name])
        ]
        types = sorted(
            f"{name} ({self.dtypes[name]})"
            for name in self.shapes.keys() & expected.keys()
            if self.dtypes[name] not in FLOATS
        )
        problems = {
            "missing": sorted(expected.keys() - self.shapes.keys()),
            "unexpected": sorted(self.shapes.keys() - expected.keys() - set(ignored)),
            "of another shape": wrong,
            "of a type that is not float32, float16 or bfloat16": types,
        }
        found = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names]
        if found:
            raise ModelError(
                f"{self.files[0] if self.files else what}: tensors are not those of {what}: "
                f"{'; '.join(found)}"
            )


def read_pickle(file: Path) -> Mapping[str, Tensor]:
    """The tensors by name in a file of PyTorch's own format; no code in it is run.

    Raises `ModelError` naming the file.
    """
    try:
        try:
            content = torch.load(file, map_location=CPU, weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(
                file, map_location=CPU, weights_only=True
            )  # the older format cannot be mapped
    except FileNotFoundError:
        raise ModelError(f"{file} is missing") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ModelError(
            f"{file} holds more than tensors{what}: it is not loaded, because it could run code; ask for "
            "safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{file} is truncated or damaged, it has {file.stat().st_size} bytes: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise ModelError(f"{file} does not hold tensors by name")
    return content


def write_shards(
    folder: Path, weights: str, state: Mapping[str, Tensor], *, max_bytes: int = 5 * 10**9
) -> None:
    """Write the tensors of `state` as `folder / weights`, or as several files with an index if they exceed
    `max_bytes`.

    Tensors are read from `state` one at a time, so that at most the tensors of one file are in memory. The
    caller makes the folder atomic.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = weights.removesuffix(".safetensors")
    parts: list[tuple[Path, list[str]]] = []
    held: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        nonlocal held, size
        if held:
            part = folder / f".{stem}.{len(parts)}.partial"
            save_file(held, part, metadata={"format": "pt"})
            parts.append((part, list(held)))
        held, size = {}, 0

    for name, tensor in state.items():
        tensor = tensor.detach().contiguous()
        num_bytes = tensor.numel() * tensor.element_size()
        if size and size + num_bytes > max_bytes:
            flush()
        held[name] = tensor
        size, total = size + num_bytes, total + num_bytes
    flush()
    if len(parts) == 1:
        parts[0][0].rename(folder / weights)
        return
    where: dict[str, str] = {}
    for i, (part, names) in enumerate(parts, start=1):
        final = f"{stem}-{i:05}-of-{len(parts):05}.safetensors"
        part.rename(folder / final)
        where |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(folder / f"{weights}.index.json", index)


def weights_hash(module: torch.nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of all names, shapes and weights of a module."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def vae_hash(vae: VAE) -> str:
    """16 hexadecimal digits that identify what normalised latents depend on: the VAE's weights and
    configuration, including means and standard deviations.
    """
    config = to_dict(vae.config)
    config["fold"] = config.pop("patch_size")  # the name in 0.1.0, whose latents stay valid
    return content_key([config, weights_hash(vae)])[:16]
