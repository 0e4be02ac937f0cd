"""A run on several ranks has the losses of one rank, and continues on any number of them."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.distributed.ranks import on_ranks, write_recipe

from kinema.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The runs "one" and "two", without a pause, and runs of 1, 2 and 4 ranks that continue "two"."""
    folder = tmp_path_factory.mktemp("runs")
    write_recipe(folder / "run.toml")
    train_on_one(folder, "one")
    on_ranks(2, train_in_order, folder)
    on_ranks(4, train, folder, "four continued", "parallel.shard=2", "parallel.sequence=2")
    train_on_one(folder, "one continued")
    return folder


def train(folder, name, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    code = main(["train", str(folder / "run.toml"), "--out", str(folder / name), *words])
    assert code == 0, f"exit code {code}"


def train_on_one(folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(folder, name)


def train_in_order(folder):
    """On each of two ranks: a whole run, then the second half of a copy."""
    train(folder, "two")
    if os.environ["RANK"] == "0":
        for copy in ("one continued", "two continued", "four continued"):
            shutil.copytree(folder / "two" / "checkpoint-00000010", folder / copy / "checkpoint-00000010")
    train(folder, "two continued")


def rows(folder: Path) -> dict[int, dict]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row for row in map(json.loads, lines)}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = folder / "checkpoint-00000020"
    return {
        f"{name} {key}": value
        for name in ("model", "ema")
        for key, value in load_file(checkpoint / f"{name}.safetensors").items()
    }


def test_losses_and_norms_on_two_ranks_equal_those_of_one(folder):
    one, two = rows(folder / "one"), rows(folder / "two")
    assert one.keys() == two.keys() == set(range(1, 21))
    for step, row in one.items():
        for name in ("loss", "norm"):
            assert two[step][name] == pytest.approx(row[name], rel=1e-6, abs=1e-6), (step, name)


def test_a_run_that_continues_on_two_ranks_has_the_same_bits(folder):
    whole, continued = (folder / name / "checkpoint-00000020" for name in ("two", "two continued"))
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt"):
        assert (whole / name).read_bytes() == (continued / name).read_bytes()


@pytest.mark.parametrize("name", ["one continued", "four continued"])
def test_a_run_continues_on_another_number_of_ranks(folder, name):
    whole, continued = rows(folder / "two"), rows(folder / name)
    assert continued.keys() == set(range(11, 21))
    for step, row in continued.items():
        assert row["loss"] == pytest.approx(whole[step]["loss"], rel=1e-6, abs=1e-6)


def test_weights_on_two_ranks_equal_those_of_one(folder):
    one, two = tensors(folder / "one"), tensors(folder / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5, msg=name)


def test_the_first_rank_exports_and_samples(folder):
    assert (folder / "two" / "samples" / "00000020.png").is_file()
    network = Path("export") / "transformer" / "diffusion_pytorch_model.safetensors"
    one, two = (load_file(folder / name / network) for name in ("one", "two"))
    assert {name: value.shape for name, value in one.items()} == {k: v.shape for k, v in two.items()}
