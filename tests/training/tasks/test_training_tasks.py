"""Every recipe has a tiny form, and what a tiny run exports loads and does its work."""

from pathlib import Path

import pytest
import torch

from kinema.checkpoints.components import load_backbone, load_component, load_vae
from kinema.checkpoints.manifest import load_card, load_manifest, verify_hashes
from kinema.errors import ConfigError, KinemaError
from kinema.models.clip import CLIP
from kinema.models.vae import VAE
from kinema.training import TRAINING_TASKS, load_task, plan_lines, train
from kinema.training.canvas_mix import CANVAS_TASKS
from kinema.training.tasks.diffusion.loss import draw_canvases

RECIPES = Path(__file__).parents[3] / "recipes"
QUICK = ("run.steps=2", "run.save_every=2", "run.sample_every=2", "run.log_every=1")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_reads_and_has_a_tiny_form(recipe):
    name = recipe.stem.removesuffix("_tiny").removesuffix("_gpu")
    assert (RECIPES / f"{name}_tiny.toml").exists()
    assert name.split("_")[0] in TRAINING_TASKS


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> Path:
    """A tiny VAE and a tiny CLIP, trained for two steps."""
    folder = tmp_path_factory.mktemp("components")
    vae = ("model.base_dim=4", "model.z_dim=4", "data.size=32", "data.stats_clips=2")
    train(load_task(RECIPES / "vae_tiny.toml", assignments=[*QUICK, *vae]), folder / "vae")
    clip = ("model.text_width=32", "model.video_width=32", "model.video_size=16", "data.batch=2")
    train(load_task(RECIPES / "clip_tiny.toml", assignments=[*QUICK, *clip]), folder / "clip")
    return folder


def dit(components: Path, *settings: str):
    sizes = (
        "model.d=24",
        "model.num_heads=2",
        "model.ffn_dim=32",
        "data.num_clips=3",
        "data.num_images=3",
        "defaults.steps=2",
    )
    assignments = [
        *QUICK,
        *sizes,
        f"vae={components / 'vae' / 'export'}",
        f"clip={components / 'clip' / 'export'}",
        *settings,
    ]
    return load_task(RECIPES / "dit_tiny.toml", assignments=assignments)


def test_an_exported_vae_has_latents_of_mean_zero_and_std_one(components):
    vae = load_component(components / "vae" / "export", VAE)
    task = load_task(RECIPES / "vae_tiny.toml", assignments=[*QUICK, "data.size=32", "data.stats_clips=2"])
    latents = vae.normalise(vae.encode(task.crops.measured(2)).mean)
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-3
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-3
    assert load_card(components / "vae" / "export")["psnr_held_out_db"] > 0


def test_a_frozen_encoder_keeps_its_latents_while_the_decoder_learns(components, tmp_path):
    settings = (*QUICK, "model.base_dim=4", "model.z_dim=4", "data.size=32", "data.stats_clips=3")
    begun = components / "vae" / "export"
    task = load_task(
        RECIPES / "vae_tiny.toml",
        assignments=[*settings, "frozen=['vae.encoder', 'vae.quant_conv']"],
        init_from=begun,
    )
    train(task, tmp_path / "vae")
    before, after = load_component(begun, VAE), load_component(tmp_path / "vae" / "export", VAE)
    video = task.crops.measured(1)
    assert torch.equal(before.normalise(before.encode(video).mean), after.normalise(after.encode(video).mean))
    assert not torch.equal(before.decoder.conv_out.weight, after.decoder.conv_out.weight)


@pytest.mark.parametrize(
    ("names", "message"), [("['vae.encodr']", "did you mean 'vae.encoder"), ("['vae']", "nothing to train")]
)
def test_freezing_a_module_that_is_not_there_or_all_of_them_is_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        load_task(RECIPES / "vae_tiny.toml", assignments=[f"frozen={names}"])


def test_an_exported_clip_reads_captions_and_clips(components):
    clip = load_component(components / "clip" / "export", CLIP)
    assert clip.similarity(torch.zeros(2, 3, 5, 16, 16), ["a rocket rises", "一枚火箭升空"]).shape == (2, 2)
    assert 0 <= load_card(components / "clip" / "export")["held_out"]["foil"] <= 1


def test_an_exported_dit_is_a_whole_model(components, tmp_path):
    assert train(dit(components), tmp_path / "dit")
    folder = tmp_path / "dit" / "export"
    assert verify_hashes(folder) > 5
    manifest = load_manifest(folder)
    assert manifest.fps == 8
    assert "rocket" in manifest.vocabulary["nouns"]
    assert load_backbone(folder).config.in_channels == load_vae(folder).config.z_dim
    assert (tmp_path / "dit" / "samples" / "00000002.png").exists()


def test_weights_of_a_released_model_start_a_new_run(components, tmp_path):
    train(dit(components), tmp_path / "dit")
    task = dit(components)
    task.init_from(tmp_path / "dit" / "export")
    released = load_backbone(tmp_path / "dit" / "export").state_dict()
    assert all(torch.equal(value, released[name]) for name, value in task.model.state_dict().items())


