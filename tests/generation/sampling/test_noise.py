"""Noise belongs to a latent position: the division of the work does not change its bytes."""

import pytest
import torch

from kinema.generation.sampling.noise import START, STEP, latent_noise

SHAPE = (4, 6, 5)


def test_frames_drawn_in_chunks_are_the_bytes_of_one_draw():
    whole = latent_noise(7, START, range(6), SHAPE)
    chunks = [latent_noise(7, START, frames, SHAPE) for frames in (range(1), range(1, 4), range(4, 6))]
    assert torch.equal(torch.cat(chunks, dim=1), whole)
    assert torch.equal(latent_noise(7, START, [5, 0], SHAPE), whole[:, [5, 0]])


@pytest.mark.parametrize(
    "other",
    [(8, START, range(2), 0), (7, STEP, range(2), 0), (7, START, range(1, 3), 0), (7, START, range(2), 1)],
)
def test_another_seed_stream_frame_or_step_is_other_noise(other):
    seed, stream, frames, step = other
    noise = latent_noise(seed, stream, frames, SHAPE, step)
    assert not (noise[:, 0] == latent_noise(7, START, range(1), SHAPE)[:, 0]).any()


def test_seeds_that_torch_cannot_tell_apart_are_other_noise():
    assert not torch.equal(
        latent_noise(5, START, range(1), SHAPE), latent_noise(5 + 2**32, START, range(1), SHAPE)
    )


def test_it_is_standard_normal():
    noise = latent_noise(0, START, range(20), (16, 24, 24))
    assert noise.dtype == torch.float32
    assert noise.mean().abs() < 5 * noise.numel() ** -0.5
    assert (noise.var() - 1).abs() < 5 * (2 / noise.numel()) ** 0.5
    frames = noise.transpose(0, 1).flatten(1)
    others = torch.corrcoef(frames).fill_diagonal_(0).abs()
    assert others.max() < 6 * frames.shape[1] ** -0.5


def test_no_frames_give_an_empty_piece():
    assert latent_noise(0, START, range(0), SHAPE).shape == (4, 0, 6, 5)
