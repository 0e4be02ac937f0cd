"""The store of jobs in SQL. See `Store` for what its operations promise."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from kinema.serve.store import base
from kinema.serve.store.base import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    MAX_ATTEMPTS,
    QUEUED,
    Claim,
    Done,
    Failed,
    IdempotencyError,
    Limits,
    NewJob,
    Once,
    Outcome,
    Progress,
    QuotaError,
    Worker,
)
from kinema.serve.store.database import Database
from kinema.serve.store.tables import deliveries, idempotency, videos, webhooks, workers

DAY_S = 86_400.0
ENDED = {
    "phase": None,
    "worker": None,
    "lease_until": 0.0,
    "preview": None,
}
"""Columns of a job that no worker holds."""
CANCELLED = Failed("cancelled", "the job was cancelled")


class SqlStore:
    """`Store` on SQLite or Postgres."""

    def __init__(self, database: Database, *, lease_s: float = 30.0) -> None:
        self.database = database
        self.lease_s = lease_s

    def enqueue(self, jobs: Sequence[NewJob], limits: Limits, once: Once | None = None) -> list[str]:
        """See `Store.enqueue`."""
        owner = jobs[0].owner
        with self.database.write() as connection:
            if not self.database.is_sqlite:  # SQLite has one writer; here the owner's inserts wait in line
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(owner))))
            if once is not None and (earlier := self._earlier(connection, owner, once)) is not None:
                return [earlier]

            self._check_limits(connection, jobs, limits)
            now = self.database.now()
            connection.execute(insert(videos).values(created=now), [_row(job) for job in jobs])
            if once is not None:
                values = {"owner": owner, "key": once.key, "digest": once.digest, "video": jobs[0].id}
                connection.execute(insert(idempotency).values(created=now, **values))
        return [job.id for job in jobs]

    def _earlier(self, connection: Connection, owner: str, once: Once) -> str | None:
        """The job that was stored with the same idempotency key within a day."""
        mine = (idempotency.c.owner == owner, idempotency.c.key == once.key)
        old = idempotency.c.created < self.database.now() - DAY_S
        connection.execute(delete(idempotency).where(*mine, old))
        found = connection.execute(select(idempotency).where(*mine)).first()
        if found is not None and found.digest != once.digest:
            raise IdempotencyError(once.key)
        return None if found is None else str(found.video)

    def _check_limits(self, connection: Connection, jobs: Sequence[NewJob], limits: Limits) -> None:
        owner = videos.c.owner == jobs[0].owner
        if limits.max_queued is not None:
            waiting = select(func.count()).where(owner, videos.c.status.in_((QUEUED, IN_PROGRESS)))
            count = connection.execute(waiting).scalar_one()
            if count + len(jobs) > limits.max_queued:
                raise QuotaError(f"{count} jobs are queued or running, and {limits.max_queued} are allowed")
        if limits.seconds_per_day is not None:
            recent = select(func.coalesce(func.sum(videos.c.length_s), 0.0)).where(
                owner, videos.c.created > self.database.now() - DAY_S
            )
            used = float(connection.execute(recent).scalar_one())
            if used + sum(job.length_s for job in jobs) > limits.seconds_per_day:
                raise QuotaError(
                    f"{used:g} s of video were requested within a day, "
                    f"and {limits.seconds_per_day:g} s are allowed"
                )

    def claim(self, worker: Worker, limit: int = 1) -> list[Claim]:
        """See `Store.claim`."""
        if not self._has_work():
            self._register(worker)
            return []
        with self.database.write() as connection:
            self._fail_lost(connection)
            first = connection.execute(self._next_job(worker)).first()
            if first is None:
                return []
            rows = [first]
            if limit > 1 and first.batch_key and first.token == 0:  # one that has a state runs alone
                rows += connection.execute(self._like(first, limit - 1)).all()

            values = {
                "status": IN_PROGRESS,
                "worker": worker.id,
                "token": videos.c.token + 1,
                "attempt": videos.c.attempt + 1,
                "lease_until": self.database.now() + self.lease_s,
                "started": func.coalesce(videos.c.started, self.database.now()),
            }
            connection.execute(
                update(videos).where(videos.c.id.in_([row.id for row in rows])).values(**values)
            )
            return [_claim(row) for row in rows]

    def _has_work(self) -> bool:
        """Whether a job can be claimed: a query without the write lock, which idle workers do not need."""
        with self.database.read() as connection:
            return (
                connection.execute(select(videos.c.id).where(self._is_ready()).limit(1)).first() is not None
            )

    def _register(self, worker: Worker) -> None:
        """Write that the worker is alive, at most every third of a lease."""
        with self.database.read() as connection:
            recent = workers.c.seen > self.database.now() - self.lease_s / 3
            known = connection.execute(select(workers.c.id).where(workers.c.id == worker.id, recent)).first()
        if known is None:
            with self.database.write() as connection:
                self._seen(connection, worker)

    def _seen(self, connection: Connection, worker: Worker) -> None:
        now = self.database.now()
        changed = connection.execute(update(workers).where(workers.c.id == worker.id).values(seen=now))
        if changed.rowcount == 0:
            values = {
                "host": worker.host,
                "device": worker.device,
                "models_json": json.dumps([*worker.models]),
            }
            connection.execute(insert(workers).values(id=worker.id, started=now, seen=now, **values))

    def _is_ready(self) -> ColumnElement[bool]:
        is_lost = and_(videos.c.status == IN_PROGRESS, videos.c.lease_until < self.database.now())
        return or_(videos.c.status == QUEUED, is_lost)

    def _next_job(self, worker: Worker) -> Any:
        """The query of the first job in order of priority, running jobs of its owner, and age."""
        running = (
            select(videos.c.owner, func.count().label("jobs"))
            .where(videos.c.status == IN_PROGRESS, videos.c.lease_until >= self.database.now())
            .group_by(videos.c.owner)
            .subquery()
        )
        return (
            select(videos)
            .outerjoin(running, running.c.owner == videos.c.owner)
            .where(self._is_ready(), videos.c.model.in_(worker.models))
            .order_by(videos.c.priority, func.coalesce(running.c.jobs, 0), videos.c.created, videos.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=videos)
        )

    def _like(self, first: Any, limit: int) -> Any:
        """The query of queued jobs that can run together with `first`."""
        return (
            select(videos)
            .where(
                videos.c.status == QUEUED,
                videos.c.model == first.model,
                videos.c.batch_key == first.batch_key,
                videos.c.token == 0,
                videos.c.id != first.id,
            )
            .order_by(videos.c.priority, videos.c.created, videos.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=videos)
        )

    def _fail_lost(self, connection: Connection) -> None:
        """Fail the jobs that lost `MAX_ATTEMPTS` workers, and end those that were to be cancelled."""
        lost = and_(videos.c.status == IN_PROGRESS, videos.c.lease_until < self.database.now())
        ended = lost & (videos.c.is_cancelled | (videos.c.attempt >= MAX_ATTEMPTS))
        for row in connection.execute(select(videos).where(ended).with_for_update(skip_locked=True)).all():
            message = f"{row.attempt} workers ended while they ran this job"
            lost_for_good = Failed("worker_lost", message)
            self._end(connection, row, CANCELLED if row.is_cancelled else lost_for_good)

    def beat(self, worker: Worker, held: Sequence[Progress]) -> dict[str, bool]:
        """See `Store.beat`."""
        answers = {}
        with self.database.write() as connection:
            self._seen(connection, worker)
            for job in held:
                values = {
                    "lease_until": self.database.now() + self.lease_s,
                    "phase": job.phase,
                    "step": job.step,
                    "total": job.total,
                    "progress": job.percent,
                    "preview": job.preview,
                }
                mine = (videos.c.id == job.id, videos.c.token == job.token, videos.c.status == IN_PROGRESS)
                changed = connection.execute(
                    update(videos).where(*mine).values(**values).returning(videos.c.is_cancelled)
                ).first()
                if changed is not None:
                    answers[job.id] = bool(changed.is_cancelled)
        return answers

    def finish(self, id: str, token: int, outcome: Outcome) -> bool:
        """See `Store.finish`."""
        with self.database.write() as connection:
            mine = (videos.c.id == id, videos.c.token == token, videos.c.status == IN_PROGRESS)
            row = connection.execute(select(videos).where(*mine).with_for_update()).first()
            if row is None:
                return False
            if isinstance(outcome, base.Released) and row.is_cancelled:
                outcome = CANCELLED
            self._end(connection, row, outcome)
        return True

    def cancel(self, id: str, owner: str) -> bool:
        """See `Store.cancel`."""
        with self.database.write() as connection:
            mine = (videos.c.id == id, videos.c.owner == owner)
            row = connection.execute(select(videos).where(*mine).with_for_update()).first()
            if row is None or row.status not in (QUEUED, IN_PROGRESS):
                return False
            if row.status == QUEUED:
                self._end(connection, row, CANCELLED)
            else:
                connection.execute(update(videos).where(*mine).values(is_cancelled=True))
        return True

    def _end(self, connection: Connection, row: Any, outcome: Outcome) -> None:
        """Write the outcome of a job, and the events that tell of it."""
        now = self.database.now()
        match outcome:
            case Done(result, keep_s):
                values: dict[str, Any] = {
                    "status": COMPLETED,
                    "completed": now,
                    "expires": now + keep_s,
                    "progress": 100,
                    "result_json": json.dumps(result),
                }
            case Failed(code, message):
                values = {"status": FAILED, "completed": now, "error_code": code, "error_message": message}
            case _:  # as before the claim; the attempt does not count
                values = {"status": QUEUED, "attempt": row.attempt - 1}
        connection.execute(update(videos).where(videos.c.id == row.id).values(**ENDED, **values))
        if values["status"] != QUEUED:
            self._add_events(connection, row, f"video.{values['status']}")

    def _add_events(self, connection: Connection, row: Any, type: str) -> None:
        """One delivery for every webhook of the job's owner, in the transaction of its outcome."""
        mine = (webhooks.c.owner == row.owner, webhooks.c.disabled.is_(None))
        hooks = connection.execute(select(webhooks.c.id).where(*mine)).all()
        for hook in hooks:
            add_delivery(connection, self.database, hook.id, type, {"id": row.id})