def canvases(task, group, seed):
    draw, generator = task.start.draw_times, torch.Generator().manual_seed(seed)
    return draw_canvases(group, task.recipe.mix, draw, (1, 2, 2), generator)


@pytest.mark.parametrize("canvas_task", CANVAS_TASKS)
def test_the_loss_ignores_what_is_known(components, tmp_path, canvas_task):
    task = dit(components, "mix.windows=0", "mix.tasks={" + f"{canvas_task}=1.0" + "}")
    task.prepare(tmp_path / "run", torch.device("cpu"))
    group = task.batch(1)["groups"][0]
    known, clean, t, _ = canvases(task, group, 0)
    assert not known.flatten(1).all(dim=1).any(), "something is left to learn in every clip"
    assert known.flatten(1).any(dim=1).all() == (
        canvas_task not in ("text", "noise_per_frame", "some_frames")
    )
    assert ((t > 0) & (t <= 1)).all()
    assert torch.equal(clean[~known.expand_as(clean)], group.latents[~known.expand_as(clean)])


def test_windows_are_the_ends_of_longer_clips_and_pose_tasks_of_their_own(components, tmp_path):
    periods = "periods=[{until=1.0, batch=2, latent_frames=3}]"
    task = dit(
        components,
        periods,
        "data.num_frames=13",
        "mix.windows=0.5",
        "mix.tasks={text=1.0}",
        "mix.window_tasks={ending=1.0}",
    )
    task.prepare(tmp_path / "run", torch.device("cpu"))
    kinds = set()
    for step in range(8):
        group = task.batch(step)["groups"][0]
        shown, known = group.latents, canvases(task, group, step).known
        starts = [i for i in range(2) if torch.equal(shown[0, :, :], find(task, shown[0])[:, i : i + 3])]
        kinds.add(
            (tuple(starts), group.first_frame > 0, bool(known[:, :, -1].all()), bool(known[:, :, 0].any()))
        )
    assert kinds == {((0,), False, False, False), ((1,), True, True, False)}


def find(task, latents):
    """The clip of the cache that these latents were cut out of."""
    clips = task.source.cached["clips", 0].latents.float()
    return next(clip for clip in clips if any(torch.equal(clip[:, i : i + 3], latents) for i in range(2)))


def test_a_clip_that_reads_slots_and_keeps_to_its_captions_side_exports_the_same_network(
    components, tmp_path
):
    sizes = (
        "model.text_width=32",
        "model.video_width=32",
        "model.video_size=16",
        "data.batch=2",
        "data.image_share=0",
    )
    task = load_task(
        RECIPES / "clip_tiny.toml",
        assignments=[*QUICK, *sizes, "slot_loss=1.0", "foil_loss=1.0"],
        init_from=components / "clip" / "export",
    )
    _, metrics = task.loss(task.model, task.batch(0), torch.Generator())
    assert {"slots", "foil_loss", "direction"} <= set(metrics)
    assert train(task, tmp_path / "clip")
    before, after = (
        load_component(folder / "export", CLIP).state_dict()
        for folder in (components / "clip", tmp_path / "clip")
    )
    assert set(before) == set(after)


def test_batches_do_not_depend_on_workers_or_order(components, tmp_path):
    task = dit(components)
    task.prepare(tmp_path / "run", torch.device("cpu"))
    backwards = {step: task.batch(step) for step in (1, 0)}
    for step in (0, 1):
        again = task.batch(step)
        assert torch.equal(again["groups"][0].latents, backwards[step]["groups"][0].latents)
        assert again["captions"] == backwards[step]["captions"]


def test_a_plan_names_tokens_memory_and_time(components):
    lines = plan_lines(dit(components))
    assert "parameters" in lines[0]
    assert all(word in lines[1] for word in ("tokens", "s a step", "GiB"))


def test_periods_must_end_at_one(components):
    with pytest.raises(ConfigError, match="must end at 1"):
        dit(components, "periods=[{until=0.5, batch=1, latent_frames=1}]")


def test_a_whole_model_gives_its_vae_and_clip(components, tmp_path):
    train(dit(components), tmp_path / "first")
    model = tmp_path / "first" / "export"
    assert train(dit(components, f"vae={model}", f"clip={model}"), tmp_path / "second")
    assert load_manifest(tmp_path / "second" / "export").card["vae"] == load_manifest(model).card["vae"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("diffusion.schedule=ddpm_tabel", "did you mean 'ddpm_table'"),
        ("defaults.sampler=unipcc", "did you mean 'unipc'"),
        ("data.shapes=[{height=48, width=64}]", "sides"),
        ("data.shapes=[{height=64, width=64, share=0}]", "share 0"),
    ],
)
def test_what_could_not_be_exported_is_refused_before_the_first_step(components, setting, message):
    with pytest.raises(KinemaError, match=message):
        dit(components, setting)
