"""A running server with one worker, for tests of its HTTP side."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2

SMALL = {"size": "96x96", "frames": 5, "steps": 2}
"""The smallest video that the shipped model makes, in two steps."""


class Running:
    """`kinema serve` as a process of its own, at a free port."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        command = [sys.executable, "-m", "kinema", "serve", "--data", str(data), "--port", "0", *options]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"src{os.pathsep}."}
        self.log = data.parent / f"{data.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+?:(\d+)", line)
        assert found, line + self.log.read_text()
        self.url = f"http://127.0.0.1:{found[1]}"
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        self.wait_for(lambda: self._answers())

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def wait_for(self, condition, seconds: float = 120):
        """The first true value of `condition`."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found

    def create(self, **fields):
        """The reply to a request for a small video."""
        reply = self.client.post(
            "/v1/videos", json={"prompt": "a red car drives on a road", **SMALL, **fields}
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ended(self, id: str):
        """The video after its job has ended."""

        def is_over():
            video = self.client.get(f"/v1/videos/{id}").json()
            return video if video["status"] in ("completed", "failed") else None

        return self.wait_for(is_over)

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self.client.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code
