"""Kills workers and API processes with SIGKILL while 100 jobs run, and counts what that costs.

    python bench/serve_kills.py --store sqlite|postgres [--jobs 100] [--kills 20] [--every 6]

Every job must be completed exactly once. Printed: kills, claims, attempts, and the time from a kill to the
takeover. Postgres runs in a temporary folder.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import func, select

from kinema.serve.settings import Storage, WorkerSettings
from kinema.serve.store import videos
from kinema.serve.store.database import Database
from kinema.serve.store.tables import deliveries
from kinema.serve.supervisor import start_worker

FIELDS = {"prompt": "a red car drives on a road", "size": "128x128", "frames": 17}


class Api:
    """An API process without workers at a fixed port."""

    def __init__(self, data: Path, store: str, port: int) -> None:
        self.command = [sys.executable, "-m", "kinema", "serve", "--data", str(data), "--port", str(port)]
        self.command += ["--no-worker", "--lease", "3", "--max-queued", "10000", "--rate", "1000000"]
        self.command += ["--store", store] if store else []
        self.url, self.log = f"http://127.0.0.1:{port}", data / f"api-{port}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def ask(apis: list[Api], method: str, path: str, body: dict | None = None, key: str = "") -> dict:
    """The reply of any API process that answers. A POST has an idempotency key and can be repeated."""
    import urllib.error
    import urllib.request

    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
    data = None if body is None else json.dumps(body).encode()
    for trial in range(600):
        api = apis[trial % len(apis)]
        request = urllib.request.Request(api.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except (urllib.error.URLError, OSError, json.JSONDecodeError):
            time.sleep(0.1)
    raise SystemExit(f"no API process answered {method} {path}")


def main() -> int:
    """0 if every job was completed exactly once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--apis", type=int, default=2, help="with SQLite there is one")
    parser.add_argument("--every", type=float, default=6.0, help="mean seconds between two kills")
    parser.add_argument("--steps", type=int, default=16, help="sampler steps of a job")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    cluster = None
    if arguments.store == "postgres":
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.serve.postgres import Cluster

        cluster = Cluster()
    with tempfile.TemporaryDirectory(prefix="kinema-kills-") as name:
        try:
            store = cluster.new_database() if cluster else ""
            return run(arguments, Path(name), store)
        finally:
            if cluster:
                cluster.remove()


def run(arguments: argparse.Namespace, data: Path, store: str) -> int:
    """Run the jobs, kill processes meanwhile, and report."""
    storage = Storage(data, store)
    settings = WorkerSettings(
        storage,
        {"kinema-nano": "shipped"},
        precision="fp32",
        lease_s=3.0,
        batch_size=1,
        previews=False,
        poll_s=0.1,
    )
    database = Database(storage.store_url)
    num_apis = arguments.apis if store else 1
    apis = [Api(data, store, 18_300 + index) for index in range(num_apis)]
    workers = [start_worker(settings) for _ in range(arguments.workers)]
    draw = random.Random(arguments.seed)
    start_s, lost_s, killed = time.monotonic(), list[float](), {"worker": 0, "api": 0}
    try:
        ids = [
            ask(apis, "POST", "/v1/videos", FIELDS | {"seed": i, "steps": arguments.steps}, f"job-{i}")["id"]
            for i in range(arguments.jobs)
        ]
        print(f"{len(ids)} jobs stored in {time.monotonic() - start_s:.1f} s", flush=True)

        while sum(killed.values()) < arguments.kills or videos.depth(database):
            time.sleep(draw.expovariate(1 / arguments.every))
            if sum(killed.values()) >= arguments.kills or not videos.depth(database):
                if not videos.depth(database):
                    break
                continue
            if draw.random() < 0.7:
                killed["worker"] += 1
                index = draw.randrange(len(workers))
                mine = held_by(database, workers[index].pid)
                workers[index].kill()
                workers[index].wait()
                workers[index].stdin.close()
                workers[index] = start_worker(settings)
                lost_s += [takeover_s(database, *held) for held in mine]
            else:
                killed["api"] += 1
                api = draw.choice(apis)
                api.kill()
                api.start()
            depth = sum(videos.depth(database).values())
            print(f"{time.monotonic() - start_s:6.1f} s: killed {killed}, {depth} jobs left", flush=True)

        rows = videos.page(database, None, limit=10_000).rows
        states = [ask(apis, "GET", f"/v1/videos/{id}")["status"] for id in ids]
    finally:
        for process in [*workers, *(api.process for api in apis)]:
            process.kill()
            process.wait()
    return report(arguments, database, rows, states, lost_s, killed, time.monotonic() - start_s, data)


def held_by(database: Database, pid: int) -> list[tuple[str, int]]:
    """Id and token of the jobs that the worker of a process holds."""
    rows = videos.page(database, None, limit=1000, status="in_progress").rows
    return [(row.id, row.token) for row in rows if f"-{pid}-" in (row.worker or "")]


def takeover_s(database: Database, id: str, token: int) -> float:
    """Seconds until another worker has claimed a job, or it has ended."""
    start_s = time.monotonic()
    while True:
        row = videos.get(database, id, None)
        if row.token > token or row.status != "in_progress":
            return time.monotonic() - start_s
        time.sleep(0.05)


def report(arguments, database, rows, states, lost_s, killed, seconds, data) -> int:
    """Print the figures; 0 if they are as they must be."""
    completed = states.count("completed")
    claims = sum(row.token for row in rows)
    files = [path for path in (data / "blobs" / "videos").rglob("video.mp4")]
    with database.read() as connection:
        events = connection.execute(select(func.count()).select_from(deliveries)).scalar_one()
    database.close()
    print(
        f"{completed} of {len(rows)} jobs completed in {seconds:.0f} s on {arguments.store}, kills: {killed}"
    )
    print(
        f"claims {claims}, most attempts {max(row.attempt for row in rows)}, "
        f"video files {len(files)}, events {events}"
    )
    if lost_s:
        lost_s = sorted(lost_s)
        print(
            f"takeover after a kill: median {lost_s[len(lost_s) // 2]:.1f} s, "
            f"longest {lost_s[-1]:.1f} s (lease 3 s)"
        )
    is_right = completed == len(rows) == arguments.jobs
    print("every job was completed exactly once" if is_right else f"WRONG: {set(states)}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
