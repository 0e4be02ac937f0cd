import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinema.checkpoints.components import load_backbone, load_clip, load_component, load_vae, save_component
from kinema.checkpoints.folders import resolve_model, save_model
from kinema.checkpoints.manifest import (
    DIFFUSERS_SCHEDULERS,
    Manifest,
    load_card,
    load_manifest,
    model_hash,
    verify_hashes,
)
from kinema.checkpoints.shipped import shipped_model
from kinema.diffusion.schedules import SCHEDULES
from kinema.errors import ConfigError, ModelError, OutputError, UnknownName
from kinema.models.clip import CLIP, CLIPConfig
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig
from kinema.prompts.word_tokenizer import WordTokenizer

LOADERS = {"transformer": load_backbone, "vae": load_vae, "text_encoder": load_clip}


def tiny_parts():
    torch.manual_seed(0)
    tokenizer = WordTokenizer(["a", "ball", "rolls", "球"], max_length=8)
    clip = CLIPConfig(
        len(tokenizer),
        8,
        text_width=8,
        text_layers=1,
        video_width=8,
        video_layers=1,
        video_size=16,
        num_frames=2,
        embed_dim=8,
    )
    dit = DiT(
        DiTConfig(
            in_channels=4,
            out_channels=4,
            d=16,
            num_layers=2,
            num_heads=2,
            ffn_dim=32,
            text_dim=8,
            freq_dim=8,
            text_length=8,
        )
    )
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.1)
    means, stds = (0.1, -0.2, 0.3, 0.0), (1.0, 2.0, 0.5, 1.5)
    vae = VAE(
        VAEConfig(base_dim=8, dim_mult=(1, 2, 2), z_dim=4, patch_size=2, latents_mean=means, latents_std=stds)
    )
    return dit.eval(), vae.eval(), CLIP(clip, tokenizer).eval()


def tiny_manifest():
    return Manifest(
        "tiny",
        "Apache-2.0",
        fps=8.0,
        sides=(16, 64, 16),
        frames=(1, 17),
        default_size=(32, 48),
        default_frames=9,
        vocabulary={"nouns": ("ball",)},
        card={"steps": 3, "recipe": {"lr": 0.1, "name": None}},
    )


@pytest.fixture(scope="module")
def parts():
    return tiny_parts()


@pytest.fixture
def folder(tmp_path, parts):
    save_model(tmp_path / "model", *parts, tiny_manifest(), dtype=torch.float32)
    return tmp_path / "model"


def assert_equal(loaded, saved, dtype=torch.float32):
    assert type(loaded) is type(saved)
    assert loaded.config == saved.config
    expected = saved.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].to(dtype).float()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_comes_back_bit_for_bit_in_the_precision_it_is_stored_in(tmp_path, parts, dtype):
    save_model(tmp_path / "model", *parts, tiny_manifest(), dtype=dtype)
    for load, saved in zip(LOADERS.values(), parts):
        assert_equal(load(tmp_path / "model"), saved, dtype)


@pytest.mark.parametrize("index", range(3), ids=["dit", "vae", "clip"])
def test_a_component_by_itself_comes_back_with_its_card(tmp_path, parts, index):
    save_component(tmp_path / "part", parts[index], card={"steps": 5})
    assert_equal(load_component(tmp_path / "part", type(parts[index])), parts[index])
    assert load_card(tmp_path / "part") == {"steps": 5}


def test_loaded_networks_compute_what_the_saved_ones_did(folder, parts):
    _, vae, clip = parts
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(load_vae(folder).encode(video).mean, vae.encode(video).mean)
        assert torch.equal(
            load_clip(folder).similarity(video, ["a ball", "球"]), clip.similarity(video, ["a ball", "球"])
        )
    assert load_clip(folder).tokenizer.tokens == clip.tokenizer.tokens


def test_loaded_weights_can_be_trained(folder):
    clip = load_clip(folder).train()
    clip.encode_text(["a ball"])[1].sum().backward()
    assert clip.text.words.weight.grad is not None


def test_the_manifest_comes_back_with_the_hash_of_every_file(folder):
    manifest = load_manifest(folder)
    assert replace(manifest, sha256={}) == tiny_manifest()
    assert verify_hashes(folder) == len(manifest.sha256) == 9
    assert "transformer/diffusion_pytorch_model.safetensors" in manifest.sha256


