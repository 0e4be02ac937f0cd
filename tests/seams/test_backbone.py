"""Every backbone, and one that the package does not know: predictions, a stopped and resumed run, an export,
an adapter, a plan and a clip.
"""

import json
from typing import Any, cast

import pytest
import torch
from tests.seams import toy_backbone
from torch import nn

from kinema.checkpoints.adapters import LoRAFile, LoRALinear, add_lora, save_lora
from kinema.checkpoints.components import config_of, load_backbone
from kinema.cli.main import main
from kinema.errors import ConfigError, ModelError, UnknownName
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.models.backbone import BACKBONES, Backbone, entry_of, without_weights
from kinema.models.conditioning import Conditioning, TextStates
from kinema.training import load_task, train

RECIPE = """
task = "dit"
backbone = "{name}"
periods = [{{ until = 1.0, batch = 2, latent_frames = 2 }}]
mix = {{ tasks = {{ text = 1.0 }} }}
model = {{ {model} }}
world = {{ name = "stage", nouns = 8 }}
data = {{ num_clips = 4, num_images = 4, num_frames = 5, shapes = [{{ height = 64, width = 64 }}] }}
run = {{ save_every = 2, sample_every = 4, log_every = 1 }}
defaults = {{ steps = 2 }}
"""
SIZES: dict[str, dict[str, Any]] = {
    "dit": {"d": 24, "num_heads": 2, "ffn_dim": 32, "num_layers": 2, "patch": (1, 1, 1)},
    "unet": {"channels": (16, 32), "depths": (1, 1), "heads": (2, 4), "groups": 4},
    "toy": {"d": 8},
}


@pytest.fixture(params=SIZES)
def name(request, monkeypatch):
    toy_backbone.register(monkeypatch)
    return request.param


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("backbones")


def network(name, **fixed) -> Any:
    """A backbone in which every weight matters."""
    shape = {"in_channels": 5, "out_channels": 3, "text_dim": 6, "text_length": 9, **fixed}
    module = BACKBONES[name].build(SIZES[name], **shape)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return module


def conditioning(*sizes):
    """Prompts and two channels beside the latents for clips of (lf, lh, lw) = `sizes`."""
    generator = torch.Generator().manual_seed(1)
    return [
        Conditioning(
            TextStates(torch.randn(3 + i, 6, generator=generator), (3 + i,)),
            channels=torch.randn(1, 2, *size, generator=generator),
        )
        for i, size in enumerate(sizes)
    ]


def recipe(folder, name, **sizes):
    """A recipe file for a backbone."""
    file = folder / f"{name}.toml"
    lines = ", ".join(f"{key} = {list(v) if isinstance(v, tuple) else v}" for key, v in sizes.items())
    file.write_text(RECIPE.format(name=name, model=lines))
    return file


def train_for(name, out, steps):
    return train(load_task(recipe(out.parent, name, **SIZES[name]), steps=steps), out)


@pytest.fixture
def export(name, home, monkeypatch):
    """The folder of a model with the backbone, which is trained once."""
    monkeypatch.setattr("kinema.training.tasks.diffusion.task.NUM_SAMPLES", 1)
    if not (home / name / "export").exists():
        train_for(name, home / name, 4)
    return home / name / "export"


def test_it_is_what_its_entry_says(name):
    backbone, entry = network(name), BACKBONES[name]
    assert isinstance(backbone, Backbone)
    assert entry_of(backbone.config) is entry
    assert (backbone.in_channels, backbone.out_channels, backbone.text_width) == (5, 3, 6)
    assert entry.build(
        entry.sizes(backbone.config), in_channels=5, out_channels=3, text_dim=6, text_length=9
    ).config == (backbone.config)
    assert cast(nn.Module, without_weights(backbone.config)).state_dict().keys() == (
        backbone.state_dict().keys()
    )
    with pytest.raises(ConfigError, match="sets text_dim, which follow from the VAE and the text"):
        entry.build({"text_dim": 3}, text_dim=6)


def test_prepared_conditioning_gives_the_predictions_of_the_conditioning(name):
    backbone, given = network(name), Conditioning.cat(conditioning((2, 4, 6), (2, 4, 6)))
    x, t = torch.randn(2, 3, 2, 4, 6), torch.tensor([0.2, 0.9])
    out = backbone.predict(x, t, given)
    assert out.shape == (2, 3, 2, 4, 6)
    spread = t.view(2, 1, 1, 1, 1).expand(2, 1, 2, 4, 6)
    for other in (backbone.predict(x, t, backbone.prepare(given)), backbone.predict(x, spread, given)):
        torch.testing.assert_close(other, out, rtol=0, atol=5e-6)

    for i, alone in enumerate(given.split()):
        again = backbone.predict(x[i : i + 1], t[i : i + 1], backbone.prepare(alone))
        torch.testing.assert_close(again[0], out[i], rtol=0, atol=5e-6)


