"""Worker processes: one a device, started as programs (never forked), and started again when they end."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from kinema.config import to_dict
from kinema.serve.lease import HUNG_EXIT_CODE
from kinema.serve.settings import WorkerSettings

log = logging.getLogger(__name__)

STOP_S = 30.0
"""Time for a worker to save its jobs before it is killed."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
GOOD_RUN_S = 60.0
"""A worker that lived for so long is started again without a wait."""
WRONG_SETTINGS = 2


class Supervisor:
    """Keeps one worker process for each of its settings."""

    def __init__(self, workers: Sequence[WorkerSettings]) -> None:
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.failure: str | None = None
        """Why a worker cannot start at all."""
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(index, settings), name=f"kinema-worker-{index}")
            for index, settings in enumerate(workers)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the workers to save their jobs and end; kill those that take longer than `STOP_S`."""
        self._stopping.set()
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in list(self.processes.values()):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("worker %d did not end within %.0f s: killed", process.pid, STOP_S)
                process.kill()
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Return when `stop` was called, or no worker can run."""
        for thread in self._threads:
            thread.join()

    def _keep(self, index: int, settings: WorkerSettings) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopping.is_set():
            start_s = time.monotonic()
            process = start_worker(settings)
            self.processes[index] = process
            if self._stopping.is_set():
                process.terminate()
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            if self._stopping.is_set():
                return
            log.error("worker ended: %s", reason(code), extra={"device": settings.device, "pid": process.pid})
            if code == WRONG_SETTINGS:
                self.failure = "a worker cannot start; its log line states the reason"
                return
            wait_s = (
                FIRST_WAIT_S if time.monotonic() - start_s > GOOD_RUN_S else min(LONGEST_WAIT_S, 2 * wait_s)
            )
            self._stopping.wait(wait_s)


def start_worker(settings: WorkerSettings) -> subprocess.Popen[bytes]:
    """A worker process. It ends when its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kinema.serve.worker"],
        stdin=subprocess.PIPE,
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
    )
    assert process.stdin is not None
    values = to_dict(settings)
    values["storage"] = {name: str(value) for name, value in values["storage"].items()}
    process.stdin.write(json.dumps(values).encode() + b"\n")
    process.stdin.flush()
    return process


def reason(code: int) -> str:
    """What an exit code says."""
    if code == HUNG_EXIT_CODE:
        return "a step did not end"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
