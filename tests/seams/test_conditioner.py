"""Every kind of conditioning, and two that the package does not make: a text encoder with a pooled vector,
and actions.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.seams import toy_conditioner
from torch import nn

from kinema.checkpoints.components import load_backbone, load_component, save_component
from kinema.cli.main import main
from kinema.errors import RequestError
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.training import load_task, train

RECIPE = Path(__file__).parents[2] / "recipes" / "dit_tiny.toml"
QUICK = (
    "run.save_every=2",
    "run.sample_every=2",
    "run.log_every=1",
    "model.d=24",
    "model.ffn_dim=32",
    "data.num_clips=4",
    "data.num_images=4",
    "periods=[{until=1.0, batch=2, latent_frames=2}]",
    "defaults.steps=2",
)
TINY = DiTConfig(
    in_channels=4, out_channels=4, d=24, num_layers=2, num_heads=2, ffn_dim=32, text_dim=6, freq_dim=16
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXT = TextStates(draw(5, 6), (2, 3))
KINDS = {
    "text": ({}, Conditioning(TEXT)),
    "pooled text": ({"vector_dim": 3}, Conditioning(replace(TEXT, pooled=draw(2, 3)))),
    "vectors": ({"vector_dim": 5}, Conditioning(replace(TEXT, pooled=draw(2, 3)), vectors=draw(2, 2))),
    "actions": ({"frame_vector_dim": 4}, toy_conditioner.with_actions(TEXT, [[0, 1, 2], [3, 3, 0]])),
    "vectors of both kinds": (
        {"vector_dim": 2, "frame_vector_dim": 4},
        Conditioning(TEXT, vectors=draw(2, 2), frame_vectors=draw(2, 3, 4)),
    ),
    "channels": ({"in_channels": 7}, Conditioning(TEXT, channels=draw(2, 3, 3, 4, 4))),
    "images": ({"image_dim": 8}, Conditioning(TEXT, images=TextStates(draw(7, 8), (4, 3)))),
}


def network(config):
    """A DiT in which every weight matters."""
    dit = DiT(config)
    for i, parameter in enumerate(dit.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(i))
    return dit


@pytest.fixture(params=KINDS)
def case(request):
    """(a backbone that takes the conditioning, conditioning of two clips of 3x4x4 latents)."""
    change, conditioning = KINDS[request.param]
    return network(replace(TINY, **change)), conditioning


def changed(conditioning):
    """The same conditioning with other values in one of its parts."""
    name = next(
        (
            n
            for n in ("channels", "frame_vectors", "vectors", "images")
            if getattr(conditioning, n) is not None
        ),
        "text",
    )
    part = getattr(conditioning, name)
    if name == "images" or (name == "text" and part.pooled is None):
        return replace(conditioning, **{name: replace(part, states=-part.states)})
    if name == "text":
        return replace(conditioning, text=replace(part, pooled=-part.pooled))
    return replace(conditioning, **{name: -part + 1})


def test_split_and_cat_are_inverse(case):
    _, conditioning = case
    again = Conditioning.cat(conditioning.to(torch.device("cpu")).split())
    assert len(again) == 2
    assert again.text.lengths == (2, 3)
    for name in ("vectors", "frame_vectors", "channels", "clip_vectors"):
        before, after = getattr(conditioning, name), getattr(again, name)
        assert (before is None and after is None) or torch.equal(before, after)


def test_it_changes_the_prediction_and_reaches_every_weight(case):
    dit, conditioning = case
    x, t = draw(2, 4, 3, 4, 4), torch.tensor([0.2, 0.8])
    out = dit.predict(x, t, conditioning)
    assert (dit.predict(x, t, changed(conditioning)) - out).abs().max() > 1e-3
    out.square().mean().backward()
    assert not [name for name, weight in dit.named_parameters() if not weight.grad.abs().sum() > 0]


def test_prepared_packed_and_single_clips_have_the_same_predictions(case):
    dit, conditioning = case
    x = draw(2, 4, 3, 4, 4)
    t = torch.rand(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    out = dit.predict(x, t, conditioning)
    torch.testing.assert_close(dit.predict(x, t, dit.prepare(conditioning)), out, rtol=0, atol=1e-5)
    packed = dit.predict_packed(list(x), list(t), conditioning.split(), [0, 0])
    torch.testing.assert_close(torch.stack(packed), out, rtol=0, atol=1e-5)
    for i, one in enumerate(conditioning.split()):
        alone = dit.predict(x[i : i + 1], t[i : i + 1], one)
        torch.testing.assert_close(alone[0], out[i], rtol=0, atol=1e-5)


def test_equal_times_are_given_for_a_clip_or_for_each_latent(case):
    dit, conditioning = case
    x, t = draw(2, 4, 3, 4, 4), torch.tensor([0.2, 0.8])
    spread = t.view(2, 1, 1, 1, 1).expand(2, 1, 3, 4, 4)
    torch.testing.assert_close(
        dit.predict(x, t, conditioning), dit.predict(x, spread, conditioning), rtol=0, atol=1e-5
    )


def test_a_new_network_ignores_vectors_and_a_loaded_one_keeps_them(case, tmp_path):
    dit, conditioning = case
    x, t = draw(2, 4, 3, 4, 4), torch.tensor([0.2, 0.8])
    new = DiT(dit.config)
    nn.init.normal_(new.head.projection.weight)
    if dit.condition_embedding is not None:
        assert torch.equal(new.predict(x, t, conditioning), new.predict(x, t, changed(conditioning)))
    save_component(tmp_path / "dit", dit)
    again = load_component(tmp_path / "dit", DiT)
    assert again.config == dit.config
    assert torch.equal(again.predict(x, t, conditioning), dit.predict(x, t, conditioning))


def test_an_action_of_a_frame_enters_at_its_own_time():
    dit = network(replace(TINY, frame_vector_dim=4))
    table = []
    dit.condition_embedding.register_forward_pre_hook(lambda module, inputs: table.append(inputs[0]))
    actions = toy_conditioner.with_actions(TextStates(draw(2, 6), (2,)), [[0, 1, 1]])
    t = torch.full((1, 1, 3, 4, 4), 0.5)
    t[:, :, 0] = 0
    dit.predict(draw(1, 4, 3, 4, 4), t, actions)
    assert torch.equal(table[0], torch.eye(4)[[0, 1, 1]])


@pytest.mark.parametrize(
    ("change", "conditioning"),
    [
        ({"vector_dim": 3}, KINDS["text"][1]),
        ({}, KINDS["actions"][1]),
        ({"vector_dim": 2}, KINDS["vectors"][1]),
    ],
    ids=["missing", "not taken", "of another width"],
)
def test_vectors_that_do_not_fit_are_refused(change, conditioning):
    dit = DiT(replace(TINY, **change))
    with pytest.raises(RequestError, match=r"takes vectors of width \d per clip and 0 per latent frame; the"):
        dit.predict(draw(2, 4, 3, 4, 4), torch.rand(2), conditioning)


def test_parts_of_other_numbers_of_clips_are_refused():
    with pytest.raises(ValueError, match="vectors of 3 clips do not belong to 2 prompts"):
        Conditioning(TEXT, vectors=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="1 pooled vectors do not belong to 2 prompts"):
        replace(TEXT, pooled=torch.zeros(1, 2))


def test_actions_are_learned():
    torch.manual_seed(0)
    dit = DiT(replace(TINY, frame_vector_dim=4))
    optimizer = torch.optim.AdamW(dit.parameters(), lr=1e-2)
    text, levels = TextStates(draw(2, 6), (2,)), torch.tensor([-1.0, 0.0, 1.0, 2.0])
    errors = []
    for step in range(40):
        actions = torch.randint(4, (1, 3), generator=torch.Generator().manual_seed(step)).tolist()
        wanted = levels[torch.tensor(actions)].view(1, 1, 3, 1, 1)
        given = toy_conditioner.with_actions(text, actions)
        (out,) = dit.predict_packed([draw(4, 3, 2, 2, seed=step)], [torch.ones(1, 3, 2, 2)], [given], [0])
        loss = (out - wanted[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert sum(errors[-8:]) < 0.2 * sum(errors[:8])


def test_a_model_with_pooled_text_is_trained_resumed_planned_and_generates(tmp_path, monkeypatch, capsys):
    toy_conditioner.register(monkeypatch)
    monkeypatch.setattr("kinema.training.tasks.diffusion.task.NUM_SAMPLES", 1)
    toy_conditioner.save(tmp_path / "text", 12)
    settings = [*QUICK, f"text={tmp_path / 'text'}", f"model.vector_dim={toy_conditioner.POOLED}"]
    for run, stops in (("whole", [4]), ("resumed", [2, 4])):
        for steps in stops:
            train(load_task(RECIPE, steps=steps, assignments=settings), tmp_path / run)

    whole, resumed = (load_backbone(tmp_path / run / "export").state_dict() for run in ("whole", "resumed"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert whole["condition_embedding.project.weight"].abs().max() > 0

    assert main(["plan", "--model", str(tmp_path / "whole" / "export"), "--frames", "5"]) == 0
    assert "forward passes" in capsys.readouterr().out
    result = load(tmp_path / "whole" / "export", device="cpu").run(Request("a red fox", steps=2, frames=5))
    assert result.video.num_frames == 5
