"""A new decoder is trained on latents that stay bit for bit, and a stopped run ends as one that was not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinema.checkpoints.components import load_vae, save_component
from kinema.checkpoints.manifest import load_card
from kinema.checkpoints.shipped import shipped_model
from kinema.checkpoints.tensors import vae_hash
from kinema.errors import ConfigError
from kinema.models.vae import VAE, VAEConfig
from kinema.training import load_task, plan_lines, train
from kinema.training.adversarial import AdversarialConfig, PairDiscriminator, pairs_of, perceptual_gradient

RECIPE = Path(__file__).parents[3] / "recipes" / "decoder_tiny.toml"
SETTINGS = (
    "run.steps=4",
    "run.save_every=2",
    "run.sample_every=4",
    "adversarial.start=0.25",
    "adversarial.warmup_steps=1",
    "data.held_out_clips=1",
    "data.kinds=[{ share = 1.0, num_frames = 5, num_clips = 1, num_crops = 2, crop = 32 }]",
)


def part(*settings: str):
    return load_task(RECIPE, assignments=[*SETTINGS, *settings])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "run"
    assert train(part(), out)
    return out


def test_an_exported_decoder_is_a_vae_of_the_same_latents(run):
    made, shipped = load_vae(run / "export"), load_vae(shipped_model())
    assert made.config.subpixel is not None
    assert made.config.latents_std == shipped.config.latents_std
    assert vae_hash(made) == vae_hash(shipped)
    for name, weight in shipped.encoder.state_dict().items():
        assert torch.equal(weight, made.encoder.state_dict()[name]), name
    assert load_card(run / "export")["psnr_held_out_db"] > 0
    assert (run / "samples" / "00000004.png").stat().st_size > 0


def test_two_steps_and_two_are_four(run, tmp_path):
    first = part()
    draw = first.batch

    def stop_at_two(step: int):
        if step == 2:
            raise KeyboardInterrupt
        return draw(step)

    first.batch = stop_at_two
    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path / "run")
    assert train(part(), tmp_path / "run")
    for name in ("model", "ema"):
        one, other = (
            load_file(out / "checkpoint-00000004" / f"{name}.safetensors") for out in (run, tmp_path / "run")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_crops_of_pixels_are_the_pixels_of_their_latents():
    task = part("data.near_object=0.0")
    batch = task.batch(0)
    real, mask, z = task._crops(task.model.vae, batch, torch.Generator().manual_seed(0))
    y, x = batch["corners"][0][1]
    assert torch.equal(real[1], batch["video"][0, :, :, 16 * y : 16 * y + 32, 16 * x : 16 * x + 32])
    assert real.shape == (2, 3, 5, 32, 32)
    assert mask.shape == (2, 1, 5, 32, 32)
    assert z.shape == (2, 24, 2, 2, 2)


def test_crops_near_objects_hold_some_of_one():
    task = part("data.near_object=1.0")
    shares = [task._crops(task.model.vae, task.batch(step), torch.Generator())[1].mean() for step in range(4)]
    assert min(shares) > 0.02


def test_the_gradient_of_the_loss_is_that_of_the_absolute_error_before_the_discriminator():
    task = part("adversarial.start=1.0", "object_weight=0.0", "data.noise=0.0")
    batch = task.batch(0)
    loss, metrics = task.loss(task.model, batch, torch.Generator().manual_seed(0))
    weight = task.model.vae.decoder.conv_out.weight
    (gradient,) = torch.autograd.grad(loss, weight)
    real, _, z = task._crops(task.model.vae, batch, torch.Generator().manual_seed(0))
    absolute = (task.model.vae.decode(z) - real).abs().mean()
    (expected,) = torch.autograd.grad(absolute, weight)
    torch.testing.assert_close(loss, absolute)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert set(metrics) == {"l1", "psnr", "object_psnr"}


def test_perceptual_gradients_have_the_size_that_is_asked():
    torch.manual_seed(0)
    discriminator, frames = PairDiscriminator(4), torch.tensor([1, 3])
    fake, real = torch.randn(1, 3, 4, 16, 16, requires_grad=True), torch.randn(1, 3, 4, 16, 16)
    reference = torch.randn_like(real)
    config = AdversarialConfig(weight=0.5, matching=0.0)
    gradient, _ = perceptual_gradient(discriminator, fake, pairs_of(real, frames), frames, reference, config)
    torch.testing.assert_close(gradient.norm(), 0.5 * reference.norm())
    assert all(weight.grad is None for weight in discriminator.parameters())
    assert gradient[:, :, 1:].abs().amax(dim=(0, 1, 3, 4)).min() > 0


def test_the_discriminator_is_alone_at_first():
    config = AdversarialConfig(warmup_steps=10)
    assert [config.strength(step) for step in (0, 10, 15, 20, 100)] == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.shapes=[{ height = 60, width = 64 }]", "multiples of 16"),
        ("data.kinds=[{ share = 1.0, num_frames = 4, num_clips = 1 }]", "4k\\+1"),
        ("data.kinds=[{ share = 1.0, num_frames = 5, num_clips = 1, crop = 128 }]", "smallest of the shapes"),
        ("data.near_object=2.0", "use 0 to 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        part(setting)


def test_a_run_goes_on_from_weights_of_its_own_encoder_only(run, tmp_path):
    again = load_task(RECIPE, assignments=SETTINGS, init_from=run / "export")
    assert torch.equal(
        again.model.vae.decoder.conv_out.weight, load_vae(run / "export").decoder.conv_out.weight
    )
    other = VAE(VAEConfig(base_dim=32, dim_mult=(1, 2, 3), subpixel=again.recipe.model))
    save_component(tmp_path / "other", other)
    with pytest.raises(ConfigError, match="another encoder"):
        load_task(RECIPE, assignments=SETTINGS, init_from=tmp_path / "other")


def test_a_plan_has_a_line_for_each_kind_of_step():
    assert any("2 crops 32x32x5 of 1 clips" in line for line in plan_lines(part()))
