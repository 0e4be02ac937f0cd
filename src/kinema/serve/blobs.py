"""Files of results and inputs by key: a local folder, or a bucket (obstore).

A key is written once with its final content, so a reader never sees half a file.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from kinema.errors import ServeError
from kinema.serve.settings import Storage

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A stored file."""

    key: str
    size_bytes: int
    modified: datetime
    etag: str


class Blobs:
    """The files of a server."""

    def __init__(self, storage: Storage) -> None:
        """Raises `ServeError` for an address that is not a bucket."""
        self.folder: Path | None = None
        if storage.blobs:
            try:
                self.store: Any = from_url(storage.blobs)
            except (BaseError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ServeError(f"'{storage.blobs}' is not the address of a bucket: {reason}") from None
        else:
            self.folder = (storage.data / "blobs").absolute()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.store = LocalStore(self.folder)

    def put(self, key: str, content: bytes | Path) -> None:
        """Store a file, or replace it."""
        obstore.put(self.store, key, content)

    def head(self, key: str) -> Blob | None:
        """What is stored under a key, or None."""
        try:
            return _blob(obstore.head(self.store, key))
        except (FileNotFoundError, BaseError) as error:
            if isinstance(error, BaseError) and "not found" not in str(error).lower():
                raise
            return None

    def chunks(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` - 1 in pieces."""
        for first in range(start, stop, CHUNK_BYTES):
            last = min(first + CHUNK_BYTES, stop)
            yield bytes(obstore.get_range(self.store, key, start=first, end=last))

    def fetch(self, key: str, path: Path) -> Path:
        """Copy a file to `path`. Raises `FileNotFoundError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        if self.folder is not None:
            shutil.copyfile(self.folder / key, partial)
        else:
            with partial.open("wb") as file:
                for chunk in obstore.get(self.store, key).stream(min_chunk_size=CHUNK_BYTES):
                    file.write(chunk)
        return partial.replace(path)

    def local_path(self, key: str) -> Path | None:
        """The file of a key if it is on this machine."""
        return None if self.folder is None else self.folder / key

    def keys(self, prefix: str) -> list[Blob]:
        """Everything under a prefix that ends with a slash."""
        return [_blob(item) for page in obstore.list(self.store, prefix=prefix) for item in page]

    def delete(self, *keys: str) -> None:
        """Delete files. A file that is missing is no error."""
        for key in keys:
            try:
                obstore.delete(self.store, key)
            except FileNotFoundError:
                continue

    def delete_all(self, prefix: str) -> None:
        """Delete everything under a prefix."""
        self.delete(*(blob.key for blob in self.keys(prefix)))

    def signed_url(self, key: str, seconds: float = 600) -> str | None:
        """An address that gives the file for a while, or None for a local folder."""
        if self.folder is not None:
            return None
        return obstore.sign(self.store, "GET", key, timedelta(seconds=seconds))


def age_s(blob: Blob) -> float:
    """Seconds since a file was stored."""
    return (datetime.now(UTC) - blob.modified).total_seconds()


def _blob(meta: Any) -> Blob:
    etag = str(meta.get("e_tag") or f"{meta['size']}-{meta['last_modified'].timestamp()}").strip('"')
    return Blob(meta["path"], meta["size"], meta["last_modified"], etag)
