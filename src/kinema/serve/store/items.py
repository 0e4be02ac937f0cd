"""Characters, uploaded files and batches: rows that belong to an owner."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, delete, insert, select, update

from kinema.serve.store.database import Database
from kinema.serve.store.tables import batches, characters, files

IDS = {characters.name: "char", files.name: "file", batches.name: "batch"}
"""Prefix of the ids of each table."""


def new_id(table: Table) -> str:
    """A random id."""
    return f"{IDS[table.name]}_{secrets.token_hex(12)}"


def add(database: Database, table: Table, **values: Any) -> Any:
    """The new row."""
    with database.write() as connection:
        connection.execute(insert(table).values(created=database.now(), **values))
        return connection.execute(select(table).where(table.c.id == values["id"])).one()


def get(database: Database, table: Table, id: str, owner: str) -> Any | None:
    """The row of an owner, or None."""
    with database.read() as connection:
        return connection.execute(select(table).where(table.c.id == id, table.c.owner == owner)).first()


def rows(
    database: Database, table: Table, owner: str, *, after: str | None = None, limit: int = 20
) -> Sequence[Any]:
    """Up to `limit` rows of an owner, the newest first, after the row of an id."""
    query = select(table).where(table.c.owner == owner)
    with database.read() as connection:
        if after is not None:
            mark = select(table.c.created).where(table.c.id == after).scalar_subquery()
            query = query.where(table.c.created < mark)
        return connection.execute(query.order_by(table.c.created.desc(), table.c.id).limit(limit)).all()


def remove(database: Database, table: Table, id: str, owner: str) -> bool:
    """Whether a row of an owner was removed now."""
    with database.write() as connection:
        mine = (table.c.id == id, table.c.owner == owner)
        return connection.execute(delete(table).where(*mine)).rowcount > 0


def blobs(database: Database) -> set[str]:
    """The blobs of all characters and files."""
    with database.read() as connection:
        found = [connection.execute(select(table.c.blob)).scalars() for table in (characters, files)]
        return {blob for column in found for blob in column}


def end_batch(
    database: Database,
    id: str,
    *,
    status: str,
    lines: Sequence[Mapping[str, Any]] | None = None,
    output_file: str | None = None,
    error_file: str | None = None,
) -> None:
    """Write the end of a batch."""
    values: dict[str, Any] = {"status": status, "output_file": output_file, "error_file": error_file}
    if lines is not None:
        values["lines_json"] = json.dumps([*lines])
    with database.write() as connection:
        connection.execute(
            update(batches).where(batches.c.id == id).values(completed=database.now(), **values)
        )


def open_batches(database: Database) -> Sequence[Any]:
    """The batches that have not ended."""
    with database.read() as connection:
        return connection.execute(select(batches).where(batches.c.status == "in_progress")).all()
