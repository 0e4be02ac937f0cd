"""What a store of jobs promises, on SQLite and on Postgres."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import update

from kinema.errors import ServeError
from kinema.serve.store import hooks, items, keys, videos
from kinema.serve.store.base import (
    Done,
    Failed,
    IdempotencyError,
    Limits,
    NewJob,
    Once,
    Progress,
    QuotaError,
    Released,
    Worker,
)
from kinema.serve.store.database import Database, file_system, sqlite_url
from kinema.serve.store.jobs import SqlStore
from kinema.serve.store.tables import characters, settings

LEASE_S = 0.8
A, B = (Worker(name, "host", "device", ("nano",)) for name in "ab")
DONE = Done({"video": "v.mp4"}, keep_s=100)


@pytest.fixture
def store(database):
    return SqlStore(database, lease_s=LEASE_S)


def job(name: str, owner: str = "ann", **values) -> NewJob:
    fields = {"model": "nano", "request": {"prompt": name}, "prompt": name, "size": "128x128"}
    return NewJob(f"video_{name}", owner, **{**fields, "seconds": "2", "length_s": 2.0, **values})


def add(store, *names, **values):
    store.enqueue([job(name, **values) for name in names], Limits())


def claimed(store, worker=A, limit=1):
    return [claim.id.removeprefix("video_") for claim in store.claim(worker, limit)]


def status(store, name):
    return videos.get(store.database, f"video_{name}", None).status


def test_a_job_is_claimed_once_and_finished_once(store):
    add(store, "one")
    (claim,) = store.claim(A)
    assert (claim.id, claim.token, claim.attempt, claim.request) == ("video_one", 1, 1, {"prompt": "one"})
    assert store.claim(B) == []
    assert store.finish(claim.id, claim.token, DONE)
    assert not store.finish(claim.id, claim.token, DONE)
    row = videos.get(store.database, claim.id, "ann")
    assert (row.status, row.progress, json.loads(row.result_json)) == ("completed", 100, DONE.result)
    assert row.expires - row.completed == pytest.approx(100, abs=0.01)


def test_an_expired_lease_is_taken_over_and_its_holder_is_fenced_off(store):
    add(store, "one")
    (first,) = store.claim(A)
    time.sleep(LEASE_S + 0.1)
    (second,) = store.claim(B)
    assert (second.token, second.attempt) == (2, 2)
    assert store.beat(A, [Progress(first.id, first.token)]) == {}
    assert not store.finish(first.id, first.token, DONE)
    assert store.finish(second.id, second.token, DONE)


def test_beats_keep_a_lease_and_write_progress(store):
    add(store, "one")
    (claim,) = store.claim(A)
    for step in range(4):
        time.sleep(LEASE_S / 2)
        assert store.beat(A, [Progress(claim.id, 1, "decode", step, 4, 25 * step, "p.webp")]) == {
            claim.id: False
        }
    row = videos.get(store.database, claim.id, None)
    assert (row.phase, row.step, row.total, row.progress, row.preview) == ("decode", 3, 4, 75, "p.webp")
    assert store.claim(B) == []


def test_a_job_that_loses_three_workers_fails(store):
    add(store, "one")
    for attempt in (1, 2, 3):
        (claim,) = store.claim(A)
        assert claim.attempt == attempt
        time.sleep(LEASE_S + 0.05)
    assert store.claim(B) == []
    row = videos.get(store.database, "video_one", None)
    assert (row.status, row.error_code) == ("failed", "worker_lost")


def test_a_released_job_is_claimed_at_once_and_its_attempt_does_not_count(store):
    add(store, "one")
    (claim,) = store.claim(A)
    assert store.finish(claim.id, claim.token, Released())
    (again,) = store.claim(B)
    assert (again.token, again.attempt) == (2, 1)


def test_cancelling_ends_a_queued_job_at_once_and_a_running_one_by_its_worker(store):
    add(store, "waits", "runs")
    claim = next(claim for claim in store.claim(A, 1))
    other = "runs" if claim.id == "video_waits" else "waits"
    assert not store.cancel(claim.id, "bob")
    assert store.cancel(claim.id, "ann")
    assert store.cancel(f"video_{other}", "ann")
    assert status(store, other) == "failed"
    assert store.beat(A, [Progress(claim.id, claim.token)]) == {claim.id: True}
    assert store.finish(claim.id, claim.token, Failed("cancelled", "the job was cancelled"))
    assert not store.cancel(claim.id, "ann")


def test_a_cancelled_job_of_a_lost_worker_ends(store):
    add(store, "one")
    (claim,) = store.claim(A)
    store.cancel(claim.id, "ann")
    time.sleep(LEASE_S + 0.05)
    assert store.claim(B) == []
    assert videos.get(store.database, claim.id, None).error_code == "cancelled"


def test_priority_comes_first_then_the_owner_with_the_fewest_running_jobs_then_age(store):
    for name in ("a1", "a2", "a3"):
        add(store, name)
    add(store, "b1", owner="bob")
    add(store, "urgent", owner="cleo", priority=-1)
    assert [claimed(store)[0] for _ in range(5)] == ["urgent", "a1", "b1", "a2", "a3"]


def test_compatible_jobs_are_claimed_together(store):
    for name, key in (("x", "k"), ("y", "other"), ("z", "k"), ("w", "")):
        add(store, name, batch_key=key)
    assert claimed(store, limit=4) == ["x", "z"]
    assert claimed(store, limit=4) == ["y"]
    assert claimed(store, limit=4) == ["w"]


def test_a_worker_claims_only_models_that_it_serves(store):
    add(store, "other", model="wan")
    assert store.claim(A) == []
    assert store.claim(Worker("w", "host", "device", ("nano", "wan")))


def test_limits_hold_inside_the_transaction(store):
    store.enqueue([job("one")], Limits(max_queued=1))
    with pytest.raises(QuotaError, match="1 jobs are queued"):
        store.enqueue([job("two")], Limits(max_queued=1))
    store.enqueue([job("other", owner="bob")], Limits(max_queued=1))
    with pytest.raises(QuotaError, match="s of video"):
        store.enqueue([job("three")], Limits(seconds_per_day=3))


def test_an_idempotency_key_gives_the_first_job_again(store):
    once = Once("key", "digest")
    assert store.enqueue([job("one")], Limits(), once) == ["video_one"]
    assert store.enqueue([job("two")], Limits(), once) == ["video_one"]
    assert store.enqueue([job("three", owner="bob")], Limits(), once) == ["video_three"]
    with pytest.raises(IdempotencyError):
        store.enqueue([job("four")], Limits(), Once("key", "another"))


def test_many_workers_claim_every_job_once(store):
    add(store, *[f"{i:02}" for i in range(40)])
    found: list[str] = []

    def work(name):
        while claims := store.claim(Worker(name, "host", "device", ("nano",)), 3):
            for claim in claims:
                assert store.finish(claim.id, claim.token, DONE)
                found.append(claim.id)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 40


def test_lists_page_in_both_directions(store):
    names = [f"{i}" for i in range(5)]
    for name in names:
        add(store, name)
    database = store.database

    def page(**values):
        found = videos.page(database, "ann", limit=2, **values)
        return [row.prompt for row in found.rows], found.has_more

    assert page() == (["4", "3"], True)
    assert page(after="video_3") == (["2", "1"], True)
    assert page(after="video_1") == (["0"], False)
    assert page(newest_first=False) == (["0", "1"], True)
    assert page(newest_first=False, after="video_1") == (["2", "3"], True)
    assert page(before="video_1") == (["3", "2"], True)
    assert page(newest_first=False, before="video_3") == (["1", "2"], True)
    assert videos.page(database, "bob").rows == []


def test_deleted_and_expired_jobs_are_gone(store):
    add(store, "one", "two")
    claims = [store.claim(A)[0], store.claim(A)[0]]
    for claim in claims:
        store.finish(claim.id, claim.token, Done({}, keep_s=0.05))
    assert videos.mark_deleted(store.database, "video_one", "ann")
    assert not videos.mark_deleted(store.database, "video_one", "ann")
    time.sleep(0.1)
    assert videos.expire(store.database) == 1
    time.sleep(0.05)
    assert videos.get(store.database, "video_two", "ann") is None
    assert videos.kept(store.database, ["video_one", "video_two"], grace_s=0.01) == set()
    assert videos.kept(store.database, ["video_one", "video_two"], grace_s=60) == {"video_one", "video_two"}


def test_deleting_a_running_job_fences_its_worker_off(store):
    add(store, "one")
    (claim,) = store.claim(A)
    assert videos.mark_deleted(store.database, claim.id, "ann")
    assert store.beat(A, [Progress(claim.id, claim.token)]) == {}
    assert not store.finish(claim.id, claim.token, DONE)


def test_an_outcome_and_its_events_are_one_transaction(store):
    database = store.database
    id, secret = hooks.add(database, "ann", "https://example.org/hook")
    hooks.add(database, "bob", "https://example.org/other")
    add(store, "one")
    (claim,) = store.claim(A)
    store.finish(claim.id, claim.token, DONE)
    (row,) = hooks.claim(database)
    assert (row.webhook, row.url, row.secret) == (id, "https://example.org/hook", secret)
    event = json.loads(row.body)
    assert (event["type"], event["data"]) == ("video.completed", {"id": "video_one"})
    assert hooks.claim(database) == []

    hooks.settle(database, row, "500", is_delivered=False)
    assert hooks.num_failing(database) == 1
    hooks.settle(database, row, "410", is_delivered=False, is_gone=True)
    assert [hook.disabled is None for hook in hooks.rows(database)] == [False, True]


def test_keys_are_found_by_their_digest_until_they_are_revoked(database):
    id, key = keys.create(database, "laptop", limits=Limits(5, 60.0), priority=2)
    caller = keys.find(database, key)
    assert caller is not None
    assert (caller.owner, caller.priority, caller.limits) == (id, 2, Limits(5, 60.0))
    assert caller.scopes == {"videos.read", "videos.write"}
    assert key not in str(keys.rows(database))
    assert keys.exist(database)
    assert keys.find(database, key + "x") is None
    assert keys.revoke(database, id)
    assert keys.find(database, key) is None
    _, short = keys.create(database, "short", expires_in_s=-1)
    assert keys.find(database, short) is None
    assert not keys.exist(database)
    with pytest.raises(ServeError, match="unknown scope"):
        keys.create(database, "x", scopes=["all"])


def test_items_belong_to_their_owner(database):
    id = items.new_id(characters)
    items.add(database, characters, id=id, owner="ann", name="Bo", blob="c/1")
    assert items.get(database, characters, id, "ann").name == "Bo"
    assert items.get(database, characters, id, "bob") is None
    assert items.blobs(database) == {"c/1"}
    assert not items.remove(database, characters, id, "bob")
    assert items.remove(database, characters, id, "ann")


def test_workers_are_listed_while_they_are_seen(store):
    store.claim(A)
    assert videos.live_workers(store.database, 10) == [A]
    time.sleep(0.1)
    assert videos.live_workers(store.database, 0.05) == []


def test_a_failed_job_can_be_queued_again(store):
    add(store, "one")
    (claim,) = store.claim(A)
    store.finish(claim.id, claim.token, Failed("error", "no"))
    assert videos.retry(store.database, claim.id)
    assert not videos.retry(store.database, claim.id)
    assert store.claim(B)[0].attempt == 1
    assert videos.depth(store.database) == {("in_progress", 0): 1}
    assert videos.oldest_s(store.database) == 0


def test_a_store_of_a_newer_version_is_refused(url):
    database = Database(url)
    with database.write() as connection:
        connection.execute(update(settings).values(value="99"))
    database.close()
    with pytest.raises(ServeError, match=r"has schema 99.*install the newer Kinema"):
        Database(url)


def test_other_databases_and_network_file_systems_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ServeError, match="'mysql' is not a store"):
        Database("mysql://host/name")
    with pytest.raises(ServeError, match="does not answer"):
        Database("postgresql://nobody@127.0.0.1:1/none")
    assert file_system(tmp_path)
    monkeypatch.setattr("kinema.serve.store.database.file_system", lambda _: "nfs4")
    with pytest.raises(ServeError, match="network file system"):
        sqlite_url(tmp_path / "kinema.db")


WORK = """
import sys, time
from kinema.serve.store.base import Done, Progress, Worker
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore
url, name, log = sys.argv[1:]
store = SqlStore(Database(url), lease_s=0.6)
worker = Worker(name, "host", "device", ("nano",))
while True:
    for claim in store.claim(worker):
        for step in range(3):
            time.sleep(0.02)
            store.beat(worker, [Progress(claim.id, claim.token, step=step)])
        if store.finish(claim.id, claim.token, Done({}, 100)):
            with open(log, "a") as file:
                file.write(claim.id + "\\n")
    time.sleep(0.01)