def test_packed_clips_have_the_predictions_of_clips_alone(name):
    backbone, sizes = network(name), [(2, 4, 6), (1, 3, 3), (3, 2, 2)]
    given, firsts = conditioning(*sizes), [0, 0, 4]
    clips = [torch.randn(3, *size) for size in sizes]
    times = [torch.rand(1).expand(1, *size) for size in sizes]
    packed = backbone.predict_packed(clips, times, given, firsts)
    for clip, t, one, first, out in zip(clips, times, given, firsts, packed, strict=True):
        torch.testing.assert_close(
            out, backbone.predict(clip[None], t[None], one, first)[0], rtol=0, atol=5e-6
        )


def test_text_channels_and_time_change_the_prediction_and_every_weight_has_a_gradient(name):
    backbone, (given,) = network(name), conditioning((2, 4, 6))
    x, t = torch.randn(1, 3, 2, 4, 6), torch.tensor([0.3])
    out = backbone.predict(x, t, given)
    others = (
        backbone.predict(x, t, Conditioning(TextStates(-given.text.states, (3,)), channels=given.channels)),
        backbone.predict(x, t, Conditioning(given.text, channels=-given.channels)),
        backbone.predict(x, t + 0.5, given),
    )
    assert all((other - out).abs().max() > 1e-3 for other in others)
    out.square().mean().backward()
    assert not [key for key, weight in backbone.named_parameters() if not weight.grad.abs().sum() > 0]


def test_a_killed_run_resumes_bit_for_bit(name, export, home):
    train_for(name, home / f"{name} again", 2)
    train_for(name, home / f"{name} again", 4)
    weights = [load_backbone(folder).state_dict() for folder in (export, home / f"{name} again" / "export")]
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_its_class_in_the_model_folder_picks_the_entry(name, export, tmp_path):
    entry, index = BACKBONES[name], json.loads((export / "model_index.json").read_text())
    config = json.loads((export / "transformer" / "config.json").read_text())
    assert config["_class_name"] == index["transformer"][1] == entry.class_names[0]
    assert type(load_backbone(export)) is entry.network
    assert load_backbone(export).config == config_of(export, entry.network)

    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "ToyBackbones"}))
    with pytest.raises(ModelError, match=r"unknown backbone 'ToyBackbones'.*known: .*WanTransformer3DModel"):
        load_backbone(tmp_path)


def test_a_recipe_with_an_unknown_backbone_or_a_size_of_another_is_refused(name, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown backbone 'dot'; did you mean 'dit'\?"):
        load_task(recipe(tmp_path, "dot"))
    with pytest.raises(ConfigError, match=r"unknown key in \[model\] 'depth'"):
        load_task(recipe(tmp_path, name, depth=3))


def test_it_is_planned_for_and_generates(name, export, tmp_path, capsys):
    assert main(["plan", "--model", str(export), "--frames", "5"]) == 0
    assert "forward passes" in capsys.readouterr().out
    pipeline = load(export, device="cpu", precision="fp32")
    assert pipeline.manifest.time_per_token == load_backbone(export).time_per_token
    result = pipeline.run(Request("a red fox runs", seed=1, steps=2, frames=5))
    assert result.video.num_frames == 5


def test_an_adapter_of_its_linear_layers_is_merged(name, export, tmp_path):
    backbone = cast(nn.Module, load_backbone(export))
    layer = {"dit": "to_q", "unet": "to_q", "toy": "condition"}[name]
    adapted = add_lora(backbone, 2, 2.0, (layer,))
    for module in adapted.modules():
        if isinstance(module, LoRALinear):
            nn.init.ones_(module.up)
    save_lora(tmp_path / "lora.safetensors", adapted)

    merged = load(export, device="cpu", loras=[LoRAFile(tmp_path / "lora.safetensors")])
    plain = load(export, device="cpu")
    request = Request("a red fox runs", seed=1, steps=2, frames=5)
    latents = [pipeline.sample(pipeline.plan(request)) for pipeline in (plain, merged)]
    assert not torch.equal(*latents)
