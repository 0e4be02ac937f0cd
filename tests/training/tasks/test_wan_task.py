"""Models of the Wan family are trained on a data set: adapters that diffusers reads too, and all weights."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.families.wan.wan_folders import saved_peers

from kinema.checkpoints.adapters import LoRAFile, LoRALinear
from kinema.checkpoints.components import load_vae
from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.checkpoints.tensors import vae_hash
from kinema.cli.main import main
from kinema.data.dataset import ClipRow, SourceRow, parquet, to_table
from kinema.errors import ConfigError
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.generation.sampling.noise import START, latent_noise
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.training import load_task, plan_lines, train

RECIPES = Path(__file__).parents[3] / "recipes"
CAPTIONS = ["a red fox runs", "a blue ball rolls", "the fox runs in the snow"]
SHAPES = [(2, 4, 6), (1, 4, 4), (3, 4, 4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A diffusers folder of each kind, its pipeline, and a data set of latents as its VAE would make them."""
    saved = saved_peers(tmp_path_factory)

    @cache
    def get(kind):
        folder, pipeline = saved(kind)
        return folder, pipeline, write_dataset(folder.with_name("data"), folder)

    return get


def write_dataset(folder, model):
    """A data set of random latents of mean 0 and deviation 1, as `kinema data build` lays it out."""
    vae = load_vae(model)
    generator = torch.Generator().manual_seed(0)
    latents = {
        f"clip{i}": torch.randn(vae.config.z_dim, *shape, generator=generator).half()
        for i, shape in enumerate(SHAPES)
    }
    (folder / "shards").mkdir(parents=True)
    save_file(latents, folder / "shards" / "one.safetensors")
    blank = {
        name: {str: "", int: 0, float: 0.0, bool: False}[kind]
        for name, kind in ClipRow.__annotations__.items()
    }
    blank |= {"verdict": "kept", "licence": "CC0", "fps": 16.0, "shard": "one.safetensors"}
    rows = []
    for i, (caption, (lf, lh, lw)) in enumerate(zip(CAPTIONS, SHAPES)):
        own = {"captions": json.dumps({"given": caption}), "latents_key": f"clip{i}"}
        rows.append(ClipRow(**blank | own | {"latent_frames": lf, "latent_height": lh, "latent_width": lw}))
    parquet().write_table(to_table(rows, ClipRow), folder / "clips.parquet")
    parquet().write_table(to_table([], SourceRow), folder / "sources.parquet")
    tables = {"clips": "clips.parquet", "sources": "sources.parquet"}
    card = {"schema_version": 1, "vae": {"name": str(model), "weights": vae_hash(vae)}, "tables": tables}
    (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def part_of(model, dataset, *settings, recipe="lora_wan_tiny.toml"):
    fixed = (f"base={model}", f"dataset={dataset}", "pack.tokens=24", "run.num_workers=0", *settings)
    return load_task(RECIPES / recipe, assignments=fixed)


def test_an_adapter_is_trained_applied_and_read_by_diffusers(folders, tmp_path, capsys):
    folder, theirs, dataset = folders("2.1-t2v")
    words = [
        "train",
        str(RECIPES / "lora_wan_tiny.toml"),
        "--data",
        str(dataset),
        "--set",
        f"base={folder}",
        "--set",
        "pack.tokens=24",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples" / "00000004.png").is_file()
    saved = load_file(tmp_path / "run" / "checkpoint-00000004" / "model.safetensors")
    assert saved.keys()
    assert all(name.endswith((".up", ".down")) for name in saved)
    lora = tmp_path / "run" / "export" / "lora.safetensors"
    assert all(tensor.abs().max() > 0 for tensor in load_file(lora).values())
    capsys.readouterr()
    asked = [
        "generate",
        CAPTIONS[0],
        "--model",
        str(folder),
        "--size",
        "48x32",
        "--frames",
        "5",
        "--steps",
        "2",
        "--beyond-trained",
    ]
    assert main([*asked, "--lora", str(lora), "-o", str(tmp_path / "fox.mkv"), "--no-sheet"]) == 0
    assert f"{lora}: applied 20/20 at scale 1" in capsys.readouterr().out

    pytest.importorskip("peft")
    plain, adapted = (
        load(folder, device="cpu", precision="fp32"),
        load(folder, device="cpu", precision="fp32", loras=[LoRAFile(lora)]),
    )
    request = Request(
        CAPTIONS[0],
        "blue ball",
        width=48,
        height=32,
        frames=5,
        steps=2,
        guidance=3.0,
        shift=3.0,
        seed=5,
        beyond_trained=True,
    )
    before, ours = (pipeline.run(request).video.frames for pipeline in (plain, adapted))
    assert not np.array_equal(before, ours)
    theirs.load_lora_weights(tmp_path / "run" / "export", weight_name="lora.safetensors")
    theirs.set_progress_bar_config(disable=True)
    noise = latent_noise(5, START, range(2), (16, 4, 6)).unsqueeze(0)
    given = {
        "prompt": CAPTIONS[0],
        "negative_prompt": "blue ball",
        "width": 48,
        "height": 32,
        "num_frames": 5,
        "latents": noise,
    }
    video = theirs(**given, num_inference_steps=2, guidance_scale=3.0).frames[0]
    theirs.unload_lora_weights()
    assert np.abs(ours / 255 - video).max() <= 1 / 255


def test_all_weights_are_trained_and_the_model_is_whole(folders, tmp_path):
    folder, _, dataset = folders("2.2-ti2v-5b")
    settings = (
        "mix.tasks={text=0.5, beginning=0.5}",
        "run.steps=2",
        "run.save_every=2",
        "run.sample_every=9",
    )
    task = part_of(folder, dataset, *settings, "defaults.steps=2", recipe="wan_tiny.toml")
    assert train(task, tmp_path / "run")
    export = find_wan_files(tmp_path / "run" / "export")
    assert (export.layout, export.has_token_times) == ("diffusers", True)
    weights, after = find_wan_files(folder).backbones[0].state, export.backbones[0].state
    assert sum(not torch.equal(tensor, after[name]) for name, tensor in weights.items()) > 0.9 * len(weights)
    assert all(
        torch.equal(tensor, export.vae.state[name])
        for name, tensor in find_wan_files(folder).vae.state.items()
    )
    diffusers = pytest.importorskip("diffusers")
    model, place = diffusers.WanTransformer3DModel, tmp_path / "run" / "export" / "transformer"
    theirs = model.from_config(model.load_config(place, local_files_only=True))
    theirs.load_state_dict(load_file(place / "diffusion_pytorch_model.safetensors"))


def test_an_expert_learns_its_own_times(folders):
    folder, _, dataset = folders("2.2-t2v-a14b")
    for expert, low, high in (("high", 0.875, 1.0), ("low", 0.0, 0.875)):
        task = part_of(folder, dataset, f"expert={expert}")
        times = task.start.draw_times(200, torch.Generator().manual_seed(0))
        assert low - 1e-3 <= times.min() <= times.max() <= high
        assert task.start.backbone is task.start.files.backbones[0 if expert == "high" else 1]
    assert any("clips of" in line for line in plan_lines(task))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("2.1-t2v", ["expert=high"], "has one backbone: leave expert out"),
        ("2.2-t2v-a14b", [], "choose one with --set expert"),
        ("2.1-t2v", ["mix.tasks={text=0.5, beginning=0.5}"], r"use mix.tasks = \{text = 1\.0\}"),
        ("2.1-t2v", ["rank=0", "matrices=bf16"], "applies to frozen weights"),
        ("2.2-i2v-a14b", ["expert=high"], "only text-to-video models and TI2V"),
    ],
)
def test_what_cannot_be_trained_is_said(folders, kind, settings, said):
    folder, _, dataset = folders(kind)
    with pytest.raises(ConfigError, match=said):
        part_of(folder, dataset, *settings)


