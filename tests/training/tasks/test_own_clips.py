"""VAE, CLIP and DiT are trained on a data set alone, and the model reads every word of its captions."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.data.curation.films import film, shot

from kinema.checkpoints.components import load_clip, load_vae
from kinema.checkpoints.manifest import load_card
from kinema.config import from_dict, override
from kinema.data.curation.build import build
from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import Dataset
from kinema.errors import ConfigError, DataError
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.prompts.word_tokenizer import WordTokenizer
from kinema.training import load_task, plan_lines, train

RECIPES = Path(__file__).parents[3] / "recipes"
CAPTIONS = [
    "an umbrella drifts over Tokyo",
    "a teapot sways in Nairobi",
    "一把雨伞飘过东京",
    "a lantern hovers above Lima",
]
QUICK = ("run.steps=2", "run.save_every=2", "run.sample_every=2", "run.log_every=1")
VAE_SIZES = ("model.base_dim=4", "model.z_dim=4", "data.crop=32", "data.stats_clips=3")
CLIP_SIZES = ("model.text_width=32", "model.video_width=32", "model.video_size=16", "data.batch=3")
DIT_SIZES = ("model.d=24", "model.num_heads=2", "model.ffn_dim=32", "defaults.steps=2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, model_folder) -> Path:
    """Four captioned films of two sizes, encoded by a VAE that the runs do not use."""
    folder = tmp_path_factory.mktemp("own")
    for seed, caption in enumerate(CAPTIONS):
        film(folder / "clips" / f"{seed}.mkv", shot(seed, 40, height=96, width=128 if seed else 96))
        (folder / "clips" / f"{seed}.txt").write_text(caption, encoding="utf-8")
    settings = [f"vae={model_folder}", "clips.area=4096", "licence=CC0", "clips.min_frames=5"]
    build(folder / "clips", folder / "ds", from_dict(DataRecipe, override({}, settings)))
    return folder / "ds"


def task_of(name: str, dataset: Path, *settings: str):
    return load_task(RECIPES / f"{name}_tiny.toml", assignments=[f"dataset={dataset}", *QUICK, *settings])


@pytest.fixture(scope="module")
def runs(dataset) -> Path:
    """The runs of all three networks, in their order."""
    runs = dataset.parent / "runs"
    assert train(task_of("vae", dataset, *VAE_SIZES), runs / "vae")
    assert train(task_of("clip", dataset, *CLIP_SIZES), runs / "clip")
    parts = [f"{name}={runs / name / 'export'}" for name in ("vae", "clip")]
    assert train(task_of("dit", dataset, *DIT_SIZES, *parts), runs / "dit")
    return runs


def test_a_data_set_holds_the_pixels_that_its_latents_were_made_of(dataset):
    data = Dataset(dataset)
    assert data.has_pixels
    for index in range(len(data)):
        sizes = tuple(int(data.column(name)[index]) for name in ("num_frames", "height", "width"))
        assert data.pixels(index).shape == (*sizes, 3)
        part = data.pixels(index, slice(1, 3), slice(4, 8), slice(0, 16))
        assert torch.equal(part, data.pixels(index)[1:3, 4:8, :16])


def test_the_vae_has_latents_of_mean_zero_and_std_one_on_its_clips(dataset, runs):
    vae, task = load_vae(runs / "vae" / "export"), task_of("vae", dataset, *VAE_SIZES)
    latents = vae.normalise(vae.encode(task.crops.measured(3)).mean)
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-3
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-3
    assert load_card(runs / "vae" / "export")["psnr_training_db"] > 0


def test_crops_are_parts_of_the_clips(dataset):
    task = task_of("vae", dataset, *VAE_SIZES)
    for step in range(4):
        video = task.batch(step)["video"]
        assert video.shape[1:] in {(3, 1, 32, 32), (3, 5, 32, 32)}
        assert torch.equal(video, task.batch(step)["video"])
        assert -1 <= video.min() < video.max() <= 1


def test_the_clip_spells_every_word_of_the_captions(runs):
    clip = load_clip(runs / "clip" / "export")
    assert not [use for text in CAPTIONS for use in clip.read_prompt(text).uses if not use.known]
    assert clip.read_prompt("an umbrella in Oslo").unfamiliar == ("oslo",)
    assert 0 <= load_card(runs / "clip" / "export")["training"]["retrieval_of_8"] <= 1


def test_foils_are_captions_of_other_clips(dataset):
    task = task_of("clip", dataset, *CLIP_SIZES)
    for step in range(4):
        batch = task.batch(step)
        assert len(set(batch["captions"])) == 3
        assert all(
            foil in CAPTIONS and foil != own for own, (foil, _) in zip(batch["captions"], batch["foils"])
        )
    assert any("clips 16x16x5" in line for line in plan_lines(task))


def test_a_closed_vocabulary_is_that_of_the_captions(dataset):
    task = task_of("clip", dataset, *CLIP_SIZES, "tokenizer=closed")
    tokenizer = task.model.clip.tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    assert {"umbrella", "tokyo"} <= set(tokenizer.words)


def test_the_model_generates_from_its_own_words(runs):
    pipeline = load(runs / "dit" / "export")
    report = pipeline.text_encoder.read_prompt("an umbrella in Tokyo")
    assert report.num_read == 4
    assert all(use.known for use in report.uses)
    video = pipeline.run(Request("an umbrella in Tokyo", steps=1)).video
    assert video.frames.shape == (17, 64, 64, 3)
    assert list((runs / "cache").glob("latents-*"))


def test_the_shipped_clip_does_not_know_these_words(dataset, runs):
    with pytest.raises(DataError, match=r"does not know .* of the words.*train a CLIP on them"):
        task_of("dit", dataset, *DIT_SIZES, f"vae={runs / 'vae' / 'export'}")


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("vae", "data.size=64", "data.size does not apply to a run on a data set"),
        ("vae", "data.crop=128", "no clip of .* has 5 frames and sides of 128 pixels"),
        ("clip", "slot_loss=1.0", "slot_loss does not apply to a run on a data set"),
        ("oracle", "run.seed=1", "the task 'oracle' trains on clips of a world: leave out dataset"),
        ("clip", "world.nouns=4", "world does not apply to a run on a data set"),
    ],
)
def test_what_does_not_fit_a_data_set_is_refused(dataset, name, setting, message):
    with pytest.raises(ConfigError, match=message):
        task_of(name, dataset, setting)


@pytest.mark.parametrize("name", ["vae", "clip"])
def test_a_data_set_without_pixels_is_refused(dataset, tmp_path, name):
    shutil.copytree(dataset, tmp_path / "ds")
    card = (tmp_path / "ds" / "dataset.json").read_text(encoding="utf-8")
    (tmp_path / "ds" / "dataset.json").write_text(card.replace('"pixels": {\n', '"others": {\n', 1))
    with pytest.raises(DataError, match="holds latents and no pixels"):
        task_of(name, tmp_path / "ds")
