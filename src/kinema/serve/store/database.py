"""A connection to the database: SQLite in a file, or Postgres by URL, with the same tables."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Double, Engine, create_engine, event, func, insert, literal, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.sql.elements import ColumnElement

from kinema.errors import ServeError
from kinema.serve.store.tables import SCHEMA_VERSION, metadata, settings

NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smbfs smb3 9p afs ceph lustre glusterfs beegfs gpfs fuse.sshfs fuse.glusterfs".split()  # noqa: SIM905
)
"""File systems on which SQLite's write-ahead log does not work (sqlite.org/wal.html, section 1)."""
BUSY_TIMEOUT_MS = 30_000
MIGRATION_LOCK = 0x6B696E65  # any number that other users of the database do not take


class Database:
    """The engine, its transactions and its clock."""

    def __init__(self, url: str) -> None:
        """`url` is "sqlite:///FILE" or "postgresql://...". Creates missing tables.

        Raises `ServeError` for another kind of database, a store of a newer version, a database that does not
        answer, and SQLite on a network file system.
        """
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        try:
            self._create_tables()
        except ServeError:
            self.engine.dispose()
            raise
        except OperationalError as error:
            self.engine.dispose()
            reason = str(error.orig).strip().splitlines()[0]
            raise ServeError(f"the store {_shown(url)} does not answer: {reason}") from error

    def now(self) -> ColumnElement[float]:
        """The present time in SQL: the clock of the database server, or of this machine for SQLite."""
        if self.is_sqlite:
            return literal(time.time())
        return func.extract("epoch", func.clock_timestamp()).cast(Double)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries that change nothing."""
        options = {"only_reads": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed at the end and rolled back by an exception."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _create_tables(self) -> None:
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            metadata.create_all(connection)
            found = connection.execute(select(settings.c.value).where(settings.c.name == "schema")).scalar()
            if found is None:
                connection.execute(insert(settings).values(name="schema", value=str(SCHEMA_VERSION)))
            elif int(found) > SCHEMA_VERSION:
                raise ServeError(
                    f"the store {_shown(str(self.engine.url))} has schema {found}, and this Kinema "
                    f"reads up to {SCHEMA_VERSION}: install the newer Kinema that wrote it"
                )


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite store in `file`. Raises `ServeError` on a network file system."""
    kind = file_system(file)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ServeError(
            f"{file} is on a network file system ({kind}), where SQLite loses data: use a local folder, or "
            "Postgres (--store postgresql://...)"
        )
    return f"sqlite:///{file.absolute()}"


def file_system(path: Path) -> str:
    """The kind of file system that holds `path`, as the system names it; "" if it is unknown."""
    where = path.absolute()
    mounts = [(Path(part.mountpoint), part.fstype) for part in psutil.disk_partitions(all=True)]
    inside = [(len(mount.parts), kind) for mount, kind in mounts if where.is_relative_to(mount)]
    return max(inside, default=(0, ""))[1]


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ServeError(f"'{url}' is no address of a store: write postgresql://user@host/name") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        engine = create_engine(parsed, pool_size=8, max_overflow=24)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    if kind == "postgresql":
        try:
            return create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=8, max_overflow=24
            )
        except ImportError as error:
            raise ServeError(
                f"a Postgres store needs psycopg ({error}): pip install 'kinema[postgres]'"
            ) from error
    raise ServeError(f"'{kind}' is not a store: use SQLite (the default) or postgresql://...")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """WAL with FULL loses no commit at a power failure; NORMAL may lose the last ones."""
    connection.isolation_level = None  # transactions begin where `_begin_immediate` begins them
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at the start: a transaction that reads first and then writes would fail as busy."""
    if not connection.get_execution_options().get("only_reads"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _shown(url: str) -> str:
    """`url` without its password."""
    return make_url(url).render_as_string(hide_password=True)
