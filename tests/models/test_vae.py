"""The video VAE: causal, equal in both its forms, equal to the published network, flat in memory."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinema.checkpoints.components import load_vae
from kinema.checkpoints.key_maps import vae_config_from_diffusers, vae_diffusers_config
from kinema.checkpoints.shipped import shipped_model
from kinema.device import Precision
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.models.pixels import psnr
from kinema.models.subpixel_decoder import SubpixelConfig, SubpixelStage
from kinema.models.vae import VAE, VAES, Posterior, VAEConfig
from kinema.nn.causal_conv import FeatureCache

TINY = {
    "nano": VAEConfig(base_dim=8, z_dim=4, num_res_blocks=1),
    "wan-2.1": VAEConfig(
        base_dim=8,
        z_dim=4,
        num_res_blocks=2,
        dim_mult=(1, 2, 4, 4),
        temporal_downsample=(False, True, True),
        patch_size=1,
    ),
    "wan-2.2": VAEConfig(
        base_dim=8,
        decoder_base_dim=12,
        z_dim=4,
        num_res_blocks=2,
        dim_mult=(1, 2, 4, 4),
        temporal_downsample=(False, True, True),
        patch_size=2,
        residual=True,
    ),
    "subpixel": VAEConfig(
        base_dim=8,
        z_dim=4,
        subpixel=SubpixelConfig(
            width=12,
            hidden=6,
            num_blocks=3,
            num_heads=2,
            stages=(SubpixelStage(8, 1, kernel_frames=3), SubpixelStage(6, 1)),
        ),
    ),
    "time-first": VAEConfig(
        base_dim=8, z_dim=4, dim_mult=(2, 3, 2), temporal_downsample=(True, False), patch_size=2
    ),
}
every_shape = pytest.mark.parametrize("name", TINY)


def tiny(name: str, precision: Precision = "fp32") -> VAE:
    """A network in which every part counts: no gain at one, no weight at zero."""
    torch.manual_seed(0)
    vae = VAE(TINY[name])
    vae.precision = precision
    with torch.no_grad():
        for key, parameter in vae.named_parameters():
            if key.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
            elif "time_conv" in key or "proj" in key or key.endswith("conv2.weight"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


def snr_db(noisy: Tensor, clean: Tensor) -> float:
    """Signal-to-noise ratio in dB."""
    return 10 * torch.log10(clean.square().mean() / (noisy - clean).square().mean()).item()


def clip(name: str, num_frames: int = 13, batch: int = 1) -> Tensor:
    factor = TINY[name].spatial_factor
    return (
        torch.rand(batch, 3, num_frames, 2 * factor, 3 * factor, generator=torch.Generator().manual_seed(1))
        * 2
        - 1
    )


@every_shape
def test_sizes_follow_the_factors(name: str):
    vae, config = tiny(name), TINY[name]
    posterior = vae.encode(clip(name, batch=2))
    assert posterior.mean.shape == posterior.logvar.shape == (2, 4, 1 + 12 // config.temporal_factor, 2, 3)
    assert vae.decode(posterior.mean).shape == clip(name, batch=2).shape


@every_shape
@pytest.mark.parametrize("pieces", [(13,), (2, 1, 5, 5), (1,) * 13], ids=str)
@torch.no_grad()
def test_streamed_encoding_equals_one_pass(name: str, pieces: tuple[int, ...]):
    vae, video = tiny(name), clip(name)
    whole, parts = vae.encode(video), list(vae.stream_encode(video.split(pieces, dim=2), at_once=8))
    torch.testing.assert_close(torch.cat([p.mean for p in parts], dim=2), whole.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([p.logvar for p in parts], dim=2), whole.logvar, atol=1e-5, rtol=0)


@every_shape
@pytest.mark.parametrize(("pieces", "at_once"), [((6,), 1), ((6,), 4), ((1, 2, 3), 3)], ids=str)
@torch.no_grad()
def test_streamed_decoding_equals_one_pass(name: str, pieces: tuple[int, ...], at_once: int):
    vae, z = tiny(name), torch.randn(1, 4, 6, 2, 3)
    streamed = torch.cat(list(vae.stream_decode(z.split(pieces, dim=2), at_once=at_once)), dim=2)
    torch.testing.assert_close(streamed, vae.decode(z), atol=1e-5, rtol=0)


@every_shape
@pytest.mark.portable
@torch.no_grad()
def test_streams_in_bf16_are_near_one_pass_in_bf16(name: str):
    """Not nearer: sums of another shape may round to the neighbouring number, at every layer."""
    vae, video = tiny(name, "bf16"), clip(name, num_frames=9)
    z = vae.encode(video).mean
    streamed = torch.cat([posterior.mean for posterior in vae.stream_encode([video], at_once=4)], dim=2)
    assert snr_db(streamed, z) > 30
    frames = torch.cat(list(vae.stream_decode([z], at_once=1)), dim=2)
    assert psnr(frames, vae.decode(z)) > 40


@every_shape
@pytest.mark.portable
@torch.no_grad()
def test_bf16_agrees_with_fp32_to_40_db(name: str):
    full, half, video = tiny(name), tiny(name, "bf16"), clip(name, num_frames=5)
    z = full.encode(video).mean
    assert snr_db(half.encode(video).mean, z) > 30
    pixels, other = full.decode(z), half.decode(z)
    assert (other.dtype, other.shape) == (torch.float32, pixels.shape)
    assert psnr(other, pixels) > 40


@pytest.mark.portable
@torch.no_grad()
def test_the_shipped_vae_in_bf16_agrees_with_fp32_to_40_db():
    vae = load_vae(shipped_model()).eval()
    f, y, x = torch.meshgrid(torch.arange(5), torch.arange(32), torch.arange(48), indexing="ij")
    video = torch.stack([(3 * x + 5 * f) % 48, (4 * y + 7 * f) % 64, (x + y + 11 * f) % 80]) / 40 - 1
    z = vae.encode(video[None]).mean
    pixels = vae.decode(z, clamp=True)
    vae.precision = "bf16"
    assert psnr(vae.decode(vae.encode(video[None]).mean, clamp=True), pixels) > 40


@torch.no_grad()
def test_auto_is_bf16_where_that_is_fast_and_else_bit_for_bit_fp32(precision: Precision):
    vae, as_named, video = tiny("nano", "auto"), tiny("nano", precision), clip("nano")
    assert torch.equal(vae.encode(video).mean, as_named.encode(video).mean)
    assert torch.equal(vae.encode(video).mean, tiny("nano").encode(video).mean) == (precision == "fp32")


@every_shape
@torch.no_grad()
def test_image_is_the_first_latent_of_its_video(name: str):
    vae, video = tiny(name), clip(name)
    image, z = vae.encode(video[:, :, :1]).mean, vae.encode(video).mean
    torch.testing.assert_close(image, z[:, :, :1], atol=5e-6, rtol=0)
    torch.testing.assert_close(vae.decode(z[:, :, :1]), vae.decode(z)[:, :, :1], atol=1e-5, rtol=0)


@every_shape
@torch.no_grad()
def test_vae_never_sees_the_future(name: str, precision: Precision):
    vae, video, factor = tiny(name, precision), clip(name), TINY[name].temporal_factor
    changed = video.clone()
    changed[:, :, 5] *= -1
    first = 1 + 4 // factor  # the latent frame that holds frame 5
    before, after = vae.encode(video).mean, vae.encode(changed).mean
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.equal(before[:, :, first], after[:, :, first])

    other = before.clone()
    other[:, :, first] += 1
    assert torch.equal(vae.decode(before)[:, :, :5], vae.decode(other)[:, :, :5])


@every_shape
@torch.no_grad()
def test_clips_of_a_batch_do_not_meet(name: str):
    vae, video = tiny(name), clip(name, num_frames=5, batch=2)
    torch.testing.assert_close(vae.encode(video).mean[1:], vae.encode(video[1:]).mean, atol=1e-5, rtol=0)


@every_shape
def test_every_parameter_is_trained(name: str):
    vae, video = tiny(name), clip(name)
    posterior = vae.encode(video)
    loss = (
        vae.decode(posterior.sample(torch.Generator().manual_seed(0))) - video
    ).abs().mean() + posterior.kl().mean()
    loss.backward()
    assert [key for key, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@torch.no_grad()
def test_network_starts_by_showing_each_frame_four_times():
    vae = VAE(TINY["nano"])
    stage = [vae.decoder.up_blocks[0].upsamplers[0], vae.decoder.up_blocks[1].upsamplers[0]]
    x = torch.randn(1, 32, 3, 2, 2)
    for upsample, dim in zip(stage, (32, 16)):
        shown = upsample(x[:, :dim])
        assert torch.equal(shown[:, :, 1::2], shown[:, :, 2::2])


@every_shape
@torch.no_grad()
def test_memory_of_a_stream_does_not_grow(name: str):
    vae, cache, sizes = tiny(name), FeatureCache(), []
    for _ in range(5):
        vae.decoder(torch.randn(1, 4, 2, 2, 3), cache)
        cache.is_first = False
        sizes.append(cache.size_bytes())
    assert len(set(sizes[1:])) == 1


@torch.no_grad()
def test_stream_starts_before_its_latents_have_ended():
    vae, taken = tiny("nano"), []

    def latents():
        for i in range(3):
            taken.append(i)
            yield torch.randn(1, 4, 2, 1, 1)

    stream = vae.stream_decode(latents())
    assert next(stream).shape == (1, 3, 1, 16, 16)
    assert taken == [0]
    assert [frames.shape[2] for frames in stream] == [4, 8, 8]


@pytest.mark.parametrize("name", ["nano", "wan-2.1", "wan-2.2"])
@torch.no_grad()
def test_equals_diffusers(name: str):
    diffusers = pytest.importorskip("diffusers")
    vae = tiny(name).eval()
    peer = diffusers.AutoencoderKLWan.from_config(vae_diffusers_config(vae.config)).eval()
    peer.load_state_dict(vae.state_dict(), strict=True)
    video, z = clip(name, num_frames=9, batch=2), torch.randn(2, 4, 3, 2, 3)
    ours, theirs = vae.encode(video), peer.encode(video).latent_dist
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.logvar, theirs.logvar, atol=1e-5, rtol=0)
    torch.testing.assert_close(vae.decode(z, clamp=True), peer.decode(z).sample, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_tensors"), [("wan-2.1", 126_892_531, 194), ("wan-2.2", 704_688_668, 196)]
)
def test_published_sizes_have_the_published_parameter_counts(
    name: str, num_parameters: int, num_tensors: int
):
    with torch.device("meta"):
        parameters = list(VAE(VAES[name]).parameters())
    assert sum(p.numel() for p in parameters) == num_parameters
    assert len(parameters) == num_tensors


@pytest.mark.parametrize("config", [*VAES.values(), TINY["subpixel"]], ids=[*VAES, "subpixel"])
def test_diffusers_config_round_trip(config: VAEConfig):
    assert vae_config_from_diffusers(vae_diffusers_config(config)) == config


def test_absent_keys_of_a_diffusers_config_mean_wan_2_1():
    assert (
        vae_config_from_diffusers(
            {"_class_name": "AutoencoderKLWan", "_diffusers_version": "0.33.0", "base_dim": 96}
        )
        == VAES["wan-2.1"]
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"in_channels": 4}, "in_channels"),
        ({"norm": 1}, "norm"),
    ],
)
def test_diffusers_config_of_another_network_is_refused(change: dict[str, object], named: str):
    with pytest.raises(ModelError, match=named):
        vae_config_from_diffusers(vae_diffusers_config(VAES["nano"]) | change)


def test_normalise_and_back():
    z = torch.randn(2, 4, 3, 2, 2)
    vae = VAE(replace(TINY["nano"], latents_mean=(1.0, -2.0, 0.0, 3.0), latents_std=(0.5, 2.0, 1.0, 4.0)))
    torch.testing.assert_close(vae.denormalise(vae.normalise(z)), z)
    statistics = (
        torch.tensor([1.0, -2.0, 0.0, 3.0]).view(4, 1, 1, 1)
        + torch.tensor([0.5, 2.0, 1.0, 4.0]).view(4, 1, 1, 1) * z
    )
    torch.testing.assert_close(vae.normalise(statistics), z)


def test_posterior_of_a_standard_normal():
    zero = torch.zeros(2, 4, 1, 8, 8)
    assert torch.equal(Posterior(zero, zero).kl(), torch.zeros(2))
    assert torch.allclose(Posterior(zero + 2, zero).kl(), torch.tensor(2.0))  # mean² / 2
    first, second = (Posterior(zero, zero).sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert float(first.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "nearest"),
    [
        ((12, 32, 32), "9 or 13"),
        ((13, 40, 32), "multiples of 16, e.g. 32 x 32"),
        ((13, 32, 5), "e.g. 32 x 16"),
    ],
    ids=str,
)
def test_size_that_does_not_fit_is_refused_with_the_nearest(shape: tuple[int, ...], nearest: str):
    with pytest.raises(RequestError, match=nearest):
        tiny("nano").encode(torch.zeros(1, 3, *shape))


def test_stream_that_ends_between_latents_is_refused():
    with pytest.raises(RequestError, match="7 frames"):
        list(tiny("nano").stream_encode([torch.zeros(1, 3, 7, 16, 16)]))
    with pytest.raises(RequestError, match="0 frames"):
        list(tiny("nano").stream_encode([]))


def test_latents_of_another_vae_are_refused():
    with pytest.raises(ModelError, match="5 channels; this VAE takes 4"):
        tiny("nano").decode(torch.zeros(1, 5, 1, 1, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"base_dim": 0},
        {"dim_mult": ()},
        {"decoder_base_dim": 0},
        {"patch_size": 3},
        {"temporal_downsample": (True,)},
        {"latents_std": (1.0,)},
        {"latents_std": (0.0,) * 24},
        {"decoder_base_dim": 3, "dim_mult": (1, 1, 1)},
    ],
    ids=str,
)
def test_config_that_cannot_be_is_refused(change: dict[str, object]):
    with pytest.raises(ConfigError):
        VAEConfig(**change)  # type: ignore[arg-type]
