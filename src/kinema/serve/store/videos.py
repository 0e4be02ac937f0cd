"""Queries of the job table beside the operations of `Store`: replies, lists, deletion, expiry and figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, or_, select, update

from kinema.serve.store.base import COMPLETED, DELETED, FAILED, IN_PROGRESS, QUEUED, Worker
from kinema.serve.store.database import Database
from kinema.serve.store.tables import videos, workers

Row = Any
"""A row of the table `videos`."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    rows: Sequence[Row]
    has_more: bool


def get(database: Database, id: str, owner: str | None) -> Row | None:
    """The job of an owner (None: of anyone), or None if there is none or it was deleted."""
    query = select(videos).where(videos.c.id == id, videos.c.status != DELETED)
    if owner is not None:
        query = query.where(videos.c.owner == owner)
    with database.read() as connection:
        return connection.execute(query).first()


def page(
    database: Database,
    owner: str | None,
    *,
    after: str | None = None,
    before: str | None = None,
    limit: int = 20,
    newest_first: bool = True,
    status: str | None = None,
) -> Page:
    """Up to `limit` jobs after, or before, the job of an id in the order of their creation."""
    query = select(videos).where(videos.c.status == status if status else videos.c.status != DELETED)
    if owner is not None:
        query = query.where(videos.c.owner == owner)

    with database.read() as connection:
        cursor = after or before
        if cursor is not None:
            mark = connection.execute(
                select(videos.c.created, videos.c.id).where(videos.c.id == cursor)
            ).first()
            if mark is None:
                return Page([], False)
            is_later = or_(
                videos.c.created > mark.created, and_(videos.c.created == mark.created, videos.c.id > mark.id)
            )
            is_earlier = ~is_later & (videos.c.id != mark.id)
            query = query.where(is_earlier if newest_first == (after is not None) else is_later)

        descends = newest_first == (before is None)
        order = [column.desc() if descends else column.asc() for column in (videos.c.created, videos.c.id)]
        rows = list(connection.execute(query.order_by(*order).limit(limit + 1)).all())
    has_more, rows = len(rows) > limit, rows[:limit]
    return Page(rows if before is None else rows[::-1], has_more)


def of_batch(database: Database, batch: str) -> Sequence[Row]:
    """The jobs of a batch, deleted ones too."""
    with database.read() as connection:
        return connection.execute(select(videos).where(videos.c.batch == batch)).all()


def mark_deleted(database: Database, id: str, owner: str) -> bool:
    """Whether a job of the owner was deleted now. A running one is cancelled first."""
    mine = (videos.c.id == id, videos.c.owner == owner, videos.c.status != DELETED)
    values = {"status": DELETED, "deleted": database.now(), "is_cancelled": True}
    with database.write() as connection:
        return connection.execute(update(videos).where(*mine).values(**values)).rowcount > 0


def expire(database: Database) -> int:
    """The number of jobs that were deleted now because their time is over."""
    over = (videos.c.status == COMPLETED, videos.c.expires < database.now())
    with database.write() as connection:
        values = {"status": DELETED, "deleted": database.now()}
        return connection.execute(update(videos).where(*over).values(**values)).rowcount


def retry(database: Database, id: str) -> bool:
    """Whether a failed job was queued again."""
    values = {
        "status": QUEUED,
        "attempt": 0,
        "error_code": None,
        "error_message": None,
        "is_cancelled": False,
    }
    with database.write() as connection:
        failed = (videos.c.id == id, videos.c.status == FAILED)
        return connection.execute(update(videos).where(*failed).values(completed=None, **values)).rowcount > 0


def kept(database: Database, ids: Sequence[str], grace_s: float) -> set[str]:
    """Those of `ids` whose blobs are needed: jobs that are not deleted, or not for `grace_s` seconds."""
    recent = or_(videos.c.status != DELETED, videos.c.deleted > database.now() - grace_s)
    with database.read() as connection:
        return {row.id for row in connection.execute(select(videos.c.id).where(videos.c.id.in_(ids), recent))}


def kept_inputs(database: Database, grace_s: float) -> set[str]:
    """The blobs of inputs that jobs need, or that deleted jobs needed less than `grace_s` seconds ago."""
    recent = or_(videos.c.status != DELETED, videos.c.deleted > database.now() - grace_s)
    with database.read() as connection:
        rows = connection.execute(select(videos.c.inputs_json).where(recent, videos.c.inputs_json != "{}"))
        return {blob for row in rows for blob in json.loads(row.inputs_json).values()}


def live_workers(database: Database, within_s: float) -> list[Worker]:
    """The workers that were seen within so many seconds."""
    with database.read() as connection:
        seen = workers.c.seen > database.now() - within_s
        rows = connection.execute(select(workers).where(seen).order_by(workers.c.id)).all()
    return [Worker(row.id, row.host, row.device, tuple(json.loads(row.models_json))) for row in rows]


def depth(database: Database) -> dict[tuple[str, int], int]:
    """The number of jobs that wait or run, by status and priority."""
    with database.read() as connection:
        waiting = videos.c.status.in_((QUEUED, IN_PROGRESS))
        rows = connection.execute(
            select(videos.c.status, videos.c.priority, func.count().label("jobs"))
            .where(waiting)
            .group_by(videos.c.status, videos.c.priority)
        )
        return {(row.status, row.priority): row.jobs for row in rows}


def ended_within(database: Database, seconds: float) -> list[tuple[str, int, float, int]]:
    """For each outcome of the last `seconds`: how many jobs, their mean time, and how often a worker was
    lost."""
    recent = (videos.c.completed > database.now() - seconds, videos.c.started.is_not(None))
    mean_s = func.avg(videos.c.completed - videos.c.started)
    with database.read() as connection:
        rows = connection.execute(
            select(
                videos.c.status,
                func.count().label("jobs"),
                mean_s.label("mean"),
                func.sum(videos.c.attempt).label("attempts"),
            )
            .where(*recent, videos.c.status != DELETED)
            .group_by(videos.c.status)
        ).all()
    return [(row.status, row.jobs, float(row.mean), max(0, int(row.attempts) - row.jobs)) for row in rows]


def oldest_s(database: Database) -> float:
    """Seconds for which the oldest queued job has waited; 0 without one."""
    with database.read() as connection:
        oldest = func.min(videos.c.created)
        age = connection.execute(select(database.now() - oldest).where(videos.c.status == QUEUED)).scalar()
    return max(0.0, float(age or 0.0))