def add_delivery(
    connection: Connection, database: Database, webhook: str, type: str, data: Mapping[str, Any]
) -> str:
    """The id of a new event that is due now. Its time is filled in when it is sent."""
    event = f"evt_{secrets.token_hex(12)}"
    body = json.dumps({"id": event, "object": "event", "type": type, "data": data})
    now = database.now()
    connection.execute(
        insert(deliveries).values(
            id=f"{event}.{webhook}", event=event, webhook=webhook, body=body, created=now, due=now, tries=0
        )
    )
    return event


def _row(job: NewJob) -> dict[str, Any]:
    """The row of a new job; its time is set by the database."""
    names = (
        *("id", "owner", "model", "prompt", "size", "seconds", "length_s"),
        *("batch_key", "priority", "remixed_from", "batch"),
    )
    row = {name: getattr(job, name) for name in names}
    row |= {f"{name}_json": json.dumps(getattr(job, name)) for name in ("request", "inputs", "detail")}
    row |= {"shown_model": job.shown_model or job.model, "status": QUEUED, "token": 0, "attempt": 0}
    return row | {"lease_until": 0.0, "is_cancelled": False, "step": 0, "total": 0, "progress": 0}


def _claim(row: Any) -> Claim:
    """The claim of a row as it was before its token and attempt were counted up."""
    return Claim(
        row.id,
        row.token + 1,
        row.attempt + 1,
        row.owner,
        row.model,
        json.loads(row.request_json),
        json.loads(row.inputs_json),
        json.loads(row.detail_json),
    )
