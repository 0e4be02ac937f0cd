"""Cached latents are those of the VAE and world they are named after, and nothing is made twice."""

from dataclasses import replace

import pytest
import torch

from kinema.data.latents import LatentCache, LatentData, Shape, choose_by_share
from kinema.data.seeds import batches, derive_seed, numpy_rng
from kinema.data.world_clips import CaptionMix, draw_clips, to_tensor
from kinema.errors import ConfigError, TrainingError
from kinema.models.pixels import to_uint8
from kinema.models.vae import VAE, VAEConfig
from kinema.models.vae_conditioning import encode_conditioning
from kinema.worlds.stage import StageConfig, StageWorld

STAGE = StageConfig(nouns=4, max_objects=1, cameras=("still",))
DATA = LatentData(
    num_clips=4,
    num_images=4,
    num_frames=9,
    shapes=(Shape(32, 32, 0.5), Shape(32, 48, 0.5)),
    shard_clips=1,
    shard_images=2,
)


def make_vae(seed: int) -> VAE:
    torch.manual_seed(seed)
    return VAE(VAEConfig(base_dim=4, z_dim=4)).eval()


def shifted(vae: VAE) -> VAE:
    """The same weights with another mean of the latents."""
    other = VAE(replace(vae.config, latents_mean=(0.5,) * vae.config.z_dim)).eval()
    other.load_state_dict(vae.state_dict(), strict=False)
    return other


@pytest.fixture
def cache(tmp_path) -> LatentCache:
    cache = LatentCache(tmp_path, make_vae(0), StageWorld(STAGE), DATA)
    cache.fill(torch.device("cpu"))
    return cache


@torch.no_grad()
def test_cached_latents_are_those_of_the_clips(cache):
    clips = draw_clips(cache.world, "train-clips-32x48", range(2), height=32, width=48, num_frames=9)
    cached = cache.load("clips", 1)
    assert cached.captions == [clip.captions for clip in clips]
    expected = encode_conditioning(cache.vae, to_tensor(clips), starts_canvas=True)
    torch.testing.assert_close(cached.latents.float(), expected, atol=4e-3, rtol=2e-3)


@torch.no_grad()
def test_tails_are_encoded_behind_their_mirror_image(cache):
    cached = cache.load("clips", 0)
    assert cached.tails is not None
    assert cached.tail_lengths is not None
    i = int(cached.tail_lengths.argmax())
    length = int(cached.tail_lengths[i])
    clip = to_tensor(draw_clips(cache.world, "train-clips-32x32", [i], height=32, width=32, num_frames=9))
    expected = encode_conditioning(cache.vae, clip[:, :, -4 * length :], starts_canvas=False)[0]
    torch.testing.assert_close(cached.tails[i, :, -length:].float(), expected, atol=4e-3, rtol=2e-3)


@torch.no_grad()
def test_latents_in_bf16_have_a_folder_of_their_own_and_are_near_those_in_fp32(cache, tmp_path):
    half = make_vae(0)
    half.precision = "bf16"
    other = LatentCache(tmp_path, half, cache.world, DATA)
    assert other.shards.folder != cache.shards.folder
    other.fill(torch.device("cpu"))
    one, near = cache.load("images", 0).latents.float(), other.load("images", 0).latents.float()
    assert 0 < (one - near).square().mean() < 1e-3 * one.square().mean()  # 30 dB


def test_only_what_is_missing_is_made_again(cache):
    paths = sorted(cache.shards.folder.iterdir())
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    cache.fill(torch.device("cpu"))
    assert {path for path in paths if path.stat().st_mtime_ns != before[path]} == {paths[0]}


def test_a_worker_process_draws_the_same_clips(cache, tmp_path):
    ahead = LatentCache(tmp_path / "ahead", cache.vae, cache.world, DATA)
    ahead.fill(torch.device("cpu"), num_workers=1)
    assert ahead.shards.folder.name == cache.shards.folder.name
    for path in cache.shards.folder.iterdir():
        assert (ahead.shards.folder / path.name).read_bytes() == path.read_bytes()


def test_another_vae_or_world_has_another_folder(cache, tmp_path):
    other_vae = LatentCache(tmp_path, make_vae(1), cache.world, DATA)
    other_mean = LatentCache(tmp_path, shifted(cache.vae), cache.world, DATA)
    other_stage = StageConfig(nouns=5, max_objects=1, cameras=("still",))
    other_world = LatentCache(tmp_path, cache.vae, StageWorld(other_stage), DATA)
    assert (
        len(
            {
                cache.shards.folder,
                other_vae.shards.folder,
                other_mean.shards.folder,
                other_world.shards.folder,
            }
        )
        == 4
    )


def test_a_damaged_shard_is_named(cache):
    path = next(cache.shards.folder.glob("images-32x32-*"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=path.name):
        cache.load("images", 0)


def test_shares_of_shapes_must_add_up():
    with pytest.raises(ConfigError, match="add up to"):
        LatentData(shapes=(Shape(32, 32, 0.5),))


def test_choose_follows_the_shares():
    assert [choose_by_share((0.25, 0.75), draw) for draw in (0.0, 0.24, 0.25, 0.999999)] == [0, 0, 1, 1]


def test_a_seed_belongs_to_all_its_parts():
    seeds = {
        derive_seed(*parts) for parts in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), ("0/a", 1))
    }
    assert len(seeds) == 4, "(0, 'a', 1) and ('0/a', 1) are written the same; every other pair differs"
    assert numpy_rng(0, "a").random() == numpy_rng(0, "a").random()


def test_batches_start_anywhere_and_workers_change_nothing():
    def make(step: int) -> dict[str, int]:
        return {"step": step, "draw": int(numpy_rng("x", step).integers(1000))}

    whole = list(batches(make, 0, 6))
    assert list(batches(make, 3, 6)) == whole[3:]


def test_captions_are_drawn_by_their_shares():
    captions = {
        form + language: form + language
        for form in ("short", "medium", "detailed")
        for language in ("", "_zh")
    }
    mix = CaptionMix(short=0.5, medium=0.25, detailed=0.25, chinese=0.5, dropped=0.2)
    rng = numpy_rng("captions")
    drawn = [mix.draw(captions, rng) for _ in range(4000)]
    assert drawn.count("") / 4000 == pytest.approx(0.2, abs=0.03)
    assert sum("short" in caption for caption in drawn) / 4000 == pytest.approx(0.4, abs=0.03)
    assert sum(caption.endswith("_zh") for caption in drawn) / 4000 == pytest.approx(0.4, abs=0.03)


def test_pixels_survive_the_way_to_the_network_and_back():
    clip = draw_clips(StageWorld(STAGE), "x", [3], height=32, width=32, num_frames=2)[0]
    assert (to_uint8(to_tensor([clip])[0]) == clip.frames).all()
