"""Files that appear complete or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinema.errors import OutputError

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