def test_the_recipe_for_our_own_models_names_the_other(folders):
    folder, _, _ = folders("2.1-t2v")
    with pytest.raises(ConfigError, match=r"recipes/lora_wan\.toml"):
        load_task(RECIPES / "lora_tiny.toml", assignments=[f"base={folder}"])


def test_a_run_goes_on_bit_for_bit_though_its_checkpoints_hold_the_adapter_alone(folders, tmp_path):
    folder, _, dataset = folders("2.1-t2v")
    quick = ("defaults.steps=2", "run.sample_every=9")
    assert train(part_of(folder, dataset, *quick), tmp_path / "run")
    last = tmp_path / "run" / "checkpoint-00000004"
    whole = load_file(last / "model.safetensors")
    shutil.rmtree(last)
    assert train(part_of(folder, dataset, *quick), tmp_path / "run")
    again = load_file(last / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_an_adapter_begins_where_an_exported_one_ended(folders, tmp_path):
    folder, _, dataset = folders("2.1-t2v")
    task = part_of(
        folder, dataset, "run.steps=2", "run.save_every=2", "run.sample_every=9", "run.ema_decay=0.0"
    )
    assert train(task, tmp_path / "run")
    again = part_of(folder, dataset)
    again.init_from(tmp_path / "run" / "export")
    for name, tensor in task.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=1e-6, atol=1e-8)
    assert any(isinstance(module, LoRALinear) for module in again.model.modules())


def test_recomputing_gives_the_same_gradients():
    torch.manual_seed(0)
    dit = DiT(
        DiTConfig(
            in_channels=4,
            out_channels=4,
            d=48,
            num_layers=2,
            num_heads=2,
            ffn_dim=64,
            text_dim=8,
            freq_dim=16,
        )
    )
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    clips, times, text = (
        [torch.randn(4, 2, 4, 4)],
        [torch.rand(1, 2, 4, 4)],
        TextStates(torch.randn(3, 8), (3,)),
    )
    gradients = []
    for activation_checkpointing in (False, True):
        dit.activation_checkpointing = activation_checkpointing
        dit.zero_grad()
        dit.predict_packed(clips, times, Conditioning(text).split(), [0])[0].square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in dit.named_parameters()})
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