def test_the_hash_of_a_model_is_that_of_its_contents(tmp_path, parts, folder):
    save_model(tmp_path / "again", *parts, replace(tiny_manifest(), name="another name"), dtype=torch.float32)
    save_model(tmp_path / "other", *parts, tiny_manifest(), dtype=torch.bfloat16)
    assert len(model_hash(folder)) == 12
    assert model_hash(folder) == model_hash(tmp_path / "again") != model_hash(tmp_path / "other")


def test_verify_names_what_is_changed_missing_and_not_listed(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "stray.bin").write_bytes(b"")
    with pytest.raises(
        ModelError,
        match=r"missing: tokenizer/tokenizer.json; changed: vae/.*safetensors; not listed: stray.bin",
    ):
        verify_hashes(folder)


def rewrite(folder, part, change):
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    change(state)
    save_file(state, file)
    return file


@pytest.mark.parametrize("part", LOADERS)
def test_a_missing_tensor_is_named(folder, part):
    names = []
    rewrite(folder, part, lambda state: (names.append(min(state)), state.pop(min(state))))
    with pytest.raises(ModelError, match=f"1 missing: {names[0]}"):
        LOADERS[part](folder)


@pytest.mark.parametrize("part", LOADERS)
def test_an_unexpected_tensor_is_named(folder, part):
    file = rewrite(folder, part, lambda state: state.update(stray=torch.zeros(1)))
    with pytest.raises(ModelError, match=rf"{file.name}: .*1 unexpected: stray"):
        LOADERS[part](folder)


@pytest.mark.parametrize("part", LOADERS)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder, part):
    names = []

    def turn(state):
        name = next(
            name
            for name, tensor in state.items()
            if (tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1]) or tensor.ndim > 3
        )
        names.append(name)
        state[name] = state[name].flatten()

    file = rewrite(folder, part, turn)
    with pytest.raises(ModelError, match=rf"{file.name}: .*{names[0]} is \(\d+,\), not \(\d+, \d+"):
        LOADERS[part](folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_named(folder, kept):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match=rf"{file.name} is truncated or damaged"):
        load_backbone(folder)


