"""A data set on disk: what `kinema data build` writes and training reads.

    dataset.json                 schema version, recipe and steps of the build, hash of the VAE, file names
    clips-<hash>.parquet         a row per clip, kept or dropped: origin, scores, reason, captions, its shards
    sources-<hash>.parquet       a row per file, used or quarantined: its header, and why it is not used
    shards/<hash>.safetensors    latents of some clips by key, float16 (z, lf, lh, lw)
    pixels/<hash>.safetensors    frames of some clips by key, uint8 (f, h, w, 3); optional

Only dataset.json is ever replaced. The files that it names are written before it, under names that contain
their hash.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.errors import DataError
from kinema.files import read_json

SCHEMA_VERSION = 1
CARD = "dataset.json"
SHARDS = "shards"
PIXELS = "pixels"
OPEN_SHARDS = 16
"""Largest number of shards that a reader keeps open."""


class ShardKind(NamedTuple):
    """What shards hold: its name, their folder, and the columns of a clip's key and shard."""

    name: str
    folder: str
    key: str
    shard: str


LATENT_SHARDS = ShardKind("latents", SHARDS, "latents_key", "shard")
PIXEL_SHARDS = ShardKind("pixels", PIXELS, "pixels_key", "pixels_shard")
SHARD_KINDS = (LATENT_SHARDS, PIXEL_SHARDS)


@dataclass(frozen=True)
class SourceRow:
    """A file. `verdict` is "used", "dropped" (too small, or the bytes of another) or "quarantined"
    (unreadable), with the reason.
    """

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

    def dropped(self, reason: str) -> "SourceRow":
        """This row with the verdict "dropped"."""
        return replace(self, verdict="dropped", reason=reason)

    def quarantined(self, reason: str) -> "SourceRow":
        """This row with the verdict "quarantined"."""
        return replace(self, verdict="quarantined", reason=reason)


