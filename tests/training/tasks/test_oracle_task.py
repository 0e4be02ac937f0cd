"""The oracle task: targets that are the truth, round trips that are made once, a folder that loads and tells
what it scores.
"""

import logging
from pathlib import Path

import pytest
import torch

from kinema.checkpoints.components import load_component
from kinema.checkpoints.manifest import load_card
from kinema.errors import ConfigError
from kinema.models.oracle import Oracle
from kinema.training import load_task, plan_lines, train
from kinema.training.tasks.oracle import OracleTask, targets

RECIPES = Path(__file__).parents[3] / "recipes"
QUICK = (
    "run.steps=2",
    "run.save_every=2",
    "run.sample_every=2",
    "run.log_every=1",
    "data.round_trips=2",
    "data.held_out_round_trips=2",
)


def tiny(*settings: str) -> OracleTask:
    task = load_task(RECIPES / "oracle_tiny.toml", assignments=[*QUICK, *settings])
    assert isinstance(task, OracleTask)
    return task


def test_a_tiny_oracle_is_trained_and_says_what_it_scores(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert train(tiny(), tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "00000002.png").exists()
    oracle = load_component(tmp_path / "run" / "export", Oracle)
    assert oracle.config.slots["camera"] == ("still",)
    scores = load_card(tmp_path / "run" / "export")["held_out"]
    assert all(
        0 <= scores[kind][slot] <= 1 for kind in ("fresh", "round_trip") for slot in ("noun", "verb", "sky")
    )
    assert scores["fresh"]["camera"] == 1

    caplog.clear()
    task = tiny()
    task.prepare(tmp_path / "run", torch.device("cpu"))
    assert "through the VAE" not in caplog.text, "round trips are made once"
    first, second = task.batch(3), tiny("data.round_trip_share=0.0").batch(3)
    assert first["video"].shape == second["video"].shape


def test_targets_are_the_truth_of_the_clips():
    task = tiny()
    clips = [task.world.clip(seed, height=32, width=48, num_frames=5, fps=4.0) for seed in range(4)]
    found = targets(clips, task.config)
    for i, clip in enumerate(clips):
        assert task.config.slots["noun"][found["slot_noun"][i]] == clip.truth["noun"]
        track = clip.truth["objects"][0]["tracks"]
        assert (found["positions"][i, :, 0, 0] * 1.5).tolist() == pytest.approx(track["x"], abs=1e-4)
        assert found["log_sizes"][i].exp()[:, 0].tolist() == pytest.approx(track["size"], abs=1e-4)


def test_the_loss_is_zero_for_tracks_that_are_the_truth():
    task = tiny("data.batch=2", "data.round_trip_share=0.0")
    batch = task.batch(0)
    with torch.no_grad():
        _, metrics = task.loss(task.model, batch, torch.Generator())
        out = task.model(batch["video"])
    _, exact = task.loss(
        task.model,
        batch | {"positions": out.positions.detach(), "log_sizes": out.log_sizes.detach()},
        torch.Generator(),
    )
    assert float(metrics["position"]) > 0
    assert float(exact["position"]) == float(exact["log_size"]) == 0


def test_an_oracle_must_be_trained_on_everything():
    with pytest.raises(ConfigError, match=r"use world\.split = 'all'"):
        tiny("world.split=train")


def test_a_plan_can_be_measured():
    assert "parameters" in plan_lines(tiny("data.batch=2"))[0]
