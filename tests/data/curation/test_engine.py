"""Children with deadlines: what hangs, dies or raises becomes a reason, and the rest is done."""

import importlib.util
import os
import signal
import time
from pathlib import Path

import pytest

from kinema.data.curation.engine import Pool, WorkItem
from kinema.errors import DataError, VideoError


def step_function(arguments):
    """Does what its arguments say."""
    match arguments["do"]:
        case "hang":
            time.sleep(600)
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise VideoError(f"cannot read {arguments['path']}: it is upside down")
        case "surprise":
            raise KeyError("width")
    return {"pid": os.getpid()}


def test_every_item_has_one_outcome_however_its_child_ends():
    todo = ["work", "hang", "die", "raise", "surprise", "work"]
    jobs = [
        WorkItem(f"{i}", {"do": what, "path": "clips/a.mp4"}, 0.2 if what == "hang" else 30)
        for i, what in enumerate(todo)
    ]
    engine = Pool(1)
    import kinema.data.curation.engine as module

    before, module.START_S = module.START_S, 3.0  # the hanging item may come first to a new child
    try:
        outcomes = list(engine.run(step_function, jobs))
    finally:
        module.START_S = before
    assert [outcome.key for outcome in outcomes] == list("012345")
    assert [outcome.reason for outcome in outcomes] == [
        "",
        "took longer than its deadline of 0 s",
        "the process that read it was killed by SIGSEGV",
        "it is upside down",
        "KeyError: 'width'",
        "",
    ]
    assert outcomes[0].result is not None
    assert outcomes[0].result["pid"] != os.getpid()


def test_children_end_when_the_outcomes_are_no_longer_wanted():
    run = Pool(1).run(step_function, [WorkItem("a", {"do": "work"}, 30), WorkItem("b", {"do": "hang"}, 600)])
    pid = next(run).result["pid"]
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ray_gives_the_same_as_the_pool(built, tmp_path):
    from tests.data.curation.films import film, shot

    if importlib.util.find_spec("ray") is None:
        from kinema.data.curation.ray_engine import RayEngine

        with pytest.raises(DataError, match=r"kinema\[ray\]"):
            RayEngine()
        pytest.skip("ray is not installed: pip install 'kinema[ray]'")
    from kinema.data.curation.ray_engine import RayEngine

    folder = tmp_path / "in"
    for seed in (1, 2):
        film(folder / f"{seed}.mp4", shot(seed, 40))
    (folder / "broken.mp4").write_bytes(b"no video")
    built(folder, tmp_path / "pool")
    built(folder, tmp_path / "ray", engine=RayEngine(num_cpus=1))
    assert contents(tmp_path / "ray") == contents(tmp_path / "pool")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "work" not in p.parts
    }
