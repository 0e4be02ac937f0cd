"""Run folders of released versions stay readable, and their runs go on."""

import shutil
from pathlib import Path

import pytest

from kinema.checkpoints.components import load_component
from kinema.checkpoints.manifest import load_card
from kinema.config import to_dict
from kinema.models.vae import VAE
from kinema.training import checkpoint, load_task, train
from kinema.training.renamed_keys import RENAMED_KEYS, with_current_keys

RECIPES = Path(__file__).parents[2] / "recipes"
RELEASED = Path(__file__).parents[1] / "released"
SETTINGS = (
    "run.save_every=4",
    "run.sample_every=100",
    "run.steps=8",
    "run.log_every=2",
    "run.keep_checkpoints=1",
    "run.precision=fp32",
    "run.device=cpu",
    "data.stats_clips=2",
    "data.size=32",
    "data.clip_batch=1",
    "data.image_batch=1",
    "model.base_dim=2",
    "model.z_dim=2",
    "model.dim_mult=[1,1,1]",
    "optimizer.warmup_steps=2",
)
"""With these settings version 0.1.0 trained recipes/vae_tiny.toml and was stopped after step 4 of 8."""
PSNR_DB = {"0.1.0": 12.21}
"""What the export of each version scored at step 8."""


@pytest.mark.parametrize("version", PSNR_DB)
def test_a_run_of_a_released_version_goes_on_and_exports(version, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(RELEASED / version / "run", run)
    assert checkpoint.latest(run) == run / "checkpoint-00000004"

    assert train(load_task(RECIPES / "vae_tiny.toml", assignments=SETTINGS), run)

    assert checkpoint.latest(run) == run / "checkpoint-00000008"
    assert load_component(run / "export", VAE).config.z_dim == 2
    assert load_card(run / "export")["psnr_held_out_db"] == pytest.approx(PSNR_DB[version], abs=0.05)


def test_a_recipe_with_the_old_keys_is_the_recipe_with_the_new_ones(tmp_path):
    old = """
part = "dit"
stages = [{ until = 1.0, batch = 2, latent_frames = 1 }]
diffusion = { time_law = "uniform", time_shift = 2.0 }
"""
    new = old.replace("part", "task").replace("stages", "periods")
    new = new.replace("time_law", "timestep_sampling").replace("time_shift", "timestep_shift")
    (tmp_path / "old.toml").write_text(old)
    (tmp_path / "new.toml").write_text(new)
    recipes = [to_dict(load_task(tmp_path / name).recipe) for name in ("old.toml", "new.toml")]
    assert recipes[0] == recipes[1]


def test_the_world_of_an_old_recipe_is_one_table():
    old = {"world": "stage", "stage": {"nouns": 8}, "wide": {"max_objects": 3}}
    stage = {"name": "stage"}
    assert with_current_keys(old) == {"world": {**stage, "nouns": 8}, "wide": {**stage, "max_objects": 3}}
    assert with_current_keys({"stage": {"nouns": 8}, "world": {"name": "toy"}})["world"]["name"] == "stage"
    assert with_current_keys({"world": "stage"}) == {"world": stage}


def test_an_old_recipe_wins_over_the_current_one_that_it_starts_from():
    mixed = {"periods": [1], "stages": [2], "diffusion": {"timestep_shift": 1.0, "time_shift": 3.0}}
    assert with_current_keys(mixed) == {"periods": [2], "diffusion": {"timestep_shift": 3.0}}


def test_every_old_key_of_the_table_is_renamed():
    for old, new in RENAMED_KEYS.items():
        *table, name = old.split(".")
        tables = {table[0]: {name: 1}} if table else {name: 1}
        *table, name = new.split(".")
        assert with_current_keys(tables) == ({table[0]: {name: 1}} if table else {name: 1})