"""


def test_every_job_is_done_once_while_workers_are_killed(store, url, tmp_path):
    add(store, *[f"{i:02}" for i in range(24)])
    log = tmp_path / "log"

    def start(index):
        return subprocess.Popen([sys.executable, "-c", WORK, url, f"w{index}", str(log)])

    workers = [start(0), start(1)]
    try:
        for kill in range(6):
            time.sleep(0.9)
            victim = workers[kill % 2]
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            workers[kill % 2] = start(2 + kill)
        deadline = time.monotonic() + 60
        while videos.depth(store.database) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert videos.depth(store.database) == {}
    rows = videos.page(store.database, None, limit=100).rows
    failed = [row for row in rows if row.status != "completed"]
    assert all(row.error_code == "worker_lost" for row in failed)
    assert len(failed) <= 1
    done = log.read_text().split()
    assert len(done) == len(set(done))


def test_a_stopped_worker_that_wakes_up_changes_nothing(store, url, tmp_path):
    add(store, "one")
    (first,) = store.claim(A)
    time.sleep(LEASE_S + 0.1)  # as by SIGSTOP: no beat in time
    (second,) = store.claim(B)
    assert store.beat(A, [Progress(first.id, first.token, percent=99)]) == {}
    assert not store.finish(first.id, first.token, Failed("error", "late"))
    assert not store.finish(first.id, first.token, Released())
    row = videos.get(store.database, first.id, None)
    assert (row.status, row.worker, row.token, row.progress) == ("in_progress", "b", second.token, 0)
