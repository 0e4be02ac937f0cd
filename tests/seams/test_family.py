"""Every family of models, and one that the package does not know: found, described without its weights,
loaded, adapted, and used by the command line.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints.families.wan.wan_folders import peer
from tests.seams import toy_family
from torch import nn

import kinema
from kinema.checkpoints.adapters import LoRAFile, LoRALinear, add_lora, save_lora
from kinema.checkpoints.families import FAMILIES, find_family
from kinema.cli.main import main
from kinema.errors import ConfigError, ModelError
from kinema.generation.loading import load, manifest_of
from kinema.generation.request import Request
from kinema.video import Video

SRC = Path(kinema.__file__).parent
SIZES = {"kinema": "48x32", "wan": "48x32", "toy": "64x64"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.fixture(params=SIZES)
def model(request, home, monkeypatch):
    """(name of the family, folder of a tiny model)."""
    monkeypatch.setitem(FAMILIES, "toy", toy_family.TOY)
    name = request.param
    if name == "kinema":
        return name, request.getfixturevalue("model_folder")
    if not (home / name).exists():
        if name == "wan":
            peer("2.1-t2v").save_pretrained(home / name, safe_serialization=True)
        else:
            toy_family.save(home / name)
    return name, home / name


def request_for(name, **fields):
    width, height = map(int, SIZES[name].split("x"))
    return Request(
        "a red fox", width=width, height=height, frames=5, steps=2, seed=1, beyond_trained=True, **fields
    )


def options(name):
    return ["--size", SIZES[name], "--frames", "5", "--steps", "2"]


def test_one_family_says_that_a_model_is_its_own(model):
    name, folder = model
    assert [other for other, family in FAMILIES.items() if family.is_mine(folder)] == [name]
    assert find_family(folder) == (FAMILIES[name], folder)
    assert find_family("shipped")[0] is FAMILIES["kinema"]


def test_a_model_is_described_without_its_weights(model, monkeypatch, capsys):
    name, folder = model
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("weights are loaded"))
    assert manifest_of(folder).name in ("tiny", name)
    files = FAMILIES[name].inspect(folder)
    assert files.sizes.manifest == manifest_of(folder)
    assert all(component.num_parameters > 0 for component in files.components.values())

    assert main(["models", "inspect", str(folder)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["model"] == f"{manifest_of(folder).name}, {FAMILIES[name].fingerprint(folder)}"
    assert rows["kind"] == files.kind


def test_the_cost_of_a_request_is_planned(model, capsys):
    name, folder = model
    assert main(["plan", "--model", str(folder), *options(name)]) == 0
    assert f"{SIZES[name]}, 5 frames at {manifest_of(folder).fps:g} fps" in capsys.readouterr().out


def test_it_generates_the_same_frames_each_time(model):
    name, folder = model
    first, second = (load(folder, device="cpu", precision="fp32") for _ in range(2))
    assert first.model_hash == second.model_hash == FAMILIES[name].fingerprint(folder)
    plan = first.plan(request_for(name))
    assert (plan.frames, plan.steps) == (5, 2)
    frames = [pipeline.run(request_for(name)).video.frames for pipeline in (first, second)]
    assert np.array_equal(*frames)
    assert frames[0].std() > 0
    result = first.run(request_for(name))
    assert result.prompt.num_read == 3
    assert result.prompt.unknown == ()


def test_an_adapter_is_merged_and_changes_the_hash(model, tmp_path):
    name, folder = model
    plain, notes = load(folder, device="cpu", precision="fp32"), []
    backbone = add_lora(copy.deepcopy(plain.denoiser.backbones["high"]), 2, 2.0, ("to_q", "mlp.expand"))
    torch.manual_seed(0)
    adapters = [module for module in backbone.modules() if isinstance(module, LoRALinear)]
    for module in adapters:
        nn.init.normal_(module.up)
    save_lora(tmp_path / "lora.safetensors", backbone)

    lora = LoRAFile(tmp_path / "lora.safetensors")
    adapted = load(folder, device="cpu", precision="fp32", loras=[lora], on_note=notes.append)
    assert notes == [f"{lora.path}: applied {len(adapters)}/{len(adapters)} at scale 1"]
    assert adapted.model_hash != plain.model_hash
    latents = [pipeline.sample(pipeline.plan(request_for(name))) for pipeline in (plain, adapted)]
    assert not torch.allclose(*latents, atol=1e-3)


def test_the_command_line_generates(model, tmp_path):
    name, folder = model
    out = tmp_path / "fox.mkv"
    words = ["a red fox", "--model", str(folder), *options(name), "--beyond-trained", "--no-sheet"]
    assert main(["generate", *words, "-o", str(out)]) == 0
    assert Video.read(out).num_frames == 5


def test_an_option_that_a_family_does_not_have_is_refused_by_its_entry(model):
    name, folder = model
    for offload in ("none", "text", "layers"):
        if offload in FAMILIES[name].offloads:
            assert FAMILIES[name].offload(offload, folder) == offload
        else:
            with pytest.raises(ConfigError, match=f"offload='{offload}' does not apply to .*: its family"):
                load(folder, device="cpu", offload=offload)


def test_a_folder_of_no_family_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"not a model folder of a known family \(kinema, wan, stable"):
        load(tmp_path)
    with pytest.raises(ModelError, match="unknown model"):
        load(tmp_path / "none")


def test_what_generates_names_no_family():
    families = SRC / "checkpoints" / "families"
    others = [file for file in SRC.rglob("*.py") if families not in file.parents]
    assert [file for file in others if "is_wan" in file.read_text(encoding="utf-8")] == []
    named = [file for file in others if "families.wan" in file.read_text(encoding="utf-8")]
    assert sorted(named) == [
        SRC / "scaling" / "published.py",
        SRC / "training" / "tasks" / "diffusion" / "wan.py",
    ]
