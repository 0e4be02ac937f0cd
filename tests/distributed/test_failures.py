"""Runs under torchrun that are killed, stopped or wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.distributed.ranks import write_recipe

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("failures") / "run.toml"
    write_recipe(path)
    return path


def start(recipe: Path, name: str, *settings: str, restarts: int = 0) -> subprocess.Popen:
    words = ["--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}", "-m", "kinema", "train"]
    words += [str(recipe), "--out", str(recipe.parent / name)]
    words += [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(folder: Path) -> list[int]:
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [json.loads(line)["step"] for line in lines]


def worker(run: subprocess.Popen, rank: int, folder: Path, step: int) -> psutil.Process:
    """The process of a rank, when the run has done `step` steps."""
    deadline = time.monotonic() + 100
    while max(steps(folder), default=0) < step:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)
    ranks = [child for child in psutil.Process(run.pid).children() if child.environ().get("RANK")]
    return next(child for child in ranks if child.environ()["RANK"] == str(rank))


def own_lines(run: subprocess.Popen) -> list[str]:
    """The error lines of the program itself."""
    _, errors = run.communicate(timeout=100)
    return [line for line in errors.splitlines() if line.startswith("kinema:")]


@pytest.fixture(scope="module")
def unbroken(recipe):
    run = start(recipe, "unbroken")
    assert own_lines(run) == []
    return recipe.parent / "unbroken" / "checkpoint-00000020"


def test_a_killed_worker_is_restarted_and_the_result_is_that_of_an_unbroken_run(recipe, unbroken):
    run = start(recipe, "killed", "run.save_every=4", restarts=1)
    worker(run, 1, recipe.parent / "killed", 6).send_signal(signal.SIGKILL)

    (line,) = own_lines(run)
    assert re.match(r"kinema: rank 1 failed at step \d+ .*: the same command continues the run", line)
    assert run.returncode == 0
    found = recipe.parent / "killed" / "checkpoint-00000020"
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt"):
        assert (found / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_signal_to_one_rank_saves_on_all_of_them_with_exit_code_75(recipe):
    folder = recipe.parent / "stopped"
    run = start(recipe, "stopped", "run.steps=2000", "run.save_every=2000", "run.sample_every=2000")
    worker(run, 1, folder, 2).send_signal(signal.SIGTERM)

    _, errors = run.communicate(timeout=100)
    assert "exitcode  : 75" in errors
    last = max(steps(folder))
    assert [path.name for path in folder.glob("checkpoint-*")] == [f"checkpoint-{last:08d}"]


def test_heads_that_do_not_divide_and_another_recipe_are_one_line(recipe, unbroken):
    run = start(recipe, "heads", "parallel.sequence=2", "model.num_heads=1")
    assert own_lines(run) == [
        "kinema: num_heads = 1 does not divide among 2 ranks: set parallel.sequence to a divisor"
    ]
    run = start(recipe, "unbroken", "optimizer.lr=0.5")
    (line,) = own_lines(run)
    assert "was trained with optimizer.lr = 0.001, not 0.5" in line


def test_a_mesh_of_another_size_is_one_line_and_exit_code_2(recipe):
    run = start(recipe, "wrong", "parallel.shard=3", "parallel.replicate=1")
    assert own_lines(run) == [
        "kinema: parallel.replicate = 1 times parallel.shard = 3 is not the number of ranks, 2: "
        "set both so that they multiply to 2"
    ]
