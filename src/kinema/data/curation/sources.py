"""Which files a data set is made of, and what lies beside them: captions and licences.

- A folder: every file in it and below, but for hidden ones and those whose endings are in `BESIDE`.
- A list: a .txt with a path a line, or a .csv or .jsonl with the columns path and, if known, caption and licence.

Beside clip.mp4, clip.txt holds its caption, and clip.json any of "caption" (a text, or texts by form: {"short": ..., "detailed": ...}),
"licence" and "clips", a list of {"start_s", "end_s", "caption"} for parts of it. captions.csv in the folder has the columns of a list.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinema.errors import DataError

BESIDE = frozenset(
    {
        ".txt",
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".md",
        ".srt",
        ".vtt",
        ".html",
        ".xml",
        ".toml",
        ".yaml",
        ".yml",
        ".parquet",
    }
)
CAPTIONS_FILE = "captions.csv"
ORIGINAL = "original"
"""The form of a caption that came without one."""

Captions = dict[str, str]


@dataclass(frozen=True)
class Found:
    """A file: where it lies, its name in the data set, and what was said of it. `parts` are captions of (start, end) in seconds."""

    path: Path
    name: str
    captions: Captions = field(default_factory=dict)
    parts: tuple[tuple[float, float, Captions], ...] = ()
    licence: str | None = None

    def captions_of(self, start_s: float, end_s: float) -> Captions:
        """The captions of a stretch: those of the part that covers most of it, or else those of the whole file."""
        overlaps = [(min(end, end_s) - max(start, start_s), captions) for start, end, captions in self.parts]
        best = max(overlaps, key=lambda pair: pair[0], default=(0.0, self.captions))
        return best[1] if best[0] > 0.5 * (end_s - start_s) else self.captions


def find(place: Path) -> list[Found]:
    """The files of a folder or a list, in the order of their names, each once. Raises `DataError` when there is none."""
    if place.is_dir():
        rows = read_rows(place / CAPTIONS_FILE) if (place / CAPTIONS_FILE).is_file() else {}
        paths = [
            path
            for path in sorted(place.rglob("*"))
            if not path.is_dir() and not _is_hidden(path.relative_to(place))
        ]
        files = [
            _with_sidecars(path, path.relative_to(place).as_posix(), rows)
            for path in paths
            if path.suffix.lower() not in BESIDE
        ]
        unknown = sorted(set(rows) - {file.name for file in files})
        if unknown:
            raise DataError(
                f"{place / CAPTIONS_FILE} names {unknown[0]}, which is not in {place}: paths in it are relative to that folder"
            )
    elif place.is_file():
        rows = read_rows(place)
        files = [_with_sidecars(place.parent / name, name, rows) for name in sorted(rows)]
    else:
        raise DataError(f"{place}: there is no such folder or list")
    if not files:
        raise DataError(f"{place} holds no file that could be a video")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_rows(path: Path) -> dict[str, Mapping[str, Any]]:
    """The rows of a list by their path."""
    rows: dict[str, Mapping[str, Any]] = {}
    for number, row in _rows(path):
        name = row.get("path")
        if not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{path}, line {number}: no path (columns here: {', '.join(map(str, row))}; needed: path)"
            )
        rows[name.strip()] = row
    return rows


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no list of files: {error}; write a path a line, or a .csv with a column path"
        ) from error
    match path.suffix.lower():
        case ".csv":
            yield from ((number, row) for number, row in enumerate(csv.DictReader(text.splitlines()), 2))
        case ".jsonl":
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield number, _json(path, line, f", line {number}")
        case ".txt" | "":
            yield from (
                (number, {"path": line.strip()})
                for number, line in enumerate(text.splitlines(), 1)
                if line.strip()
            )
        case ending:
            raise DataError(
                f"{path}: a list of files ends in .txt, .csv or .jsonl, not {ending}; or give a folder"
            )


def _with_sidecars(path: Path, name: str, rows: Mapping[str, Mapping[str, Any]]) -> Found:
    said = dict(rows.get(name, {}))
    beside = path.with_suffix(".json")
    if beside.is_file():
        said |= _json(beside, _text(beside))
    if path.with_suffix(".txt").is_file():
        said.setdefault("caption", _text(path.with_suffix(".txt")))
    where = str(beside if beside.is_file() else path)
    parts = said.get("clips", ())
    if not isinstance(parts, list | tuple):
        raise DataError(f"{where}: clips must be a list of start_s, end_s and caption")
    spans = []
    for part in parts:
        try:
            spans.append(
                (float(part["start_s"]), float(part["end_s"]), _captions(part.get("caption"), where))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: a part of a clip needs start_s, end_s and caption; got {part!r}"
            ) from error
    licence = said.get("licence") or said.get("license")
    return Found(
        path, name, _captions(said.get("caption"), where), tuple(spans), str(licence) if licence else None
    )


def _captions(said: Any, where: str) -> Captions:
    """Captions by form; empty texts are none."""
    if said is None:
        return {}
    if isinstance(said, str):
        said = {ORIGINAL: said}
    if not isinstance(said, Mapping) or not all(isinstance(text, str) for text in said.values()):
        raise DataError(
            f"{where}: a caption is a text, or texts by form such as short and detailed; got {said!r}"
        )
    return {str(form): " ".join(text.split()) for form, text in said.items() if text.strip()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _json(path: Path, text: str, where: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}{where}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}{where}: an object of names and values is needed, not {type(value).__name__}")
    return value
