"""What happens when a worker stops, the database crashes, the disk is full, and files are in a bucket."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from tests.serve.running import Running
from tests.serve.test_worker import add, ended, row, state_of, video, wait

from kinema.serve.blobs import Blobs
from kinema.serve.settings import Storage, WorkerSettings
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore
from kinema.serve.supervisor import start_worker

LONG = {"steps": 40, "width": 160, "height": 160}


@pytest.fixture
def settings(tmp_path, postgres):
    return WorkerSettings(
        Storage(tmp_path, postgres.new_database()),
        {"nano": "shipped"},
        lease_s=1.5,
        poll_s=0.05,
        precision="fp32",
        previews=False,
    )


@pytest.fixture
def store(settings):
    store = SqlStore(Database(settings.storage.store_url), lease_s=settings.lease_s)
    yield store
    store.database.close()


@pytest.fixture
def start():
    """Starts workers, and kills those that are left at the end."""
    processes = []

    def start(settings):
        processes.append(start_worker(settings))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()


def test_a_stopped_worker_that_is_resumed_changes_nothing_of_its_successors(settings, store, start):
    first = start(settings)
    add(store, "whole", **LONG)
    whole = video(settings, ended(store, "whole"))
    add(store, "one", **LONG)
    wait(lambda: state_of(settings, "one").is_file())
    first.send_signal(signal.SIGSTOP)
    second = start(settings)
    wait(lambda: row(store, "one").token == 2)
    first.send_signal(signal.SIGCONT)
    found = ended(store, "one")
    assert (found.status, found.token) == ("completed", 2)
    assert video(settings, found) == whole
    add(store, "two")  # both workers go on
    assert ended(store, "two").status == "completed"
    second.terminate()
    assert second.wait(30) == 0


def test_jobs_survive_a_crash_of_the_database(settings, store, start, postgres):
    start(settings)
    for seed in range(3):
        add(store, seed, **{**LONG, "steps": 16 + seed})
    wait(lambda: any(row(store, seed).status == "in_progress" for seed in range(3)))
    postgres.stop("immediate")
    time.sleep(1)
    postgres.start()
    store.database.close()
    for seed in range(3):
        assert ended(store, seed).status == "completed"


def test_a_full_disk_loses_no_job(settings, store, start, tmp_path):
    """The limit of a file's size stands for the full disk: a write fails in the same way."""
    add(store, "one", steps=4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        first = start(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    wait(lambda: (found := row(store, "one")).token >= 1 and found.status == "queued")
    assert row(store, "one").attempt == 0
    first.kill()
    first.wait()
    start(settings)
    assert ended(store, "one").status == "completed"


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket of an S3 server on this machine."""
    program = shutil.which(
        "moto_server", path=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()])
    )
    if program is None:
        pytest.skip("moto_server is not installed (pip install 'moto[s3,server]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)

    def answers():
        try:
            request = urllib.request.Request(f"{url}/kinema", method="PUT")
            return urllib.request.urlopen(request).status == 200
        except urllib.error.URLError:
            return False

    wait(answers)
    for name, value in {
        "AWS_ENDPOINT": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield "s3://kinema/videos-of-a-test"
    server.kill()
    server.wait()


def test_blobs_in_a_bucket(tmp_path, bucket):
    blobs = Blobs(Storage(tmp_path, blobs=bucket))
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    blobs.put("a/b/c.bin", tmp_path / "file")
    assert blobs.head("a/b/c.bin").size_bytes == len(content)
    assert blobs.head("a/none") is None
    assert b"".join(blobs.chunks("a/b/c.bin", 5, 2_000_000)) == content[5:2_000_000]
    assert blobs.fetch("a/b/c.bin", tmp_path / "copy").read_bytes() == content
    assert [blob.key for blob in blobs.keys("a/")] == ["a/b/c.bin"]
    assert urllib.request.urlopen(blobs.signed_url("a/b/c.bin")).read() == content
    blobs.delete_all("a/")
    assert blobs.keys("a/") == []


def test_a_worker_on_another_machine_continues_from_the_bucket(settings, store, start, bucket, tmp_path):
    here = replace(settings, storage=replace(settings.storage, blobs=bucket, work=tmp_path / "here"))
    there = replace(here, storage=replace(here.storage, work=tmp_path / "there"))
    add(store, "one", **LONG)
    first = start(here)
    wait(lambda: [b for b in Blobs(here.storage).keys("states/") if b.key.endswith("state.safetensors")])
    first.kill()
    first.wait()
    start(there)
    wait(lambda: (tmp_path / "there" / "video_one" / "2" / "job" / "state.safetensors").is_file())
    assert ended(store, "one").status == "completed"
    wait(lambda: not Blobs(here.storage).keys("states/"))


def test_downloads_from_a_bucket_have_ranges(tmp_path, bucket):
    server = Running(tmp_path / "data", "--blobs", bucket, "--precision", "fp32", "--no-preview")
    try:
        video = server.ended(server.create()["id"])
        assert video["status"] == "completed", video
        url = f"/v1/videos/{video['id']}/content"
        whole = server.client.get(url)
        assert (whole.status_code, whole.content[4:8]) == (200, b"ftyp")
        size = len(whole.content)
        for value, part in (("bytes=0-99", slice(0, 100)), ("bytes=-50", slice(size - 50, None))):
            reply = server.client.get(url, headers={"range": value})
            assert (reply.status_code, reply.content) == (206, whole.content[part])
        assert server.client.get(url, headers={"range": f"bytes={size}-"}).status_code == 416
        assert server.client.get(url, headers={"range": "items=0-5"}).status_code == 200
        etag = {"if-none-match": whole.headers["etag"]}
        assert server.client.get(url, headers=etag).status_code == 304
        assert int(server.client.head(url).headers["content-length"]) == size
    finally:
        assert server.stop() == 0
