"""Latency of the server under load: 200 status polls a second over many rows, and 100 creates a second.

    python bench/serve_load.py [--rows 10000] [--seconds 10]

Starts `kinema serve --no-worker` on a folder with `--rows` jobs, and prints the percentiles that one asyncio
client measures, the time to be ready, and the rate of a 100 MB download with Range.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from kinema.serve.blobs import Blobs
from kinema.serve.settings import Storage
from kinema.serve.store.base import Done, Limits, NewJob, Worker
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore

PORT = 18_400
DETAIL = {"task": "generate", "seed": 0, "width": 96, "height": 96, "frames": 5, "fps": 8.0, "steps": 2}
DETAIL |= {"guidance": 3.0, "sampler": "unipc"}


def fill(storage: Storage, num_rows: int) -> str:
    """The id of one of `num_rows` completed jobs, which has a file of 100 MB."""
    store = SqlStore(Database(storage.store_url))
    ids = [f"video_{i:032x}" for i in range(num_rows)]
    jobs = [
        NewJob(id, "local", "kinema-nano", {"prompt": "x"}, "x", "96x96", "1", 1.0, detail=DETAIL)
        for id in ids
    ]
    store.enqueue(jobs, Limits())
    (claim,) = store.claim(Worker("w", "h", "d", ("kinema-nano",)))
    Blobs(storage).put("videos/big/1/video.mp4", bytes(100 << 20))
    store.finish(claim.id, claim.token, Done({"files": {"video.mp4": "videos/big/1/video.mp4"}}, 1e6))
    store.database.close()
    return claim.id


async def load(client: httpx2.AsyncClient, rate: float, seconds: float, send) -> tuple[list[float], int]:
    """Milliseconds of every request, sorted, and how many failed; requests begin at a fixed rate."""
    taken, failed = [], 0

    async def one(index: int) -> None:
        nonlocal failed
        start_s = time.perf_counter()
        reply = await send(client, index)
        taken.append(1000 * (time.perf_counter() - start_s))
        failed += reply.status_code != 200

    start_s, tasks = time.perf_counter(), []
    for index in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start_s + index / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(index)))
    await asyncio.gather(*tasks)
    return sorted(taken), failed


def line(name: str, taken: list[float], failed: int) -> str:
    """Percentiles in one line."""
    p50, p95, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.95, 0.99))
    counts = f"{len(taken)} requests, {failed} failed"
    return f"{name}: {counts}, p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"


async def measure(arguments: argparse.Namespace, id: str) -> None:
    """Print the figures of a running server."""
    url = f"http://127.0.0.1:{PORT}"
    limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def poll(client: httpx2.AsyncClient, index: int):
            return await client.get(f"/v1/videos/video_{index % arguments.rows:032x}")

        async def create(client: httpx2.AsyncClient, index: int):
            return await client.post("/v1/videos", json={"prompt": "a fox walks", "seed": index})

        print(line("200 polls/s", *await load(client, 200, arguments.seconds, poll)), flush=True)
        print(line("100 creates/s", *await load(client, 100, arguments.seconds, create)), flush=True)

        start_s, received = time.perf_counter(), 0
        async with client.stream("GET", f"/v1/videos/{id}/content", headers={"range": "bytes=0-"}) as reply:
            async for chunk in reply.aiter_raw():
                received += len(chunk)
        seconds = time.perf_counter() - start_s
        print(f"range download: status {reply.status_code}, {received / seconds / 1e6:.0f} MB/s")


def main() -> None:
    """Start the server and measure it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        id = fill(Storage(Path(name)), arguments.rows)
        command = [
            sys.executable,
            "-m",
            "kinema",
            "serve",
            "--data",
            name,
            "--port",
            str(PORT),
            "--no-worker",
        ]
        command += ["--rate", "1000000", "--max-queued", "1000000"]
        start_s = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                while True:
                    try:
                        httpx2.get(f"http://127.0.0.1:{PORT}/healthz")
                        break
                    except httpx2.TransportError:
                        time.sleep(0.02)
                print(f"ready after {time.perf_counter() - start_s:.2f} s", flush=True)
                asyncio.run(measure(arguments, id))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
