"""The input files of a data set, and what is stored beside them: captions and licences.

- A folder: every file in it and below it, except hidden ones and those with an ending in `SIDECAR_ENDINGS`.
- A list: a .txt with one path per line, or a .csv or .jsonl with the columns path and optionally caption and
  licence.

Beside clip.mp4, clip.txt holds its caption, and clip.json any of "caption" (a text, or texts by form:
{"short": ..., "detailed": ...}), "licence" and "clips", a list of {"start_s", "end_s", "caption"} for spans
of it. captions.csv in the folder has the columns of a list.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kinema.errors import DataError

SIDECAR_ENDINGS = frozenset(
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
"""The form of a caption that came without a form."""

TextsByForm = dict[str, str]


class CaptionedSpan(NamedTuple):
    """The captions of a part of a file, from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    captions: TextsByForm


@dataclass(frozen=True)
class InputFile:
    """A file: its path, its name in the data set, and the captions and the licence that came with it."""

    path: Path
    name: str
    captions: TextsByForm = field(default_factory=dict)
    spans: tuple[CaptionedSpan, ...] = ()
    licence: str | None = None

    def captions_of(self, start_s: float, end_s: float) -> TextsByForm:
        """The captions of the span that covers most of `start_s` to `end_s`; those of the file if it covers
        less than half.
        """
        overlaps = [min(span.end_s, end_s) - max(span.start_s, start_s) for span in self.spans]
        if not overlaps:
            return self.captions
        best = max(range(len(overlaps)), key=overlaps.__getitem__)
        return self.spans[best].captions if overlaps[best] > 0.5 * (end_s - start_s) else self.captions


def find_files(path: Path) -> list[InputFile]:
    """The files of a folder or a list, sorted by name, each once. Raises `DataError` if there is none."""
    if path.is_dir():
        files = _files_in_folder(path)
    elif path.is_file():
        rows = read_rows(path)
        files = [_with_sidecars(path.parent / name, name, rows) for name in sorted(rows)]
    else:
        raise DataError(f"{path}: no such folder or list")

    if not files:
        raise DataError(f"{path} holds no file that could be a video")
    return files


def _files_in_folder(folder: Path) -> list[InputFile]:
    captions_file = folder / CAPTIONS_FILE
    rows = read_rows(captions_file) if captions_file.is_file() else {}

    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if not path.is_dir() and not is_hidden and path.suffix.lower() not in SIDECAR_ENDINGS:
            files.append(_with_sidecars(path, name.as_posix(), rows))

    unknown = sorted(set(rows) - {file.name for file in files})
    if unknown:
        raise DataError(
            f"{captions_file} names {unknown[0]}, which is not in {folder}: its paths are relative to "
            "that folder"
        )
    return files


def read_rows(path: Path) -> dict[str, Mapping[str, Any]]:
    """The rows of a list by their path. Raises `DataError` if the file is not a list or a row has no path."""
    rows: dict[str, Mapping[str, Any]] = {}
    for number, row in _numbered_rows(path):
        name = row.get("path")
        if not isinstance(name, str) or not name.strip():
            columns = ", ".join(map(str, row))
            raise DataError(f"{path}, line {number}: no path (columns here: {columns}; needed: path)")
        rows[name.strip()] = row
    return rows


def _numbered_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, row) of a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a list of files: {error}; write one path per line, or a .csv with a column path"
        ) from error

    lines = text.splitlines()
    match path.suffix.lower():
        case ".csv":
            yield from enumerate(csv.DictReader(lines), 2)
        case ".jsonl":
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json(path, line, f", line {number}")
        case ".txt" | "":
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, {"path": line.strip()}
        case ending:
            raise DataError(
                f"{path}: a list of files ends in .txt, .csv or .jsonl, not {ending}; or give a folder"
            )


def _with_sidecars(path: Path, name: str, rows: Mapping[str, Mapping[str, Any]]) -> InputFile:
    """The file with the values of its row, of clip.json and of clip.txt; the .json has priority, the .txt
    comes last.
    """
    values = dict(rows.get(name, {}))
    json_file, text_file = path.with_suffix(".json"), path.with_suffix(".txt")
    if json_file.is_file():
        values |= _json(json_file, _text(json_file))
    if text_file.is_file():
        values.setdefault("caption", _text(text_file))

    origin = str(json_file if json_file.is_file() else path)
    licence = values.get("licence") or values.get("license")
    return InputFile(
        path,
        name,
        _captions(values.get("caption"), origin),
        _spans(values.get("clips", ()), origin),
        str(licence) if licence else None,
    )


def _spans(values: Any, origin: str) -> tuple[CaptionedSpan, ...]:
    if not isinstance(values, list | tuple):
        raise DataError(f"{origin}: clips must be a list of start_s, end_s and caption")

    spans = []
    for value in values:
        try:
            start_s, end_s = float(value["start_s"]), float(value["end_s"])
            spans.append(CaptionedSpan(start_s, end_s, _captions(value.get("caption"), origin)))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{origin}: a part of a clip needs start_s, end_s and caption; got {value!r}"
            ) from error
    return tuple(spans)


def _captions(value: Any, origin: str) -> TextsByForm:
    """Captions by form, without empty ones. Raises `DataError` if they are not text."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = {ORIGINAL: value}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(
            f"{origin}: caption must be a text, or texts by form such as short and detailed; got {value!r}"
        )
    return {str(form): " ".join(text.split()) for form, text in value.items() if text.strip()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _json(path: Path, text: str, location: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}{location}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}{location}: an object of names and values is needed, not {type(value).__name__}"
        )
    return value
