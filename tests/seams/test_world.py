"""Every world, and one that the package does not know: its clips keep the protocol, and the networks are
trained on it, exported and measured.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.seams import toy_world

from kinema.checkpoints.components import load_component
from kinema.checkpoints.manifest import load_manifest
from kinema.errors import ConfigError
from kinema.evaluation import PromptsConfig, evaluate_prompts, trained_world
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.models.oracle import Oracle
from kinema.training import checkpoint, load_task, train
from kinema.worlds import CAPTION_KEYS, WORLDS, WorldConfig, make_world

SRC = Path(__file__).parents[2] / "src" / "kinema"
NAMES = ("stage", "toy")
SIZES = {"height": 24, "width": 32, "num_frames": 9}
RUN = "[run]\nsteps = 4\nlog_every = 1\nsave_every = 2\nsample_every = 4\nprecision = 'fp32'\ndevice = 'cpu'"
RECIPES = {
    "vae": """
model = { base_dim = 8, z_dim = 6, dim_mult = [1, 1, 1], num_res_blocks = 1 }
data = { size = 32, crop = 32, num_frames = 5, clip_batch = 2, image_batch = 2, stats_clips = 2 }
""",
    "clip": """
slot_loss = 1.0
foil_loss = 1.0
data = { batch = 4, held_out_clips = 32 }
[model]
text_width = 16
text_layers = 1
text_heads = 2
video_width = 16
video_layers = 1
video_heads = 2
video_size = 32
embed_dim = 16
""",
    "oracle": """
model = { width = 8, short_side_px = 32 }
[data]
batch = 4
num_frames = 5
shapes = [{ height = 32, width = 32 }]
round_trips = 0
round_trip_share = 0.0
held_out_clips = 4
held_out_round_trips = 0
""",
    "dit": """
vae = "{home}/vae/export"
clip = "{home}/clip/export"
model = { d = 16, num_layers = 1, num_heads = 2, ffn_dim = 16 }
defaults = { steps = 2 }
periods = [{ until = 1.0, batch = 2, latent_frames = 3 }]
[data]
num_clips = 4
num_images = 4
num_frames = 9
shapes = [{ height = 32, width = 32 }]
""",
}
"""The smallest recipes of four networks, in the order of their needs."""


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(WORLDS, "toy", toy_world.ENTRY)


@pytest.fixture(params=NAMES)
def world(request):
    settings = {"max_objects": 2, "split": "all"} if request.param == "stage" else {}
    return make_world(WorldConfig.from_table({"name": request.param, **settings}))


@pytest.fixture
def clips(world):
    return [world.clip(seed, **SIZES) for seed in range(12)]


def test_a_clip_depends_on_its_seed_only(world, clips):
    again = world.in_split(world.split).clip(5, **SIZES)
    assert np.array_equal(again.frames, clips[5].frames)
    assert again.truth == clips[5].truth
    assert len({clip.frames.tobytes() for clip in clips}) > 3


def test_the_truth_is_json_and_needs_no_frames(world, clips):
    for seed, clip in enumerate(clips):
        assert json.loads(json.dumps(clip.truth)) == clip.truth
        assert world.truth(seed, num_frames=9, aspect=32 / 24) == clip.truth


def test_truth_and_captions_have_values_of_the_slots(world, clips):
    for clip in clips:
        assert all(str(clip.truth[slot]) in values for slot, values in world.slots.items())
        assert world.named_slots(clip.truth).items() <= {n: str(clip.truth[n]) for n in world.slots}.items()
        assert set(clip.captions) == set(CAPTION_KEYS)
        assert clip.captions["medium"] == world.caption(clip.truth, "medium")
        for key in ("short", "medium", "detailed"):
            assert set(re.findall(r"[a-z]+(?:-[a-z]+)*", clip.captions[key].lower())) <= set(world.words)


def test_a_foil_has_another_value_in_one_slot(world, clips):
    for seed, clip in enumerate(clips):
        caption, slot = world.foil(clip, seed)
        assert caption != clip.captions["medium"]
        assert clip.truth[slot] not in world.foil_values(clip.truth, slot)


def test_actions_are_optional_and_have_a_row_per_frame(world, clips):
    assert all((clip.actions is None) == (world.name == "stage") for clip in clips)
    assert all(clip.actions is None or len(clip.actions) == len(clip.frames) for clip in clips)


def test_settings_are_a_table_and_come_back(world):
    config = WorldConfig(world.name, world.config)
    assert WorldConfig.from_table(config.to_table()) == config
    with pytest.raises(ConfigError, match=r"unknown key in \[world\] 'colour'"):
        WorldConfig.from_table({"name": world.name, "colour": 1})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("worlds")


@pytest.mark.parametrize("network", RECIPES)
def test_networks_are_trained_on_a_world_and_resumed(network, home, monkeypatch):
    monkeypatch.setattr("kinema.training.tasks.diffusion.task.NUM_SAMPLES", 1)
    recipe = home / f"{network}.toml"
    text = RECIPES[network].replace("{home}", str(home))
    recipe.write_text(f'task = "{network}"\n{text}\n[world]\nname = "toy"\n{RUN}\n')
    out = home / network

    train(load_task(recipe), out)
    last = checkpoint.latest(out)
    weights = (last / "model.safetensors").read_bytes()
    assert last.name == "checkpoint-00000004"

    shutil.rmtree(last)
    shutil.rmtree(out / "export")
    train(load_task(recipe), out)
    assert (last / "model.safetensors").read_bytes() == weights
    assert (out / "export").exists()


def test_a_model_of_the_world_generates_and_is_measured(home, tmp_path):
    pipeline = load(home / "dit" / "export", device="cpu")
    assert trained_world(pipeline.manifest).config == toy_world.ToyConfig()
    assert load_manifest(home / "dit" / "export").vocabulary == make_world(toy()).slots
    assert pipeline.run(Request("a red square moves left", seed=1)).prompt.num_read == 5

    config = PromptsConfig(
        prompts=2, splits=("seen",), num_fresh=2, num_round_trips=2, num_vae_clips=1, num_clip_clips=4
    )
    report = evaluate_prompts(pipeline, config, tmp_path, oracle_folder=home / "oracle" / "export")
    assert set(report["splits"]["seen"]["slots"]) == {"colour", "direction", "all at once"}
    assert load_component(home / "oracle" / "export", Oracle).config.slots == make_world(toy()).slots


def toy(**settings) -> WorldConfig:
    return WorldConfig.from_table({"name": "toy", **settings})


@pytest.mark.parametrize("network", ["oracle", "clip"])
def test_a_world_without_slots_is_refused_where_they_are_read(network, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'task = "{network}"\n[world]\nname = "toy"\nhas_slots = false')
    with pytest.raises(ConfigError, match=r"the world 'toy' has no slots, and an? \w+.* reads them"):
        load_task(recipe)


def test_an_expander_needs_a_world_that_writes_prompts(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "expander"\n[world]\nname = "toy"')
    with pytest.raises(ConfigError, match="the world 'toy' has no pairs of prompts, which an expander needs"):
        load_task(recipe)


def test_settings_of_a_stage_are_named_in_its_package_only():
    files = [file for file in SRC.rglob("*.py") if SRC / "worlds" not in file.parents]
    assert [file for file in files if re.search(r"\bStage(Config|World)\b", file.read_text("utf-8"))] == []
