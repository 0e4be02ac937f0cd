"""API keys: random, stored as digests, with scopes and quotas."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, or_, select, update

from kinema.errors import ServeError
from kinema.serve.store.base import Limits
from kinema.serve.store.database import Database
from kinema.serve.store.tables import keys

PREFIX = "kin_"
SHOWN = 8
NO_LIMITS = Limits()
SCOPES = ("videos.read", "videos.write", "admin")


@dataclass(frozen=True)
class Caller:
    """Who sent a request. Jobs belong to an owner: the id of a key, or "local" without keys."""

    owner: str = "local"
    scopes: frozenset[str] = frozenset(SCOPES)
    priority: int = 0
    limits: Limits = NO_LIMITS


def create(
    database: Database,
    name: str,
    *,
    scopes: Sequence[str] = ("videos.read", "videos.write"),
    priority: int = 0,
    limits: Limits = NO_LIMITS,
    expires_in_s: float | None = None,
) -> tuple[str, str]:
    """The id and the text of a new key, which is stored nowhere. Raises `ServeError` for an unknown scope."""
    if wrong := sorted(set(scopes) - set(SCOPES)):
        raise ServeError(f"unknown scope {', '.join(wrong)}: use {', '.join(SCOPES)}")
    key = PREFIX + base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    id = f"key_{secrets.token_hex(8)}"
    now = database.now()
    row = {
        "id": id,
        "digest": digest(key),
        "shown": key[: len(PREFIX) + SHOWN],
        "name": name,
        "scopes": " ".join(scopes),
        "priority": priority,
        "max_queued": limits.max_queued,
        "seconds_per_day": limits.seconds_per_day,
    }
    with database.write() as connection:
        expires = None if expires_in_s is None else now + expires_in_s
        connection.execute(insert(keys).values(created=now, expires=expires, **row))
    return id, key


def digest(key: str) -> str:
    """The SHA-256 of a key. A key of 256 random bits needs no slow hash."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _is_valid(database: Database) -> Any:
    return keys.c.revoked.is_(None) & or_(keys.c.expires.is_(None), keys.c.expires > database.now())


def find(database: Database, key: str) -> Caller | None:
    """The caller with a key, or None if the key is unknown, expired or revoked."""
    with database.read() as connection:
        row = connection.execute(
            select(keys).where(keys.c.digest == digest(key), _is_valid(database))
        ).first()
    if row is None:
        return None
    limits = Limits(row.max_queued, row.seconds_per_day)
    return Caller(row.id, frozenset(row.scopes.split()), row.priority, limits)


def exist(database: Database) -> bool:
    """Whether a valid key exists."""
    with database.read() as connection:
        return connection.execute(select(keys.c.id).where(_is_valid(database)).limit(1)).first() is not None


def rows(database: Database) -> Sequence[Any]:
    """All keys, the newest first."""
    with database.read() as connection:
        return connection.execute(select(keys).order_by(keys.c.created.desc())).all()


def revoke(database: Database, id: str) -> bool:
    """Whether a key was revoked now, by its id or its first characters."""
    mine = or_(keys.c.id == id, keys.c.shown == id) & keys.c.revoked.is_(None)
    with database.write() as connection:
        return connection.execute(update(keys).where(mine).values(revoked=database.now())).rowcount > 0