@pytest.mark.parametrize("part", LOADERS)
def test_missing_files_and_folders_are_named(folder, part):
    file = next((folder / part).glob("*.safetensors"))
    file.unlink()
    with pytest.raises(ModelError, match=f"has neither {file.name} nor"):
        LOADERS[part](folder)
    (folder / part / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json is missing"):
        LOADERS[part](folder)


def test_a_folder_that_is_no_model_says_what_a_model_needs(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ModelError, match=r"a model has kinema.json, transformer/"):
            load_manifest(path)
    with pytest.raises(ModelError, match=r"a model has kinema.json, transformer/"):
        load_vae(tmp_path / "absent")


def test_shards_are_read_as_one_file_and_a_missing_shard_is_named(folder, parts):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    weights.unlink()
    shards = {name: f"shard-{i % 2}.safetensors" for i, name in enumerate(sorted(state))}
    for shard in set(shards.values()):
        save_file({name: state[name] for name in state if shards[name] == shard}, weights.parent / shard)
    (weights.parent / f"{weights.name}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": shards})
    )
    assert_equal(load_backbone(folder), parts[0])
    save_file({name: state[name] for name in state}, weights.parent / "shard-1.safetensors")
    with pytest.raises(ModelError, match="and again in"):
        load_backbone(folder)
    (weights.parent / "shard-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"shard-1.safetensors is missing"):
        load_backbone(folder)
    for wrong in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        (weights.parent / f"{weights.name}.index.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=r"index.json has no weight_map"):
            load_backbone(folder)


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_config_that_this_code_cannot_follow_is_an_error(folder):
    edit_json(folder / "transformer" / "config.json", qk_norm=None)
    with pytest.raises(ModelError, match=r"config.json: qk_norm = None is not supported"):
        load_backbone(folder)
    edit_json(folder / "text_encoder" / "config.json", text_widht=3)
    with pytest.raises(ModelError, match="did you mean 'text_width'"):
        load_clip(folder)
    edit_json(folder / "text_encoder" / "config.json", _class_name="CLIPTextModel")
    with pytest.raises(ModelError, match="KinemaCLIP is needed"):
        load_clip(folder)
    edit_json(folder / "transformer" / "config.json", qk_norm="rms_norm_across_heads", _kinema="zeros")
    with pytest.raises(ModelError, match=r"transformer.config.json: "):
        load_backbone(folder)
    edit_json(folder / "vae" / "config.json", latents_mean=["a"])
    with pytest.raises(ModelError, match=r"config.json: latents_mean\[0\] = 'a' is not of type float"):
        load_vae(folder)


def test_a_stock_wan_config_reads_text_as_wan_does(folder):
    file = folder / "transformer" / "config.json"
    values = json.loads(file.read_text())
    del values["_kinema"]
    file.write_text(json.dumps(values))
    config = load_backbone(folder).config
    assert (config.text_padding, config.text_length) == ("zeros", 512)


def test_a_field_that_does_not_change_results_may_have_any_value(folder, parts):
    edit_json(folder / "transformer" / "config.json", rope_max_seq_len=32)
    assert_equal(load_backbone(folder), parts[0])


def test_an_older_model_is_replaced_and_anything_else_is_left_alone(tmp_path, parts, folder):
    (folder / "stray").write_text("x")
    save_model(folder, *parts, tiny_manifest())
    verify_hashes(folder)
    stranger = tmp_path / "photos"
    stranger.mkdir()
    (stranger / "cat.jpg").write_text("x")
    with pytest.raises(OutputError, match="is in the way"):
        save_model(stranger, *parts, tiny_manifest())
    assert [path.name for path in stranger.iterdir()] == ["cat.jpg"]


def test_a_write_that_fails_leaves_the_older_model(folder, parts, monkeypatch):
    before = model_hash(folder)

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("kinema.checkpoints.components.save_file", fail)
    with pytest.raises(OutputError, match="no space left"):
        save_model(folder, *parts, tiny_manifest(), dtype=torch.bfloat16)
    assert model_hash(folder) == before
    verify_hashes(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_replacement_that_was_killed_between_its_renames_is_taken_back(folder, parts):
    folder.rename(folder.parent / ".model.old")
    save_model(folder, *parts, tiny_manifest())
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sides": (16, 60, 16)},
        {"default_frames": 18},
        {"schedule": "liner"},
        {"prediction": "velocty"},
        {"fps": 0.0},
        {"steps": 0},
    ],
)
def test_a_manifest_that_contradicts_itself_is_an_error(wrong):
    with pytest.raises((ConfigError, UnknownName), match=r"sides|frames|linear|velocity|fps"):
        replace(tiny_manifest(), **wrong)


def test_models_are_found_by_name_or_path(folder):
    assert resolve_model("shipped") == shipped_model()
    assert resolve_model(str(folder)) == folder
    with pytest.raises(ModelError, match="did you mean 'shipped'"):
        resolve_model("shiped")


def test_the_vae_loads_in_stock_diffusers_and_encodes_the_same(folder, parts):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKLWan.from_pretrained(folder, subfolder="vae", local_files_only=True)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(
            parts[1].encode(video).mean, theirs.encode(video).latent_dist.mean, rtol=1e-4, atol=1e-5
        )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        folder, subfolder="scheduler", local_files_only=True
    )
    assert scheduler.config.shift == 1.0


def test_the_dit_is_what_stock_diffusers_builds_from_its_config(folder):
    diffusers = pytest.importorskip("diffusers")
    config = diffusers.WanTransformer3DModel.load_config(
        folder, subfolder="transformer", local_files_only=True
    )
    theirs = diffusers.WanTransformer3DModel.from_config(config)
    theirs.load_state_dict(
        load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors"), strict=True
    )


def test_the_dit_loads_in_stock_diffusers(folder):
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("accelerate", reason="diffusers loads its Wan transformer through accelerate")
    theirs = diffusers.WanTransformer3DModel.from_pretrained(
        folder, subfolder="transformer", local_files_only=True
    )
    state = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert theirs.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())


def test_every_noise_schedule_can_be_exported():
    assert set(DIFFUSERS_SCHEDULERS) == set(SCHEDULES)
