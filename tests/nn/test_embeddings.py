import math

import pytest
import torch

from kinema.nn.embeddings import sinusoid


def test_cosines_come_first():
    row = sinusoid(torch.tensor([3.0]), 4)[0]
    expected = [math.cos(3), math.cos(3 * 0.01), math.sin(3), math.sin(3 * 0.01)]
    torch.testing.assert_close(row, torch.tensor(expected))


def test_is_the_timestep_embedding_of_diffusers():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    times = torch.tensor([0.0, 0.3, 417.25, 999.9, 1000.0])
    theirs = embeddings.get_timestep_embedding(times, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(times, 256), theirs, atol=1e-5, rtol=0)
