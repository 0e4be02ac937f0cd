"""A worker: a process that claims jobs for one device and runs them.

`python -m kinema.serve.worker` reads `WorkerSettings` as one line of JSON from standard input. It ends after
the present step, with its jobs saved and given back, on SIGTERM, or when standard input closes because its
parent is gone.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from kinema import config
from kinema.checkpoints.expanders import load_expander
from kinema.errors import KinemaError, OutputError
from kinema.generation.batch import BatchItem
from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.result import Failure, Result, Step
from kinema.prompts.expansion import expand
from kinema.serve.blobs import Blobs
from kinema.serve.lease import Heartbeat
from kinema.serve.log import log_json
from kinema.serve.results import preview, publish
from kinema.serve.settings import WorkerSettings
from kinema.serve.signing import Signer
from kinema.serve.store.base import Claim, Done, Failed, Outcome, Released, Worker
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import CANCELLED, SqlStore
from kinema.serve.work_folder import WorkFolder

log = logging.getLogger("kinema.serve.worker")

SAMPLING_PERCENT = 90
PREVIEW_SHARE = 0.1
"""Largest share of the time that previews take."""
PREVIEW_EVERY_S = 1.0
DISK_WAIT_S = 10.0
"""Wait after a job that could not be written, before the next is claimed."""
STORE_WAIT_S = 1.0


class JobWorker:
    """Claims and runs jobs until it is told to stop."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.store = SqlStore(Database(settings.storage.store_url), lease_s=settings.lease_s)
        self.blobs = Blobs(settings.storage)
        host = socket.gethostname()
        name = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.worker = Worker(name, host, settings.device, tuple(settings.models))
        self.stopping = threading.Event()
        files = settings.sign_certificate, settings.sign_key
        self.signer = Signer.of_files(*map(Path, files)) if all(files) else None
        self.pipeline = lru_cache(maxsize=1)(self._load)

    def _load(self, model: str) -> Pipeline:
        settings = self.settings
        start_s = time.monotonic()
        loaded = load(settings.models[model], device=settings.device, precision=settings.precision)  # type: ignore[arg-type]
        log.info("model loaded", extra={"model": model, "seconds": round(time.monotonic() - start_s, 2)})
        return loaded

    def run(self) -> None:
        """Claim and run jobs until `stopping` is set."""
        self.pipeline(next(iter(self.settings.models)))
        log.info("worker ready", extra={"worker": self.worker.id, "device": self.settings.device})
        while not self.stopping.is_set():
            try:
                claims = self.store.claim(self.worker, self.settings.batch_size)
            except DBAPIError as error:
                log.warning("no claim: %s", str(error.orig).strip().splitlines()[0])
                self.stopping.wait(STORE_WAIT_S)
                continue
            if claims:
                self.run_claims(claims)
            else:
                self.stopping.wait(self.settings.poll_s)

    def run_claims(self, claims: Sequence[Claim]) -> None:
        """Run jobs together and store their outcomes. A batch that fails as a whole is run job by job."""
        settings = self.settings
        beat = Heartbeat(
            *(self.store, self.worker, claims),
            lease_s=settings.lease_s,
            step_timeout_s=settings.step_timeout_s,
        )
        with beat:
            try:
                self._run_batch(claims, beat)
            except OutputError as error:  # the disk is full, most often: no job is lost by it
                log.error("%s", error)
                self._finish_all(claims, beat, Released())
                self.stopping.wait(DISK_WAIT_S)
            except KinemaError as error:
                if len(claims) == 1:
                    self._finish(claims[0], beat, Failed("generation_failed", str(error)))
                    return
                for claim in claims:
                    self.run_claims_alone(claim, beat)
            except Exception:
                log.exception("a job ended by an internal error")
                failed = Failed("server_error", "the job ended by an internal error, which the log states")
                self._finish_all(claims, beat, failed)

    def run_claims_alone(self, claim: Claim, beat: Heartbeat) -> None:
        """Run one job of a batch that failed as a whole."""
        if beat.state(claim.id) == "held":
            try:
                self._run_batch([claim], beat)
            except OutputError:
                self._finish(claim, beat, Released())
            except KinemaError as error:
                self._finish(claim, beat, Failed("generation_failed", str(error)))

    def _run_batch(self, claims: Sequence[Claim], beat: Heartbeat) -> None:
        pipeline = self.pipeline(claims[0].model)
        folders = [WorkFolder(self.settings.storage.work_folder, claim, self.blobs) for claim in claims]
        items = [self._item(folder, pipeline) for folder in folders]
        run = _Run(self, pipeline, claims, folders, beat)
        with closing(events(pipeline, items)) as stream:
            for event in stream:
                run.handle(event)
                if run.is_over:
                    break
        run.close()

    def _item(self, folder: WorkFolder, pipeline: Pipeline) -> BatchItem:
        """The job as the pipeline takes it: continued from an earlier claim, or from the start."""
        earlier = folder.take_over(pipeline.model_hash)
        if earlier is not None:
            return earlier
        request = config.from_dict(Request, folder.claim.request)
        if (expander := folder.claim.detail.get("expander")) is not None:
            expansion = expand(request.prompt, load_expander(expander), kind="text", seed=request.seed)
            request = config.from_dict(Request, {**request.to_dict(), **expansion.fields})
        return folder.new(request)

    def _finish(self, claim: Claim, beat: Heartbeat, outcome: Outcome) -> bool:
        """Store the outcome of a job, as soon as the store answers. False if the job is no longer held."""
        beat.drop(claim.id)
        while True:
            try:
                is_mine = self.store.finish(claim.id, claim.token, outcome)
                break
            except DBAPIError as error:
                log.warning("outcome not stored yet: %s", str(error.orig).strip().splitlines()[0])
                if self.stopping.is_set():
                    return False
                time.sleep(STORE_WAIT_S)
        state = type(outcome).__name__.lower() if is_mine else "lost"
        log.info("job ended", extra={"job": claim.id, "outcome": state, "attempt": claim.attempt})
        return is_mine

    def _finish_all(self, claims: Sequence[Claim], beat: Heartbeat, outcome: Outcome) -> None:
        for claim in claims:
            self._finish(claim, beat, outcome)


