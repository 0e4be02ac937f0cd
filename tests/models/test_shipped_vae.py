"""The shipped VAE: the latents of 0.1.0 bit for bit, and a decoder of any size that streams."""

from dataclasses import replace

import pytest
import torch

from kinema.checkpoints.components import load_vae, save_component
from kinema.checkpoints.shipped import shipped_model
from kinema.checkpoints.tensors import vae_hash, weights_hash
from kinema.errors import ConfigError
from kinema.models.vae import VAE, VAEConfig
from kinema.nn.causal_conv import FeatureCache

HASH_0_1_0 = "55c7af2e2623ef63"
ENCODER_0_1_0 = ("73eabfe07e19e4b6", "b668063a6cb96d36")


@pytest.fixture(scope="module")
def vae() -> VAE:
    return load_vae(shipped_model())


def test_encoder_and_statistics_are_those_of_0_1_0(vae: VAE):
    assert (weights_hash(vae.encoder), weights_hash(vae.quant_conv)) == ENCODER_0_1_0
    assert sum(vae.config.latents_mean) == pytest.approx(-5.09135, abs=1e-4)
    assert sum(vae.config.latents_std) == pytest.approx(28.48926, abs=1e-4)


def test_data_sets_and_caches_of_0_1_0_stay_valid(vae: VAE, tmp_path):
    assert vae_hash(vae) == HASH_0_1_0
    save_component(tmp_path / "vae", vae)
    assert vae_hash(load_vae(tmp_path / "vae")) == HASH_0_1_0

    own = VAE(replace(vae.config, latents_hash=None))
    assert vae_hash(own) != HASH_0_1_0


def test_wans_decoder_has_no_hash_of_others():
    with pytest.raises(ConfigError, match="latents_hash belongs to a subpixel decoder"):
        VAEConfig(latents_hash=HASH_0_1_0)


@pytest.mark.parametrize(("lf", "lh", "lw", "at_once"), [(5, 2, 3, 1), (4, 3, 1, 2), (7, 1, 2, 3)])
@torch.no_grad()
def test_a_stream_equals_one_pass(vae: VAE, lf: int, lh: int, lw: int, at_once: int):
    z = torch.randn(1, 24, lf, lh, lw, generator=torch.Generator().manual_seed(0))
    whole = vae.decode(z)
    assert whole.shape == (1, 3, 4 * lf - 3, 16 * lh, 16 * lw)
    streamed = torch.cat(list(vae.stream_decode([z], at_once=at_once)), dim=2)
    torch.testing.assert_close(streamed, whole, atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_still_is_the_first_frame_of_its_video(vae: VAE):
    z = torch.randn(1, 24, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vae.decode(z[:, :, :1]), vae.decode(z)[:, :, :1], atol=2e-5, rtol=0)


@torch.no_grad()
def test_memory_of_a_stream_does_not_grow(vae: VAE):
    cache, sizes = FeatureCache(), []
    for _ in range(5):
        vae.decoder(torch.randn(1, 24, 1, 1, 2), cache)
        cache.is_first = False
        sizes.append(cache.size_bytes())
    assert len(set(sizes[2:])) == 1
