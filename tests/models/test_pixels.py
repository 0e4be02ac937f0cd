import numpy as np
import pytest
import torch

from kinema.models.pixels import frames_psnr, psnr


def test_psnr_of_a_known_error():
    assert psnr(torch.zeros(10), torch.full((10,), 0.2)) == pytest.approx(20.0)


def test_psnr_of_one_level_is_48_db():
    a = np.full((2, 4, 4, 3), 100, np.uint8)
    assert frames_psnr(a, a + 1) == pytest.approx(48.13, abs=0.01)
    assert frames_psnr(a, a) == 100
