"""The captioner task: features are computed once, short captions come first, the card has its scores."""

import logging
from pathlib import Path

import pytest
import torch

from kinema.checkpoints.components import load_component
from kinema.checkpoints.manifest import load_card
from kinema.errors import ConfigError
from kinema.models.captioner import PAD, Captioner
from kinema.training import load_task, plan_lines, train
from kinema.training.tasks.captioner import CaptionerTask

RECIPES = Path(__file__).parents[3] / "recipes"
QUICK = (
    "run.steps=2",
    "run.save_every=2",
    "run.sample_every=2",
    "run.log_every=1",
    "data.num_clips=8",
    "data.held_out_clips=2",
)


def tiny(*settings: str) -> CaptionerTask:
    task = load_task(RECIPES / "captioner_tiny.toml", assignments=[*QUICK, *settings])
    assert isinstance(task, CaptionerTask)
    return task


def texts(task: CaptionerTask, batch: dict) -> list[str]:
    return [task.model.codec.decode([i for i in row[1:] if i > 1]) for row in batch["ids"].tolist()]


def test_a_tiny_captioner_is_trained_and_says_what_it_scores(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert train(tiny(), tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "00000002.png").exists()
    captioner = load_component(tmp_path / "run" / "export", Captioner)
    assert "penguin" in captioner.config.words
    scores = load_card(tmp_path / "run" / "export")["measured"]
    assert set(scores) == {
        f"{split} {form}" for split in ("held_out", "train") for form in ("medium", "medium_zh")
    }
    assert all(0 <= share <= 1 for shares in scores.values() for share in shares.values())

    caplog.clear()
    task = tiny()
    task.prepare(tmp_path / "run", torch.device("cpu"))
    assert "looked at" not in caplog.text, "clips are looked at once"


def test_short_captions_come_first_and_detailed_ones_later(tmp_path):
    task = tiny("run.steps=100")
    task.prepare(tmp_path, torch.device("cpu"))
    early, late = (
        [text for step in steps for text in texts(task, task.batch(step))]
        for steps in (range(0, 25), range(25, 75))
    )
    assert not any(text.endswith((".", "。")) for text in early)
    assert any(text.endswith(".") for text in late)
    assert texts(task, task.batch(3)) == texts(task, task.batch(3))


def test_captions_are_those_of_the_clips_that_are_seen(tmp_path):
    task = tiny("run.steps=100", "data.lengths=[5]")
    task.prepare(tmp_path, torch.device("cpu"))
    seen, truths = task.seen[5]
    batch = task.batch(60)
    for row, text in enumerate(texts(task, batch)):
        index = next(i for i in range(len(truths)) if torch.equal(seen.frames[i], batch["frames"][row]))
        form = task.config.forms[batch["ids"][row, 0].item() - 2]
        spoken = {task._caption(truths[index], form, seed) for seed in range(300)}
        assert text.split(" ")[:1] in [one.split(" ")[:1] for one in spoken]


def test_padding_teaches_nothing():
    task = tiny("data.hidden=0.0")
    ((_, batch, _),) = task.benchmark_batches()
    longer = batch | {"ids": torch.cat([batch["ids"], torch.full((len(batch["ids"]), 4), PAD)], dim=1)}
    with torch.no_grad():
        losses = [task.loss(task.model, one, torch.Generator())[0] for one in (batch, longer)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_an_oracle_that_does_not_know_the_stage_is_refused():
    with pytest.raises(ConfigError, match="the oracle does not know"):
        tiny("world.nouns=60")


def test_periods_rise_to_the_end():
    mix = "captions = { short = 1.0, medium = 0.0, detailed = 0.0, dropped = 0.0 }"
    with pytest.raises(ConfigError, match="must rise and the last must end at 1"):
        tiny(f"periods=[{{until = 0.5, {mix}}}]")


def test_a_plan_can_be_measured():
    assert "parameters" in plan_lines(tiny())[0]
