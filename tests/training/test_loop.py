"""A run that was stopped in any way ends with the same bits as one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinema import device
from kinema.errors import ConfigError, OutputError, TrainingError
from kinema.training import checkpoint, load_task, train

RECIPE = Path(__file__).parents[2] / "recipes" / "vae_tiny.toml"
SETTINGS = (
    "run.save_every=2",
    "run.sample_every=100",
    "run.steps=4",
    "data.stats_clips=2",
    "data.size=32",
    "data.clip_batch=1",
    "data.image_batch=1",
    "model.base_dim=4",
    "model.z_dim=4",
)


def run(out: Path, *settings: str) -> bool:
    return train(load_task(RECIPE, assignments=[*SETTINGS, *settings]), out)


def weights(out: Path, step: int = 4) -> dict[str, torch.Tensor]:
    path = out / f"checkpoint-{step:08d}"
    return {
        f"{name}/{key}": value
        for name in ("model", "ema")
        for key, value in load_file(path / f"{name}.safetensors").items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of four steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(out)
    return out


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_four_steps_are_two_and_a_kill_and_two(whole, tmp_path):
    out = tmp_path / "run"
    script = f"""
import os, signal
from pathlib import Path
from kinema import device
from kinema.training import load_task, train
device.has_fast_bf16 = lambda _: {device.has_fast_bf16(device.CPU)}  # as in the parent, also with --bf16
task = load_task(Path({str(RECIPE)!r}), assignments={[*SETTINGS]!r})
draw = task.batch
task.batch = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 3 else draw(step)
train(task, Path({str(out)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert checkpoint.latest(out) == out / "checkpoint-00000002"
    assert run(out)
    assert same(out, whole)


def test_a_termination_saves_the_step_it_came_in_and_the_run_goes_on_from_it(whole, tmp_path):
    out = tmp_path / "run"
    task = load_task(RECIPE, assignments=SETTINGS)
    draw = task.batch

    def draw_and_stop(step: int):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(step)

    task.batch = draw_and_stop
    assert not train(task, out)
    assert checkpoint.latest(out) == out / "checkpoint-00000003"
    assert run(out)
    assert same(out, whole)


def test_a_stopped_run_goes_on_to_the_same_bits_in_either_precision(tmp_path, precision):
    assert run(tmp_path / "whole", "run.save_every=1", "run.steps=2")
    out, task = (
        tmp_path / "stopped",
        load_task(RECIPE, assignments=[*SETTINGS, "run.save_every=1", "run.steps=2"]),
    )
    draw = task.batch

    def draw_and_stop(step: int):
        signal.raise_signal(signal.SIGTERM)
        return draw(step)

    task.batch = draw_and_stop
    assert not train(task, out)
    assert checkpoint.latest(out) == out / "checkpoint-00000001"
    assert run(out, "run.save_every=1", "run.steps=2")
    first, second = weights(tmp_path / "whole", 2), weights(out, 2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_torn_checkpoint_is_passed_over(whole, tmp_path):
    out = tmp_path / "run"
    run(out)
    newest = out / "checkpoint-00000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert checkpoint.latest(out) == out / "checkpoint-00000002"
    assert run(out)
    assert same(out, whole)


def test_a_run_does_not_go_on_with_other_settings(whole):
    with pytest.raises(TrainingError, match=r"optimizer\.lr"):
        run(whole, "optimizer.lr=0.5")


def test_non_finite_steps_are_skipped_and_too_many_end_the_run(tmp_path):
    def poisoned(steps: set[int]):
        task = load_task(RECIPE, assignments=[*SETTINGS, "run.max_bad_steps=2"])
        draw = task.batch

        def batch(step: int):
            clips = draw(step)
            return clips | {"video": clips["video"] * float("nan")} if step in steps else clips

        task.batch = batch  # type: ignore[method-assign]
        return task

    assert train(poisoned({1}), tmp_path / "one")
    state = checkpoint.read_state(tmp_path / "one" / "checkpoint-00000004")
    assert state is not None
    assert state["bad_steps"] == 1
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "one").values())
    with pytest.raises(TrainingError, match="2 steps in a row"):
        train(poisoned({1, 2}), tmp_path / "two")


def test_a_mistyped_key_is_refused_with_its_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        load_task(RECIPE, assignments=["optimizer.Lr=1"])
    with pytest.raises(ConfigError, match="not of type int"):
        load_task(RECIPE, assignments=["run.steps=many"])


def test_a_file_in_the_place_of_the_run_folder_is_an_output_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="run"):
        run(tmp_path / "run")


def test_rotation_keeps_whole_checkpoints_and_drops_none_for_a_damaged_one(tmp_path):
    out = tmp_path / "run"
    run(out)
    damaged = out / "checkpoint-00000009"
    damaged.mkdir()
    (damaged / "state.json").write_text("[]")
    task = load_task(RECIPE, assignments=[*SETTINGS, "run.steps=6", "run.keep_checkpoints=1"])
    assert train(task, out)
    assert checkpoint.latest(out) == out / "checkpoint-00000006"
    assert not (out / "checkpoint-00000004").exists()


def test_a_sample_that_fails_costs_a_line_and_not_the_run(tmp_path, caplog):
    task = load_task(RECIPE, assignments=[*SETTINGS, "run.sample_every=2"])

    def fail(*arguments: object) -> None:
        raise OutputError("no space left")

    task.sample = fail
    assert train(task, tmp_path / "run")
    assert "no sample of step 2: no space left" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.size=0", "size = 0"),
        ("data.crop=24", "multiples of 16"),
        ("optimizer.betas=[2.0, 3.0]", r"betas = \[2.0, 3.0\]"),
        ("run.num_workers=-1", "num_workers"),
        ("run.device=cpu:x", "names no device"),
    ],
)
def test_impossible_settings_are_refused_before_the_first_step(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", setting)


def test_weights_of_another_size_are_refused_in_one_line(whole):
    with pytest.raises(ConfigError, match="does not fit") as error:
        load_task(RECIPE, assignments=[*SETTINGS, "model.z_dim=6"], init_from=whole / "export")
    assert "\n" not in str(error.value)
