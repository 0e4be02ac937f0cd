"""Files that nothing needs are deleted, and only those."""

import time

import pytest

from kinema.serve import background
from kinema.serve.background import Background
from kinema.serve.blobs import Blobs
from kinema.serve.settings import ServerSettings, Storage
from kinema.serve.store import items, videos
from kinema.serve.store.base import Done, Limits, NewJob, Worker
from kinema.serve.store.jobs import SqlStore
from kinema.serve.store.tables import files


@pytest.fixture
def parts(database, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "GRACE_S", 0.0)
    storage = Storage(tmp_path / "data")
    return (
        Blobs(storage),
        Background(database, Blobs(storage), ServerSettings(storage, {})),
        SqlStore(database),
    )


def test_orphans_are_deleted_and_needed_files_are_kept(parts, database, tmp_path):
    blobs, sweeper, store = parts
    names = ("kept", "deleted", "expired")
    inputs = {name: {"hash": f"inputs/{name}.npz"} for name in names}
    jobs = [
        NewJob(f"video_{name}", "ann", "m", {}, "x", "1x1", "1", 1.0, inputs=inputs[name]) for name in names
    ]
    store.enqueue(jobs, Limits())
    for _ in names:
        (claim,) = store.claim(Worker("w", "h", "d", ("m",)))
        store.finish(claim.id, claim.token, Done({}, keep_s=0.01 if claim.id == "video_expired" else 1000))
        blobs.put(f"videos/{claim.id}/1/video.mp4", b"x")
        blobs.put(f"inputs/{claim.id[6:]}.npz", b"x")
    items.add(
        database, files, id="file_1", owner="ann", name="a", purpose="x", size_bytes=1, blob="library/file_1"
    )
    for key in ("library/file_1", "library/file_2", "videos/video_unknown/1/video.mp4"):
        blobs.put(key, b"x")
    for folder in ("work/video_kept", "work/video_none", "uploads/tmp1"):
        (tmp_path / "data" / folder).mkdir(parents=True)

    videos.mark_deleted(database, "video_deleted", "ann")
    time.sleep(0.05)
    sweeper.settle()
    time.sleep(0.05)
    sweeper.sweep()
    left = {blob.key for prefix in ("videos/", "inputs/", "library/") for blob in blobs.keys(prefix)}
    assert left == {"videos/video_kept/1/video.mp4", "inputs/kept.npz", "library/file_1"}
    assert [
        path.name for path in (tmp_path / "data").glob("*/*") if path.parent.name in ("work", "uploads")
    ] == []
