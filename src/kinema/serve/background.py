"""What runs beside the HTTP side: deliveries of webhooks, the ends of batches, expiry and orphaned files."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError
from standardwebhooks.webhooks import Webhook

from kinema.serve.api.views import video
from kinema.serve.blobs import Blobs, age_s
from kinema.serve.fetch import FetchError, send
from kinema.serve.settings import ServerSettings
from kinema.serve.store import hooks, items, videos
from kinema.serve.store.base import COMPLETED, FAILED
from kinema.serve.store.database import Database
from kinema.serve.store.tables import files

log = logging.getLogger(__name__)

DELIVER_EVERY_S, SETTLE_EVERY_S, SWEEP_EVERY_S = 0.5, 2.0, 600.0
GRACE_S = 3600.0
"""Files of deleted jobs, and files without a job, are kept for so long."""
TIMEOUT_S = 15.0
GONE = 410


class Background:
    """Threads that repeat a task until they are stopped. Several servers on one store may run them."""

    def __init__(self, database: Database, blobs: Blobs, settings: ServerSettings) -> None:
        self.database, self.blobs, self.settings = database, blobs, settings
        self._stopping = threading.Event()
        tasks: dict[str, tuple[Callable[[], object], float]] = {
            "deliver": (self.deliver, DELIVER_EVERY_S),
            "settle": (self.settle, SETTLE_EVERY_S),
            "sweep": (self.sweep, SWEEP_EVERY_S),
        }
        self._threads = [
            threading.Thread(target=self._repeat, args=task, name=f"kinema-{name}", daemon=True)
            for name, task in tasks.items()
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads after their present task."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _repeat(self, task: Callable[[], object], every_s: float) -> None:
        while not self._stopping.is_set():
            try:
                task()
            except DBAPIError as error:
                log.warning("the store does not answer: %s", str(error.orig).strip().splitlines()[0])
            except Exception:
                log.exception("a background task failed")
            self._stopping.wait(every_s)

    def deliver(self) -> None:
        """Send the events that are due, each signed anew: receivers refuse signatures older than minutes."""
        for row in hooks.claim(self.database):
            if self._stopping.is_set():
                return
            status, outcome = self._send(row)
            is_delivered = status is not None and 200 <= status < 300
            is_gone = status == GONE
            hooks.settle(self.database, row, outcome, is_delivered=is_delivered, is_gone=is_gone)
            if not is_delivered:
                log.warning("webhook not delivered: %s", outcome, extra={"webhook": row.webhook})

    def _send(self, row: Any) -> tuple[int | None, str]:
        """Status of the answer, or None, and a line about it."""
        now = datetime.now(UTC)
        body = json.dumps({**json.loads(row.body), "created_at": int(row.created)})
        headers = {
            "content-type": "application/json",
            "webhook-id": row.event,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(row.secret).sign(row.event, now, body),
        }
        private = self.settings.webhook_hosts
        try:
            status, _, _ = send(
                "POST",
                row.url,
                body.encode(),
                headers,
                timeout_s=TIMEOUT_S,
                private_hosts=private,
                max_bytes=1 << 20,
            )
        except FetchError as error:
            return None, str(error)
        return status, f"status {status}"

    def settle(self) -> None:
        """Delete what has expired, and end the batches whose videos have ended."""
        videos.expire(self.database)
        for row in items.open_batches(self.database):
            found = {job.id: job for job in videos.of_batch(self.database, row.id)}
            if all(job.status not in ("queued", "in_progress") for job in found.values()):
                self._end_batch(row, found)

    def _end_batch(self, row: Any, found: dict[str, Any]) -> None:
        good, bad = [], []
        for line in json.loads(row.lines_json):
            job = found.get(line.get("video", ""))
            entry = {"id": f"batch_req_{line.get('video', '')[6:]}", "custom_id": line["custom_id"]}
            if job is not None and job.status == COMPLETED:
                body = video(job).model_dump(exclude_none=True)
                good.append(entry | {"response": {"status_code": 200, "body": body}, "error": None})
            else:
                error = line.get("error") or {"code": "deleted", "message": "the video was deleted"}
                if job is not None and job.status == FAILED:
                    error = {"code": job.error_code, "message": job.error_message}
                bad.append(entry | {"response": None, "error": error})
        output, errors = self._lines(row, "output", good), self._lines(row, "errors", bad)
        items.end_batch(self.database, row.id, status="completed", output_file=output, error_file=errors)

    def _sweep_folders(self) -> None:
        """Delete the work folders of jobs that have ended, and uploads that a killed process left."""
        storage = self.settings.storage
        folders = [*storage.work_folder.glob("video_*"), *(storage.data / "uploads").glob("*")]
        for folder in folders:
            is_old = time.time() - folder.stat().st_mtime > GRACE_S
            row = videos.get(self.database, folder.name, None) if is_old else None
            if is_old and (row is None or row.status in (COMPLETED, FAILED)):
                shutil.rmtree(folder, ignore_errors=True)

    def _lines(self, row: Any, kind: str, lines: list[dict[str, Any]]) -> str | None:
        """The id of a file with these lines, which another server may have written; None without any."""
        if not lines:
            return None
        id = f"file_{row.id.removeprefix('batch_')}_{kind}"
        blob = f"library/{id}.jsonl"
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.blobs.put(blob, content)
        values = {"name": f"{row.id}_{kind}.jsonl", "purpose": "batch_output", "size_bytes": len(content)}
        try:
            items.add(self.database, files, id=id, owner=row.owner, blob=blob, **values)
        except IntegrityError:
            log.info("the batch was ended by another server", extra={"batch": row.id})
        return id

    def sweep(self) -> None:
        """Delete the files of jobs that were deleted, and files that belong to nothing."""
        start_s = time.monotonic()
        old = [blob for blob in self.blobs.keys("videos/") if age_s(blob) > GRACE_S]
        ids = sorted({blob.key.split("/")[1] for blob in old})
        kept = set[str]()
        for first in range(0, len(ids), 500):
            kept |= videos.kept(self.database, ids[first : first + 500], GRACE_S)
        orphans = [blob.key for blob in old if blob.key.split("/")[1] not in kept]

        needed = videos.kept_inputs(self.database, GRACE_S) | items.blobs(self.database)
        rest = [blob for prefix in ("inputs/", "library/") for blob in self.blobs.keys(prefix)]
        orphans += [blob.key for blob in rest if blob.key not in needed and age_s(blob) > GRACE_S]
        self.blobs.delete(*orphans)
        self._sweep_folders()
        if orphans:
            log.info("deleted %d files in %.1f s", len(orphans), time.monotonic() - start_s)
