"""Workers: jobs are run, continued by a successor with the same bytes, cancelled and given back."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from kinema.serve.blobs import Blobs
from kinema.serve.lease import HUNG_EXIT_CODE
from kinema.serve.settings import Storage, WorkerSettings
from kinema.serve.store import videos
from kinema.serve.store.base import Limits, NewJob
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore
from kinema.serve.supervisor import Supervisor, reason, start_worker
from kinema.video import Video

SMALL = {"width": 96, "height": 96, "frames": 5, "steps": 2}


@pytest.fixture
def settings(tmp_path):
    return WorkerSettings(
        Storage(tmp_path), {"nano": "shipped"}, lease_s=1.5, poll_s=0.05, precision="fp32", previews=False
    )


@pytest.fixture
def store(settings):
    store = SqlStore(Database(settings.storage.store_url), lease_s=settings.lease_s)
    yield store
    store.database.close()


@pytest.fixture
def start(settings):
    """Starts workers, and kills those that are left at the end."""
    processes = []

    def start():
        processes.append(start_worker(settings))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()


def add(store, name, **fields):
    request = {"prompt": "a red car drives on a road", **SMALL, **fields}
    job = NewJob(f"video_{name}", "ann", "nano", request, request["prompt"], "96x96", "1", 1.0, batch_key="k")
    store.enqueue([job], Limits())


def row(store, name):
    return videos.get(store.database, f"video_{name}", None)


def wait(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def ended(store, name):
    return wait(lambda: (found := row(store, name)).status in ("completed", "failed") and found)


def step_of(store, name):
    found = row(store, name)
    return found.step if found.status == "in_progress" else -1


def state_of(settings, name, token=1):
    return settings.storage.work_folder / f"video_{name}" / str(token) / "job" / "state.safetensors"


def video(settings, found):
    key = json.loads(found.result_json)["files"]["video.mp4"]
    return (settings.storage.data / "blobs" / key).read_bytes()


def stop(process):
    process.terminate()
    assert process.wait(30) == 0


def test_a_worker_runs_jobs_together_and_stores_their_files(settings, store, start):
    for seed in range(3):
        add(store, seed, seed=seed)
    worker = start()
    results = [json.loads(ended(store, seed).result_json) for seed in range(3)]
    stop(worker)
    assert {name for name in results[0]["files"]} == {"video.mp4", "thumbnail.webp", "spritesheet.jpg"}
    blobs = Blobs(settings.storage)
    clip = Video.read(blobs.local_path(results[0]["files"]["video.mp4"]))
    assert (clip.num_frames, clip.height, clip.width) == (5, 96, 96)
    assert len({video(settings, row(store, seed)) for seed in range(3)}) == 3
    assert not list(settings.storage.work_folder.glob("video_*"))


def test_a_killed_worker_is_succeeded_with_the_same_bytes(settings, store, start):
    long = {"steps": 40, "width": 160, "height": 160}
    add(store, "whole", **long)
    first = start()
    whole = video(settings, ended(store, "whole"))

    add(store, "killed", **long)
    wait(lambda: state_of(settings, "killed").is_file())
    first.kill()
    first.wait()
    killed_s = time.monotonic()

    second = start()
    wait(lambda: row(store, "killed").token == 2)
    found = ended(store, "killed")
    stop(second)
    assert found.status == "completed"
    assert found.attempt == 2
    assert video(settings, found) == whole
    assert time.monotonic() - killed_s < 60


def test_sigterm_saves_and_gives_back_within_a_step(settings, store, start):
    add(store, "one", steps=200, width=160, height=160, frames=17)
    first = start()
    wait(lambda: step_of(store, "one") > 0)
    stop(first)
    found = row(store, "one")
    assert (found.status, found.attempt, found.token) == ("queued", 0, 1)
    with safe_open(state_of(settings, "one"), framework="pt") as state:
        saved = json.loads(state.metadata()["counts"])["next_step"]
    assert saved >= found.step  # the state of the very last step
    store.cancel("video_one", "ann")


def test_a_running_job_is_cancelled_at_its_next_step(settings, store, start):
    add(store, "one", steps=500, width=160, height=160, frames=17)
    worker = start()
    wait(lambda: step_of(store, "one") > 0)
    assert store.cancel("video_one", "ann")
    found = ended(store, "one")
    assert (found.status, found.error_code) == ("failed", "cancelled")
    wait(lambda: not list(settings.storage.work_folder.glob("video_*")))
    add(store, "two")
    assert ended(store, "two").status == "completed"
    stop(worker)


def test_a_request_that_cannot_be_fulfilled_fails_and_the_worker_goes_on(settings, store, start):
    add(store, "wrong", width=1000, height=1000)
    add(store, "right")
    worker = start()
    assert ended(store, "wrong").error_code == "generation_failed"
    assert "sides of 96 to 160" in row(store, "wrong").error_message
    assert ended(store, "right").status == "completed"
    stop(worker)


def test_a_worker_whose_parent_is_gone_ends(settings, store, start):
    code = (
        "import sys, time; from kinema.serve.supervisor import start_worker; "
        "from kinema.serve.settings import *; from pathlib import Path; "
        f"storage = Storage(Path({str(settings.storage.data)!r})); "
        "w = start_worker(WorkerSettings(storage, {'nano': 'shipped'}));"
        "print(w.pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        wait(lambda: videos.live_workers(store.database, 60))
        parent.kill()
    wait(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


def test_a_supervisor_starts_a_killed_worker_again(settings, store, start):
    supervisor = Supervisor([settings])
    supervisor.start()
    first = wait(lambda: supervisor.processes.get(0))
    first.send_signal(signal.SIGKILL)
    second = wait(lambda: (found := supervisor.processes[0]) is not first and found)
    add(store, "one")
    assert ended(store, "one").status == "completed"
    supervisor.stop()
    assert second.returncode == 0
    assert reason(-9) == "killed by SIGKILL"


def test_a_worker_whose_step_hangs_ends_and_its_job_is_taken_over(settings, store):
    add(store, "one", steps=200, width=160, height=160, frames=17)
    process = start_worker(replace(settings, step_timeout_s=0.01))
    assert process.wait(120) == HUNG_EXIT_CODE
    process.stdin.close()
    assert reason(HUNG_EXIT_CODE) == "a step did not end"
    assert row(store, "one").status == "in_progress"
    store.cancel("video_one", "ann")
