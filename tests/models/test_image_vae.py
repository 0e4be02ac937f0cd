"""The image VAE against diffusers' with the same random weights."""

import pytest
import torch

from kinema.checkpoints.image_configs import image_vae_config_from_diffusers
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.models.autoencoder import AUTOENCODERS, Autoencoder, autoencoder_without_weights
from kinema.models.image_vae import ImageVAE, ImageVAEConfig
from kinema.models.vae_conditioning import encode_conditioning

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "block_out_channels": [16, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def pair():
    """(diffusers' network, ours)."""
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(**SMALL).eval()
    ours = ImageVAE(image_vae_config_from_diffusers(SMALL)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@torch.no_grad()
def test_encoding_and_decoding_equal_those_of_diffusers(pair):
    theirs, ours = pair
    pictures = torch.rand(2, 3, 24, 40) * 2 - 1
    expected, posterior = theirs.encode(pictures).latent_dist, ours.encode(pictures[:, :, None])
    torch.testing.assert_close(posterior.mean[:, :, 0], expected.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(posterior.logvar[:, :, 0], expected.logvar, rtol=0, atol=1e-5)

    z = torch.randn(2, 4, 5, 7)
    decoded = ours.decode(z[:, :, None])[:, :, 0]
    torch.testing.assert_close(decoded, theirs.decode(z).sample, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_frame_is_encoded_and_decoded_by_itself(pair):
    ours = pair[1]
    assert isinstance(ours, Autoencoder)
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    whole = ours.encode(video).mean
    parts = [
        posterior.mean for posterior in ours.stream_encode([video[:, :, :2], video[:, :, 2:]], at_once=2)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.denormalise(ours.normalise(whole)), whole)
    torch.testing.assert_close(ours.normalise(whole), 0.18215 * whole)
    torch.testing.assert_close(encode_conditioning(ours, video, starts_canvas=True), 0.18215 * whole)

    chunks = list(ours.stream_decode([whole[:, :, :1], whole[:, :, 1:]], at_once=3, clamp=True))
    assert [chunk.shape[2] for chunk in chunks] == [1, 3, 1]
    torch.testing.assert_close(torch.cat(chunks, 2), ours.decode(whole, clamp=True), rtol=0, atol=1e-5)


def test_the_published_size_has_the_tensors_of_diffusers():
    config = ImageVAEConfig()
    values = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    assert image_vae_config_from_diffusers(values) == config
    assert config.spatial_factor == 8
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKL(**values).state_dict()
    ours = autoencoder_without_weights(config).state_dict()
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}
    assert sum(x.numel() for x in ours.values()) == 83_653_863
    assert AUTOENCODERS[ImageVAEConfig] is ImageVAE


def test_wrong_sizes_and_other_networks_are_refused(pair):
    with pytest.raises(
        RequestError, match=r"10 x 16 pixels do not fit the VAE: use multiples of 4, e\.g\. 8 x 16"
    ):
        pair[1].encode(torch.zeros(1, 3, 1, 10, 16))
    with pytest.raises(ModelError, match="latents have 3 channels; this VAE takes 4"):
        pair[1].decode(torch.zeros(1, 3, 1, 2, 2))
    with pytest.raises(ModelError, match="use_quant_conv = False is not supported"):
        image_vae_config_from_diffusers({**SMALL, "use_quant_conv": False})
    with pytest.raises(ConfigError, match="must be multiples of groups=32"):
        ImageVAEConfig(channels=(48,))
