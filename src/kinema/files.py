"""Atomic files and folders, locks, JSON and hashes.

Nothing else in the package renames or hashes files: a result appears complete at its path, or not at all.
"""

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

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from kinema.errors import KinemaError, ModelError, OutputError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS})


def reason(error: OSError) -> str:
    """The cause of a failed write in words that tell the user what to change."""
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
    """Convert an OSError or a SafetensorError of the body to a one-line `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    except SafetensorError as error:  # safetensors raises its own class for a full disk
        raise OutputError(f"cannot write {path}: {error}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write into. When the body ends, it is synced to disk and renamed to
    `path`.

    An exception of the body, KeyboardInterrupt included, deletes it and leaves `path` unchanged. Missing
    parent folders are created. Raises `OutputError` if the file cannot be created or renamed; errors of the
    body pass through (`output_errors`).
    """
    partial = path.with_name(f".kinema-{secrets.token_hex(6)}.partial")
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its mode is 0600 whatever the umask, and a web server could not read the result.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

    try:
        yield partial
        with output_errors(path):
            _sync(partial)
            os.replace(partial, path)
            _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path, mark: str) -> Iterator[Path]:
    """A new folder beside `folder` to write into. When the body ends, it is synced to disk and renamed to
    `folder`.

    An existing folder is replaced if it is empty or holds the file `mark`. An exception of the body deletes
    the new folder and leaves the existing one unchanged. The next call for the same folder deletes what a
    killed process left. Raises `OutputError` for an existing file or a folder without `mark`, and for an
    OSError or SafetensorError of the body.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / mark).is_file())):
        raise OutputError(f"{folder} is in the way: it is not a folder that Kinema wrote")
    partial, old = (folder.parent / f".{folder.name}.{kind}" for kind in ("partial", "old"))

    try:
        if old.exists() and not folder.exists():  # a process was killed between the two renames below
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial

        for file in partial.rglob("*"):
            if file.is_file():
                _sync(file)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
        _sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {folder}: {error}") from error
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def folder_lock(folder: Path, busy: KinemaError) -> Iterator[None]:
    """Hold the lock of `folder` during the body, and first delete partial files that a killed process left in
    it.

    The folder is created if it is missing. The lock ends with the process. Raises `busy` if another process
    holds the lock, and `OutputError` if the folder is not writable.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise busy from error

    try:
        for partial in folder.rglob(".kinema-*.partial"):
            partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY if file.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Sync a rename. Only POSIX can open a folder; elsewhere the rename is synced with the file."""
    if os.name == "posix":
        _sync(folder)


def read_json(file: Path, error: type[KinemaError] = ModelError) -> dict[str, Any]:
    """The object in a JSON file.

    Raises `error` naming the file if it is missing, damaged or holds another type.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{file} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise error(f"{file}: {cause}") from None
    if not isinstance(values, dict):
        raise error(f"{file} does not hold a JSON object")
    return values


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object atomically. Raises `OutputError` if it cannot be written."""
    text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    with atomic_file(file) as partial, output_errors(file):
        partial.write_text(text, encoding="utf-8")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_key(value: Any) -> str:
    """32 hexadecimal digits of the SHA-256 of a plain JSON value, whatever the order of keys in objects."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def file_fingerprint(path: Path) -> str:
    """12 hexadecimal digits that identify a model without a manifest, from names, sizes, and the first and
    last 64 KiB of every file.

    Hashing tens of gigabytes would take longer than loading; `kinema models verify` is for folders with a
    manifest.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path) if path.is_dir() else file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(65536))
            stream.seek(max(0, size - 65536))
            digest.update(stream.read(65536))
    return digest.hexdigest()[:12]