class _Run:
    """Jobs that run together: their progress, previews and outcomes."""

    def __init__(
        self,
        worker: JobWorker,
        pipeline: Pipeline,
        claims: Sequence[Claim],
        folders: Sequence[WorkFolder],
        beat: Heartbeat,
    ) -> None:
        self.worker, self.pipeline, self.beat = worker, pipeline, beat
        self.claims, self.folders = claims, folders
        self.open = {claim.id for claim in claims}
        self.ended = list[WorkFolder]()
        self.left = list[Path]()
        self.start_s = time.monotonic()
        self.previewed_s = dict.fromkeys(self.open, self.start_s)
        self.preview_cost_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether no job is left to go on with, or the worker stops."""
        return not self.open or self.worker.stopping.is_set()

    def handle(self, event: Step | Result | Failure) -> None:
        """Note a step, or store the outcome of a job."""
        claim, folder = self.claims[event.item], self.folders[event.item]
        if claim.id not in self.open:
            return
        match event:
            case Step():
                self._step(event, claim, folder)
            case Result():
                self.beat.update(claim.id)
                if self.worker.signer is not None:
                    is_edited = bool(event.plan.request.conditions)
                    self.worker.signer.sign(folder.video, title=claim.id, is_edited=is_edited)
                result = publish(event, folder.video, claim, self.worker.blobs)
                self._end(claim, folder, Done(result, self.worker.settings.keep_s))
            case Failure():
                self._end(claim, folder, Failed("generation_failed", str(event.error)))

    def _step(self, step: Step, claim: Claim, folder: WorkFolder) -> None:
        is_sampling = step.phase == "sample"
        span, first = (SAMPLING_PERCENT, 0) if is_sampling else (99 - SAMPLING_PERCENT, SAMPLING_PERCENT)
        done = step.index + 1
        percent = first + span * done // step.total
        self.beat.update(claim.id, phase=step.phase, step=done, total=step.total, percent=percent)
        folder.push()
        match self.beat.state(claim.id):
            case "cancelled":
                self._end(claim, folder, CANCELLED)
            case "lost":
                log.warning("job lost", extra={"job": claim.id})
                self.open.discard(claim.id)
                self.left.append(folder.path)
            case _ if step.x0 is not None and self.worker.settings.previews:
                self._preview(step.x0, claim)

    def _preview(self, x0: Any, claim: Claim) -> None:
        """Store a preview of the estimate `x0`, as often as `PREVIEW_SHARE` of the time allows. The job whose
        preview is the oldest comes first."""
        now = time.monotonic()
        is_early = now - self.previewed_s[claim.id] < PREVIEW_EVERY_S
        has_turn = claim.id == min(self.open, key=self.previewed_s.__getitem__)
        if is_early or not has_turn or self.preview_cost_s > PREVIEW_SHARE * (now - self.start_s):
            return
        key = f"videos/{claim.id}/{claim.token}/preview.webp"
        self.worker.blobs.put(key, preview(self.pipeline, x0))
        self.beat.update(claim.id, preview=key)
        self.previewed_s[claim.id] = time.monotonic()
        self.preview_cost_s += self.previewed_s[claim.id] - now

    def _end(self, claim: Claim, folder: WorkFolder, outcome: Outcome) -> None:
        self.open.discard(claim.id)
        if self.worker._finish(claim, self.beat, outcome):
            self.ended.append(folder)
        else:
            self.left.append(folder.path)

    def close(self) -> None:
        """Delete the folders of jobs that have ended, and give back the others, whose saved state stays for a
        successor."""
        for folder in self.ended:
            folder.remove()
        for path in self.left:
            shutil.rmtree(path, ignore_errors=True)
        for claim, folder in zip(self.claims, self.folders):
            if claim.id in self.open:
                folder.push()
                self.worker._finish(claim, self.beat, Released())


def events(pipeline: Pipeline, items: Sequence[BatchItem]) -> Generator[Step | Result | Failure, None, None]:
    """What the pipeline reports about requests that it generates together. Closing ends the run."""
    return pipeline.stream_many(items)


def watch_parent(on_end: Callable[[], None]) -> None:
    """Call `on_end` when standard input closes, which the parent's end does."""

    def wait() -> None:
        while sys.stdin.readline():
            continue
        on_end()

    threading.Thread(target=wait, name="kinema-parent", daemon=True).start()


def main() -> int:
    """The exit code of a worker process."""
    log_json()
    try:
        worker = JobWorker(config.from_dict(WorkerSettings, json.loads(sys.stdin.readline())))
        signal.signal(signal.SIGTERM, lambda *_: worker.stopping.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
        watch_parent(worker.stopping.set)
        worker.run()
    except KinemaError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
