"""The expander task: pairs in which the prompt stands inside its expansion, and a folder that expands."""

import random
from pathlib import Path

import pytest
import torch

from kinema.checkpoints.components import load_component
from kinema.checkpoints.manifest import load_card
from kinema.models.expander import PROMPT_KINDS, UNKNOWN, Expander
from kinema.training import load_task, train
from kinema.training.tasks.expander import ExpanderTask, align

RECIPE = Path(__file__).parents[3] / "recipes" / "expander_tiny.toml"


def tiny(*settings: str) -> ExpanderTask:
    task = load_task(RECIPE, assignments=settings)
    assert isinstance(task, ExpanderTask)
    return task


def test_a_tiny_expander_is_trained_and_expands(tmp_path):
    assert train(
        tiny("run.steps=4", "run.save_every=4", "run.sample_every=4", "data.truths=10", "data.held_out=4"),
        tmp_path / "run",
    )
    expander = load_component(tmp_path / "run" / "export", Expander)
    assert "quokka" in expander.expand("a quokka walks")
    assert 0 <= load_card(tmp_path / "run" / "export")["held_out"]["complete"] <= 1
    assert "text:" in (tmp_path / "run" / "samples" / "00000004.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", PROMPT_KINDS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_steps_make_the_target_of_the_prompt(kind, language):
    task = tiny(
        "data.truths=40",
        "world.nouns=24",
        "world.max_objects=2",
        'world.cameras=["still", "follow", "pan_left"]',
        "world.verbs=[]",
    )
    task.prepare(Path(), torch.device("cpu"))
    added = 0
    for index, truth in enumerate(task.truths):
        prompt, target = task.world.prompt_pair(truth, kind, language, random.Random(index))
        readings, steps = align(task.model, prompt, target)
        assert steps.count(0) == len(readings) + 1
        assert steps[-1] == 0
        assert task.model.ids[UNKNOWN] not in steps
        wanted = [token.reading for token in task.model.read(target.rstrip("."))]
        given = iter(readings)
        assert [next(given) if step == 0 else step for step in steps[:-1]] == wanted
        added += len(steps) - 1 - len(readings)
    assert added > 0


def test_a_batch_is_a_pure_function_of_its_step():
    first, second = tiny(), tiny()
    assert first.batch(3) == second.batch(3)
    assert first.batch(3) != first.batch(4)


def test_the_loss_is_small_for_an_expander_that_is_sure():
    task = tiny("data.truths=10", "data.batch=4", "data.unknown=0.0")
    batch = task.batch(0)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    for _ in range(60):
        loss, metrics = task.loss(task.model, batch, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.4
    assert float(metrics["right"]) > 0.9
