"""Files that appear complete or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kinema.errors import ModelError, OutputError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS})


def reason(error: OSError) -> str:
    """What stands in the way of writing, in words that say what to change."""
    match error.errno:
        case errno.EISDIR:
            return "a folder of that name is in the way"
        case errno.ENOTDIR | errno.EEXIST:
            return "a part of its path is a file, not a folder"
        case errno.EACCES | errno.EPERM:
            return "no permission to write there"
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full"
        case errno.EROFS:
            return "the disk is read-only"
        case _:
            return error.strerror or str(error)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into an `OutputError` of one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write into; it takes the place of `path`, synced to disk, when the body ends well.

    Any exception of the body, Ctrl-C included, removes it and leaves `path` as it was. Missing parent folders are made.
    Raises `OutputError` when nothing can be written there.
    """
    partial = path.with_name(f".kinema-{secrets.token_hex(6)}.partial")
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its mode is 0600 whatever the umask, and the result would be unreadable for a web server.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        with output_errors(path):
            _sync(partial)
            os.replace(partial, path)
            if (
                os.name == "posix"
            ):  # elsewhere a folder cannot be opened, and the rename is synced with the file
                _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_beside(folder: Path, mark: str) -> Iterator[Path]:
    """A new folder next to `folder` that takes its place when all went well; an older one must hold the file `mark` or be empty."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / mark).is_file())):
        raise OutputError(f"{folder} is in the way: it is not a folder that Kinema wrote")
    partial, old = (folder.parent / f".{folder.name}.{kind}" for kind in ("partial", "old"))
    try:
        if old.exists() and not folder.exists():  # a process that was killed between the two renames below
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {folder}: {error}") from error
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)


def content_key(*parts: Any) -> str:
    """32 hexadecimal digits that depend on every part; parts are plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
