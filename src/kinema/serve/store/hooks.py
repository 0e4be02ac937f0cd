"""Webhooks and their outbox. Events are written in the transaction of a job's outcome (`SqlStore.finish`)."""

import base64
import random
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update

from kinema.serve.store.database import Database
from kinema.serve.store.jobs import add_delivery
from kinema.serve.store.tables import deliveries, webhooks

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 6 * 3600.0
GIVE_UP_S = 72 * 3600.0
LEASE_S = 60.0
"""For so long a claimed delivery is not claimed by another process."""


def add(database: Database, owner: str, url: str) -> tuple[str, str]:
    """The id and the secret of a new webhook."""
    id, secret = f"wh_{secrets.token_hex(8)}", "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    with database.write() as connection:
        row = {"id": id, "owner": owner, "url": url, "secret": secret}
        connection.execute(insert(webhooks).values(created=database.now(), **row))
    return id, secret


def rows(database: Database, owner: str | None = None) -> Sequence[Any]:
    """The webhooks of an owner, or all."""
    query = select(webhooks).order_by(webhooks.c.created)
    with database.read() as connection:
        return connection.execute(query if owner is None else query.where(webhooks.c.owner == owner)).all()


def remove(database: Database, id: str, owner: str | None = None) -> bool:
    """Whether a webhook was removed now."""
    mine = webhooks.c.id == id if owner is None else (webhooks.c.id == id) & (webhooks.c.owner == owner)
    with database.write() as connection:
        connection.execute(update(deliveries).where(deliveries.c.webhook == id).values(due=None))
        return connection.execute(delete(webhooks).where(mine)).rowcount > 0


def test(database: Database, id: str) -> str:
    """The id of a test event that is sent to a webhook next."""
    with database.write() as connection:
        return add_delivery(connection, database, id, "webhook.test", {"id": id})


def claim(database: Database, limit: int = 16) -> Sequence[Any]:
    """Deliveries that are due, with the address and the secret of their webhooks, held for `LEASE_S`."""
    due = (deliveries.c.due <= database.now(), webhooks.c.disabled.is_(None))
    with database.read() as connection:
        query = select(deliveries.c.id).join(webhooks, webhooks.c.id == deliveries.c.webhook).where(*due)
        if connection.execute(query.limit(1)).first() is None:
            return []
    with database.write() as connection:
        found = connection.execute(
            select(deliveries, webhooks.c.url, webhooks.c.secret)
            .join(webhooks, webhooks.c.id == deliveries.c.webhook)
            .where(*due)
            .order_by(deliveries.c.due)
            .limit(limit)
            .with_for_update(skip_locked=True, of=deliveries)
        ).all()
        ids = [row.id for row in found]
        held = {"due": database.now() + LEASE_S, "tries": deliveries.c.tries + 1}
        connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(**held))
    return found


def settle(database: Database, row: Any, outcome: str, *, is_delivered: bool, is_gone: bool = False) -> None:
    """Write how a delivery went. A failed one is due again after a wait that doubles, up to `GIVE_UP_S`.

    `is_gone` disables the webhook (status 410).
    """
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**row.tries) * random.uniform(0.5, 1.0)
    with database.write() as connection:
        now = database.now()
        is_over = is_delivered or is_gone
        values = {"outcome": outcome[:200], "due": None if is_over else now + wait_s}
        connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(**values))
        too_old = (deliveries.c.id == row.id, deliveries.c.created < now - GIVE_UP_S)
        connection.execute(update(deliveries).where(*too_old).values(due=None))
        if is_gone:
            gone = update(webhooks).where(webhooks.c.id == row.webhook)
            connection.execute(gone.values(disabled="the receiver answered 410 Gone"))


def num_failing(database: Database) -> int:
    """The number of deliveries that failed and will be tried again."""
    with database.read() as connection:
        failing = (deliveries.c.due.is_not(None), deliveries.c.outcome.is_not(None))
        return len(connection.execute(select(deliveries.c.id).where(*failing)).all())
