"""Degraded clips: drawn from the generator alone, in range, and with everything where it was."""

import pytest
import torch

from kinema.data.augment import blur, degrade


def spot(x: int, y: int) -> torch.Tensor:
    """A bright square on black in the middle of (y, x)."""
    video = -torch.ones(1, 3, 5, 48, 48)
    video[..., y - 5 : y + 5, x - 5 : x + 5] = 1
    return video


def test_the_same_generator_gives_the_same_clips():
    video = torch.rand(3, 3, 5, 16, 16) * 2 - 1
    first, second, other = (degrade(video, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.abs().max() <= 1


def test_what_is_shown_stays_where_it_is():
    bright = (
        degrade(spot(30, 14).expand(16, -1, -1, -1, -1), torch.Generator().manual_seed(0)).mean(dim=(1, 2))
        > 0
    )
    for clip in bright:
        rows, columns = torch.nonzero(clip, as_tuple=True)
        assert rows.float().mean() == pytest.approx(13.5, abs=1)
        assert columns.float().mean() == pytest.approx(29.5, abs=1)


def test_a_blur_keeps_the_mean_and_spreads_by_its_width():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    blurred = blur(point, 1.5)[0, 0]
    at = torch.arange(41) - 20.0
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(dim=0) * at**2).sum().sqrt() == pytest.approx(1.5, rel=0.05)
