"""A data set on disk: what `kinema data build` writes and training reads.

    dataset.json                 schema version, the build's recipe and tools, the VAE's hash, the names of the tables and shards
    clips-<hash>.parquet         a row a clip, kept or dropped: where it is from, scores, reason, captions, where its latents are
    sources-<hash>.parquet       a row a file, used or quarantined: what it is, why it is not used
    shards/<hash>.safetensors    the latents of some clips by key, float16 (z, lf, lh, lw)

Only dataset.json is ever replaced; everything it names is written before, under a name that says what is in it.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.errors import DataError
from kinema.files import read_json

SCHEMA_VERSION = 1
CARD = "dataset.json"
SHARDS = "shards"
OPEN_SHARDS = 16
"""Shards that a reader holds open."""


@dataclass(frozen=True)
class SourceRow:
    """A file and what became of it: "used", "dropped" (it repeats another) or "quarantined", with the reason."""

    source_id: str
    name: str
    path: str
    sha256: str
    size_bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    duration_s: float
    num_frames: int
    licence: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class ClipRow:
    """A stretch of a shot and what became of it: "kept" or "dropped" with the reason.

    Times are the file's own timestamps in seconds. The box is what lies inside black borders, in pixels of the upright source; height,
    width and num_frames are those of the encoded clip, 0 where nothing fits. `captions` is a JSON object of texts by form, `caption_log`
    one of what a writer wrote, what was refused of it and why, and what came with the file, and `scores` one of the numbers that only
    some recipes ask for, by name.
    """

    clip_id: str
    source_id: str
    name: str
    licence: str
    shot: int
    is_still: bool
    start_s: float
    end_s: float
    num_source_frames: int
    source_fps: float
    source_height: int
    source_width: int
    box_top: int
    box_left: int
    box_height: int
    box_width: int
    brightness: float
    contrast: float
    sharpness: float
    motion: float
    border: float
    hash: str
    height: int
    width: int
    num_frames: int
    fps: float
    captions: str
    verdict: str
    reason: str
    latents_key: str = ""
    latent_frames: int = 0
    latent_height: int = 0
    latent_width: int = 0
    shard: str = ""
    caption_log: str = "{}"
    scores: str = "{}"


Row = SourceRow | ClipRow


class Dataset:
    """A data set to read. Rows stay in the Arrow tables until they are asked for, so a million clips are no million objects.

    Raises `DataError` when the folder holds none, or one of a schema that this version does not know.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = read_card(folder)
        self._open: dict[str, Any] = {}

    @cached_property
    def clips(self) -> Any:
        """The table of all clips, kept and dropped, as a pyarrow.Table."""
        return self._table("clips")

    @cached_property
    def sources(self) -> Any:
        """The table of all files, as a pyarrow.Table."""
        return self._table("sources")

    @cached_property
    def kept(self) -> Any:
        """The table of the clips that have latents, in the order of the shards."""
        import pyarrow.compute as compute

        return self.clips.filter(compute.equal(self.clips["verdict"], "kept"))

    def __len__(self) -> int:
        """How many clips there are to train on."""
        return self.kept.num_rows

    def column(self, name: str) -> np.ndarray:
        """One column of the kept clips."""
        return np.asarray(self.kept[name].to_numpy())

    def captions(self, index: int) -> dict[str, str]:
        """The captions of a kept clip by form."""
        return dict(json.loads(self.kept["captions"][index].as_py()))

    def latents(self, index: int) -> Tensor:
        """Normalised latents of a kept clip, float16 (z, lf, lh, lw). Raises `DataError` naming the shard when it is damaged."""
        name, key = self.kept["shard"][index].as_py(), self.kept["latents_key"][index].as_py()
        path = self.folder / SHARDS / name
        try:
            if name not in self._open:
                if len(self._open) >= OPEN_SHARDS:
                    self._open.pop(next(iter(self._open)))
                self._open[name] = safe_open(path, "pt")
            return self._open[name].get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path} is missing or damaged ({error}): build the data set again, which makes it anew"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Without tables and open files, so that a worker process opens its own."""
        return {"folder": self.folder, "card": self.card, "_open": {}}

    def _table(self, name: str) -> Any:
        path = self.folder / str(self.card["tables"][name])
        try:
            return parquet().read_table(path, memory_map=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is missing or damaged ({error}): build the data set again") from error


def group_by_source(clips: Iterable[ClipRow], size: int) -> Iterator[tuple[str, list[ClipRow]]]:
    """Runs of at most `size` clips of one file, which come together."""
    group: list[ClipRow] = []
    for clip in clips:
        if group and (clip.source_id != group[0].source_id or len(group) == size):
            yield group[0].source_id, group
            group = []
        group.append(clip)
    if group:
        yield group[0].source_id, group


def read_card(folder: Path) -> dict[str, Any]:
    """The contents of dataset.json. Raises `DataError`."""
    path = folder / CARD
    if not path.exists():
        raise DataError(
            f"{folder} is no data set: it has no {CARD}; make one with kinema data build FOLDER -o {folder}"
        )
    card = read_json(path, DataError)
    version = card.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema_version {version}, and this Kinema reads {SCHEMA_VERSION}: build the data set again"
        )
    return card


def to_table(rows: Sequence[Row], kind: type[Row]) -> Any:
    """A pyarrow.Table of rows, with the types of the dataclass whether or not there are any."""
    import pyarrow

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(field.name, types[_type(field)]) for field in dataclasses.fields(kind)])
    return pyarrow.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)


def from_table(table: Any, kind: type[Row]) -> list[Any]:
    """The rows of a table as dataclasses."""
    return [kind(**row) for row in table.to_pylist()]


def parquet() -> ModuleType:
    """pyarrow.parquet. Raises `DataError` when pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"data sets need pyarrow ({error}): pip install 'kinema[data]'") from error
    return pyarrow.parquet


def _type(field: "dataclasses.Field[Any]") -> type:
    kinds: Mapping[Any, type] = {str: str, int: int, float: float, bool: bool}
    return kinds[field.type]
