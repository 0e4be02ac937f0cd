"""What a store of jobs does: five operations, and the values that pass through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

QUEUED, IN_PROGRESS, COMPLETED, FAILED, DELETED = "queued", "in_progress", "completed", "failed", "deleted"
MAX_ATTEMPTS = 3
"""Times that a job is begun. A request that kills its process fails after that, and does not kill every
worker in turn."""


@dataclass(frozen=True)
class NewJob:
    """A job to enqueue. `request` and `detail` are plain JSON values."""

    id: str
    owner: str
    model: str
    request: Mapping[str, Any]
    prompt: str
    size: str
    seconds: str
    length_s: float
    shown_model: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The blob of each input clip by its content hash."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    batch_key: str = ""
    """Equal for jobs that one run can generate together."""
    priority: int = 0
    """Jobs of a lower number run first."""
    remixed_from: str | None = None
    batch: str | None = None


@dataclass(frozen=True)
class Limits:
    """What an owner may have in the store. None is no limit."""

    max_queued: int | None = None
    seconds_per_day: float | None = None


@dataclass(frozen=True)
class Once:
    """An idempotency key, and the digest of the request that it was sent with."""

    key: str
    digest: str


@dataclass(frozen=True)
class Claim:
    """A job that a worker holds until its lease ends. `token` differs for every claim of a job."""

    id: str
    token: int
    attempt: int
    owner: str
    model: str
    request: Mapping[str, Any]
    inputs: Mapping[str, str]
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """The state of a held job, written with the next beat."""

    id: str
    token: int
    phase: str = "sample"
    step: int = 0
    total: int = 0
    percent: int = 0
    preview: str | None = None
    """The blob of the latest preview."""


@dataclass(frozen=True)
class Worker:
    """A worker as the store lists it."""

    id: str
    host: str
    device: str
    models: Sequence[str]


@dataclass(frozen=True)
class Done:
    """A completed job: its blobs and report in plain JSON values, and how long they are kept."""

    result: Mapping[str, Any]
    keep_s: float


@dataclass(frozen=True)
class Failed:
    """A job that failed, or was cancelled."""

    code: str
    message: str


@dataclass(frozen=True)
class Released:
    """A job that its worker gives back, to be continued by another."""


Outcome = Done | Failed | Released


class QuotaError(Exception):
    """An owner has as many jobs or seconds as it may have."""


class IdempotencyError(Exception):
    """An idempotency key was used before with another request."""


class Store(Protocol):
    """The operations that keep every job through any crash.

    A job belongs to the worker whose token is in its row. Leases are measured by one clock for all workers.
    """

    def enqueue(self, jobs: Sequence[NewJob], limits: Limits, once: Once | None = None) -> list[str]:
        """The ids of the jobs, which are all stored when this returns, or not at all.

        With `once`, the id of an earlier job of the same owner and key is returned instead. Raises
        `QuotaError` and `IdempotencyError`.
        """
        ...

    def claim(self, worker: Worker, limit: int = 1) -> list[Claim]:
        """Up to `limit` jobs that can run together, held by `worker` from now on.

        Order: priority, running jobs of the owner, age. Jobs whose lease has ended are taken over; after
        `MAX_ATTEMPTS` they fail with the code `worker_lost`.
        """
        ...

    def beat(self, worker: Worker, held: Sequence[Progress]) -> dict[str, bool]:
        """Renew the leases of `held` jobs. For each that is still held: whether it is to be cancelled.

        A job that is missing from the answer belongs to another worker, or is gone.
        """
        ...

    def finish(self, id: str, token: int, outcome: Outcome) -> bool:
        """Store the outcome of a held job, with its webhook events. False, and no change, if the token is
        not the row's."""
        ...

    def cancel(self, id: str, owner: str) -> bool:
        """Cancel a job: at once if it is queued, at its next step if it runs. False if it has ended or is
        not the owner's."""
        ...
