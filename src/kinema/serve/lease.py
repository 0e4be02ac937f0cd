"""The heartbeat of a worker: a thread that renews its leases, because a step can outlast one."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import DBAPIError

from kinema.serve.store.base import Claim, Progress, Store, Worker

log = logging.getLogger(__name__)

HUNG_EXIT_CODE = 70
"""Exit code of a worker whose step never ended."""
LONGEST_INTERVAL_S = 1.0
"""Progress is written, and a cancelled job noticed, at least this often."""


class Heartbeat:
    """Renews the leases of the jobs that a worker runs, writes their progress, and learns what became of
    them. A context manager."""

    def __init__(
        self, store: Store, worker: Worker, claims: Sequence[Claim], *, lease_s: float, step_timeout_s: float
    ) -> None:
        """`step_timeout_s` after the last sign of progress the process ends, and the leases with it."""
        self.store, self.worker, self.step_timeout_s = store, worker, step_timeout_s
        self.interval_s = min(lease_s / 3, LONGEST_INTERVAL_S)
        self._held = {claim.id: Progress(claim.id, claim.token) for claim in claims}
        self._ended: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._last_progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="kinema-heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def update(self, id: str, **values: Any) -> None:
        """Note the progress of a job, which the next beat writes."""
        with self._lock:
            self._last_progress = time.monotonic()
            if id in self._held:
                self._held[id] = replace(self._held[id], **values)

    def drop(self, id: str) -> None:
        """Renew the lease of a job no longer."""
        with self._lock:
            self._held.pop(id, None)

    def state(self, id: str) -> str:
        """ "held", "cancelled" (its owner cancelled it) or "lost" (another worker has it)."""
        with self._lock:
            return self._ended.get(id, "held")

    def beat(self) -> None:
        """Renew the leases now."""
        with self._lock:
            held = list(self._held.values())
        answers = self.store.beat(self.worker, held)
        with self._lock:
            for job in held:
                if job.id not in answers:
                    self._ended[job.id] = "lost"
                    self._held.pop(job.id, None)
                elif answers[job.id]:
                    self._ended[job.id] = "cancelled"

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            silent_s = time.monotonic() - self._last_progress
            if silent_s > self.step_timeout_s:
                log.error("no step in %.0f s: the worker ends, and its jobs go to another", silent_s)
                os._exit(HUNG_EXIT_CODE)  # a hung kernel answers no exception
            try:
                self.beat()
            except DBAPIError as error:  # the store is away: the next beat tells whether the lease is lost
                log.warning("no beat: %s", str(error.orig).strip().splitlines()[0])