@dataclass(frozen=True)
class ClipRow:
    """A part of a shot. `verdict` is "kept" or "dropped", with the reason.

    Times are timestamps of the file in seconds. The box is the area inside black borders, in pixels of the
    upright source. height, width and num_frames are those of the encoded clip, 0 if nothing fits. `captions`
    is a JSON object of texts by form, `caption_log` one of written, refused and original captions, and
    `scores` one of the scores that only some recipes have, by name.
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
    pixels_key: str = ""
    pixels_shard: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the clip is in the data set."""
        return self.verdict == "kept"

    @property
    def label(self) -> str:
        """File name and start time, for messages."""
        return f"{self.name} at {self.start_s:.2f} s"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the area inside black borders, in pixels of the source."""
        return self.box_top, self.box_left, self.box_height, self.box_width

    @property
    def encoded_as(self) -> tuple[float, ...]:
        """Box, size, length and rate of the clip as it is encoded. Part of stored keys."""
        return (*self.box, self.height, self.width, self.num_frames, self.fps)

    def dropped(self, reason: str) -> "ClipRow":
        """This row with the verdict "dropped"."""
        return replace(self, verdict="dropped", reason=reason)

    def with_scores(self, scores: Mapping[str, float], reason: str) -> "ClipRow":
        """This row with further scores; dropped if there is a reason."""
        row = replace(self, scores=json.dumps(scores, sort_keys=True))
        return row.dropped(reason) if reason else row


Row = SourceRow | ClipRow


class Dataset:
    """A reader of the data set in a folder. Rows stay in Arrow tables, so a million clips are not a million
    objects.

    Raises `DataError` if the folder holds no data set, or one of an unknown schema version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = read_card(folder)
        self._open: dict[Path, Any] = {}

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
        """The number of kept clips."""
        return self.kept.num_rows

    def column(self, name: str) -> np.ndarray:
        """One column of the kept clips, (clips,)."""
        return np.asarray(self.kept[name].to_numpy())

    def captions(self, index: int) -> dict[str, str]:
        """The captions of a kept clip by form."""
        return dict(json.loads(self.kept["captions"][index].as_py()))

    def check_captions(self, needed_by: str) -> None:
        """Raise `DataError` if no clip has a caption, which `needed_by` reads."""
        if not any(self.captions(index) for index in range(len(self))):
            raise DataError(
                f"no clip of {self.folder} has a caption, and {needed_by} needs some: put text files beside "
                "the videos or set captions.writer, and build the data set again"
            )

    def latents(self, index: int) -> Tensor:
        """Normalised latents of a kept clip, float16 (z, lf, lh, lw). Raises `DataError` naming a damaged
        shard.
        """
        return self._slice(LATENT_SHARDS, index)[:]

    @property
    def has_pixels(self) -> bool:
        """Whether the data set holds the pixels of its clips."""
        return bool(self.card.get(PIXELS))

    def pixels(self, index: int, *parts: slice) -> Tensor:
        """Pixels of a kept clip, uint8 (f, h, w, 3), or of `parts` of frames, rows and columns.

        Raises `DataError` naming a damaged shard.
        """
        return self._slice(PIXEL_SHARDS, index)[parts or slice(None)]

    def _slice(self, kind: ShardKind, index: int) -> Any:
        """The array of a kept clip, of which only indexed parts are read."""
        name, key = (self.kept[column][index].as_py() for column in (kind.shard, kind.key))
        path = self.folder / kind.folder / name
        try:
            if path not in self._open:
                if len(self._open) >= OPEN_SHARDS:
                    self._open.pop(next(iter(self._open)))
                self._open[path] = safe_open(path, "pt")
            return self._open[path].get_slice(key)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path} is missing or damaged ({error}): build the data set again, which writes it anew"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """The state without tables and open files, so that a worker process opens its own."""
        return {"folder": self.folder, "card": self.card, "_open": {}}

    def _table(self, name: str) -> Any:
        path = self.folder / str(self.card["tables"][name])
        try:
            return parquet().read_table(path, memory_map=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is missing or damaged ({error}): build the data set again") from error


def open_dataset(folder: str | Path) -> Dataset:
    """The data set in a folder. Raises `DataError` if there is none or it has no clips."""
    dataset = Dataset(Path(folder))
    if not len(dataset):
        raise DataError(f"{folder} has no clips to train on: kinema data report {folder} lists the reasons")
    return dataset


def group_by_source(clips: Iterable[ClipRow], size: int) -> Iterator[tuple[str, list[ClipRow]]]:
    """(source_id, clips) of runs of at most `size` consecutive clips of one file."""
    group: list[ClipRow] = []
    for clip in clips:
        if group and (clip.source_id != group[0].source_id or len(group) == size):
            yield group[0].source_id, group
            group = []
        group.append(clip)
    if group:
        yield group[0].source_id, group


def read_card(folder: Path) -> dict[str, Any]:
    """The contents of dataset.json. Raises `DataError` if it is missing, damaged or of an unknown schema
    version.
    """
    path = folder / CARD
    if not path.exists():
        raise DataError(
            f"{folder} is not a data set: it has no {CARD}; make one with kinema data build FOLDER -o "
            f"{folder}"
        )
    card = read_json(path, DataError)
    version = card.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema_version {version}, and this Kinema reads {SCHEMA_VERSION}: build the "
            "data set again"
        )
    return card


def to_table(rows: Sequence[Row], kind: type[Row]) -> Any:
    """A pyarrow.Table of rows, with the types of the dataclass even if there are no rows."""
    import pyarrow

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(field.name, types[_type(field)]) for field in dataclasses.fields(kind)])
    return pyarrow.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)


def from_table(table: Any, kind: type[Row]) -> list[Any]:
    """The rows of a table as dataclasses."""
    return [kind(**row) for row in table.to_pylist()]


def parquet() -> ModuleType:
    """The module pyarrow.parquet. Raises `DataError` if pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"data sets need pyarrow ({error}): pip install 'pyarrow>=17'") from error
    return pyarrow.parquet


def _type(field: "dataclasses.Field[Any]") -> type:
    kinds: Mapping[Any, type] = {str: str, int: int, float: float, bool: bool}
    return kinds[field.type]
