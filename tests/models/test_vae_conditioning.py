"""Known pixels become latents of the right kind wherever they stand."""

import pytest
import torch

from kinema.errors import RequestError
from kinema.models.vae import VAE, VAEConfig
from kinema.models.vae_conditioning import encode_conditioning, mirrored


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(base_dim=4, z_dim=4, latents_mean=(0.1,) * 4, latents_std=(2.0,) * 4)).eval()


@pytest.mark.parametrize(
    ("num_frames", "length", "expected"),
    [(8, 5, [5, 4, 3, 2, 1]), (4, 5, [1, 2, 3, 2, 1]), (1, 3, [0, 0, 0]), (2, 4, [0, 1, 0, 1])],
)
def test_the_prefix_is_the_reflection(num_frames, length, expected):
    assert mirrored(num_frames, length) == expected


@torch.no_grad()
def test_content_at_the_start_is_encoded_as_it_is(vae):
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    assert torch.equal(
        encode_conditioning(vae, video, starts_canvas=True), vae.normalise(vae.encode(video).mean)
    )


@torch.no_grad()
def test_content_inside_gives_one_latent_for_four_frames(vae):
    assert encode_conditioning(vae, torch.zeros(2, 3, 8, 32, 32), starts_canvas=False).shape == (
        2,
        4,
        2,
        2,
        2,
    )


@torch.no_grad()
def test_a_still_inside_is_what_a_long_still_becomes(vae):
    """Four equal frames behind their mirrored prefix are the third latent of nine equal frames."""
    still = torch.rand(1, 3, 1, 32, 32).expand(-1, -1, 9, -1, -1)
    inside = encode_conditioning(vae, still[:, :, :4], starts_canvas=False)
    torch.testing.assert_close(
        inside, encode_conditioning(vae, still, starts_canvas=True)[:, :, 2:], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("num_frames", "starts"), [(4, True), (5, False), (0, False)])
def test_other_lengths_are_refused(vae, num_frames, starts):
    with pytest.raises(RequestError, match="known frames"):
        encode_conditioning(vae, torch.zeros(1, 3, num_frames, 32, 32), starts_canvas=starts)
