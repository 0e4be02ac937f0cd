"""The DiT learns from clips of any size: packed batches have the gradients of separate ones, and a stopped
run goes on.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.data.curation.films import film, shot

from kinema.checkpoints.components import load_vae, save_component
from kinema.checkpoints.folders import save_model
from kinema.checkpoints.manifest import load_manifest
from kinema.cli.main import main
from kinema.config import from_dict, override
from kinema.data.curation.build import build
from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import ClipRow, Dataset, parquet, to_table
from kinema.device import CPU
from kinema.errors import ConfigError, DataError, KinemaError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE, VAEConfig
from kinema.models.vae_conditioning import encode_conditioning
from kinema.training import load_task, train

RECIPE = Path(__file__).parents[3] / "recipes" / "dit_tiny.toml"
LORA = RECIPE.with_name("lora_tiny.toml")
QUICK = (
    "run.save_every=2",
    "run.sample_every=4",
    "run.log_every=1",
    "model.d=24",
    "model.num_heads=2",
    "model.ffn_dim=32",
    "defaults.steps=2",
)
SIZES = [(5, 4, 6), (1, 8, 4), (3, 6, 6), (5, 4, 6)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, model_folder) -> Path:
    """Clips of three sizes and two lengths, and a picture's worth of one frame, of the tiny VAE brought to
    std one.
    """
    from kinema.checkpoints.components import load_clip, load_component
    from kinema.models.dit import DiT

    folder = tmp_path_factory.mktemp("dataset")
    vae = load_vae(model_folder)
    scaled = VAE(
        VAEConfig(base_dim=8, dim_mult=(1, 1, 1), z_dim=6, latents_mean=(0.1,) * 6, latents_std=(0.42,) * 6)
    )
    scaled.load_state_dict(vae.state_dict())
    save_model(
        folder / "model",
        load_component(model_folder, DiT),
        scaled,
        load_clip(model_folder),
        load_manifest(model_folder),
        dtype=torch.float32,
    )
    for seed, (height, width, frames) in enumerate(
        [(96, 128, 40), (128, 96, 40), (96, 96, 20), (96, 128, 24), (96, 128, 40)]
    ):
        film(folder / "in" / f"{seed}.mkv", shot(seed + 1, frames, height=height, width=width))
        (folder / "in" / f"{seed}.txt").write_text("the red fox runs" if seed else "a blue ball rolls slowly")
    recipe = from_dict(
        DataRecipe, override({}, [f"vae={folder / 'model'}", "clips.area=8192", "licence=CC0"])
    )
    build(folder / "in", folder / "data", recipe)
    return folder / "data"


def part_of(dataset: Path, *settings: str):
    model = dataset.parent / "model"
    fixed = [*QUICK, f"vae={model}", f"clip={model}", f"dataset={dataset}", "pack.tokens=128", *settings]
    return load_task(RECIPE, steps=4, assignments=fixed)


def test_packed_clips_have_the_gradients_of_separate_ones():
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
    clips = [torch.randn(4, *size) for size in SIZES]
    times = [torch.rand(1, *size) for size in SIZES]
    text = TextStates(torch.randn(9, 8), (2, 3, 0, 4))
    firsts = [0, 0, 4, 0]
    packed = dit.predict_packed(clips, times, Conditioning(text).split(), firsts)
    sum(out.square().sum() for out in packed).backward()
    together = {name: p.grad.clone() for name, p in dit.named_parameters()}
    dit.zero_grad()
    for clip, t, states, first, out in zip(clips, times, text.split(), firsts, packed):
        alone = dit.predict(clip[None], t[None], Conditioning(states), first)[0]
        assert torch.allclose(alone, out, atol=1e-5)
        alone.square().sum().backward()
    for name, p in dit.named_parameters():
        scale = p.grad.abs().max().clamp(min=1)
        assert ((p.grad - together[name]).abs().max() / scale) < 1e-5, name


def test_a_run_on_a_data_set_gives_a_model_of_its_sizes(dataset, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert train(part_of(dataset), tmp_path / "run")
    assert any("clips in, 0 left out" in line for line in caplog.messages)
    manifest = load_manifest(tmp_path / "run" / "export")
    assert (manifest.sides, manifest.frames, manifest.fps, manifest.licence) == (
        (64, 96, 32),
        (9, 17),
        8.0,
        "CC0",
    )
    assert (tmp_path / "run" / "samples" / "00000004.png").exists()


def test_a_stopped_run_goes_on_bit_for_bit(dataset, tmp_path):
    import signal

    from safetensors.torch import load_file

    train(part_of(dataset), tmp_path / "whole")
    task = part_of(dataset)
    batch = task.batch

    def stopping(step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return batch(step)

    task.batch = stopping
    assert not train(task, tmp_path / "halves")
    assert train(part_of(dataset), tmp_path / "halves")
    weights = [
        load_file(tmp_path / run / "checkpoint-00000004" / "model.safetensors") for run in ("whole", "halves")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_data_set_of_another_vae_is_encoded_again_from_its_pixels(dataset, tmp_path):
    made = load_vae(dataset.parent / "model")
    other = VAE(replace(made.config, latents_mean=(0.0,) * 6))
    other.load_state_dict(made.state_dict())
    save_component(tmp_path / "vae", other)
    task = part_of(dataset, f"vae={tmp_path / 'vae'}")
    task.prepare(tmp_path / "run", CPU)
    data = Dataset(dataset)
    video = from_uint8([data.pixels(task.source.packing.batch(0)[0]).numpy()])
    expected = encode_conditioning(other, video, starts_canvas=True)[0]
    latents = task.batch(0)["groups"][0].latents[0]
    torch.testing.assert_close(latents, expected[:, -latents.shape[1] :], atol=4e-3, rtol=2e-3)
    assert len(list((tmp_path / "cache").glob("latents-*/*.safetensors"))) == 1


def test_a_data_set_of_another_vae_without_pixels_is_refused(dataset, model_folder, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    card = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(card | {"pixels": {}}))
    with pytest.raises(DataError, match=r"holds no pixels.*build the data set again"):
        part_of(dataset, f"vae={model_folder}", f"dataset={tmp_path / 'data'}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("periods=[{until=1.0, batch=2, latent_frames=1}]", "periods does not apply to a run on a data set"),
        ("data.num_clips=4", "data does not apply to a run on a data set"),
        ("backbone=mamba", "unknown backbone 'mamba'"),
        ("model.depth=4", "unknown key in .model. 'depth'"),
    ],
)
def test_a_setting_that_does_not_apply_is_refused(dataset, setting, message):
    with pytest.raises(KinemaError, match=message):
        part_of(dataset, setting)


def test_a_data_set_without_clips_or_captions_is_refused(dataset, tmp_path):
    for name, column, value, message in (
        ("empty", "verdict", "dropped", "has no clips to train on"),
        ("silent", "captions", "{}", "has a caption, and a text-to-video model needs some"),
    ):
        shutil.copytree(dataset, tmp_path / name)
        table = next((tmp_path / name).glob("clips-*.parquet"))
        rows = [row | {column: value} for row in parquet().read_table(table).to_pylist()]
        parquet().write_table(to_table([ClipRow(**row) for row in rows], ClipRow), table)
        with pytest.raises(DataError, match=message):
            part_of(dataset, f"dataset={tmp_path / name}")


def test_a_text_encoder_of_another_width_than_the_weights_is_refused(dataset, model_folder):
    with pytest.raises(ConfigError, match="takes text states of width"):
        load_task(
            RECIPE.with_name("dit_finetune_tiny.toml"),
            assignments=[f"dataset={dataset}", f"vae={dataset.parent / 'model'}", "max_unknown=1"],
            init_from=model_folder,
        )


def test_the_command_takes_a_data_set_and_says_what_is_wrong_with_it(dataset, tmp_path, capsys):
    model = dataset.parent / "model"
    words = [
        "train",
        str(RECIPE),
        "--data",
        str(dataset),
        "--plan",
        "--steps",
        "2",
        "--set",
        f"vae={model}",
        "--set",
        f"clip={model}",
    ]
    for setting in (*QUICK, "pack.tokens=128"):
        words += ["--set", setting]
    assert main(words) == 0
    assert "clips of" in capsys.readouterr().out
    assert main(["train", str(RECIPE), "--data", str(tmp_path)]) == 2
    assert "is not a data set" in capsys.readouterr().err


def test_an_adapter_is_trained_on_a_data_set(dataset: Path, tmp_path: Path):
    quick = [
        "run.save_every=2",
        "run.sample_every=2",
        "run.log_every=1",
        "defaults.steps=2",
        "pack.tokens=128",
    ]
    task = load_task(
        LORA, steps=2, assignments=[*quick, f"base={dataset.parent / 'model'}", f"dataset={dataset}"]
    )
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    assert train(task, tmp_path / "run")
    changed = {
        name for name, tensor in task.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {name for name in before if name.endswith((".up", ".down"))}
    assert (tmp_path / "run" / "export" / "lora.safetensors").is_file()
