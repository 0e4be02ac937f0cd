import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from kinema.models.patches import grid_coordinates, patchify, unpatchify

GRIDS = [((1, 2, 2), (3, 4, 6)), ((1, 2, 2), (1, 2, 2)), ((2, 1, 3), (4, 5, 6)), ((1, 1, 1), (2, 3, 5))]


def latents(grid, b=2, c=3):
    return torch.arange(b * c * grid[0] * grid[1] * grid[2], dtype=torch.float32).reshape(b, c, *grid)


@pytest.mark.parametrize(("patch", "grid"), GRIDS)
def test_unpatchify_undoes_patchify_when_rows_are_in_head_order(patch, grid):
    x = latents(grid)
    pt, ph, pw = patch
    head_order = rearrange(patchify(x, patch), "n (c pt ph pw) -> n (pt ph pw c)", pt=pt, ph=ph, pw=pw)
    assert torch.equal(unpatchify(head_order, grid, patch), x)


@pytest.mark.parametrize(("patch", "grid"), GRIDS)
def test_a_linear_layer_on_patches_is_the_convolution(patch, grid):
    x = latents(grid) / 100
    kernel = torch.randn(5, 3, *patch, generator=torch.Generator().manual_seed(0))
    convolved = F.conv3d(x, kernel, stride=patch)
    torch.testing.assert_close(
        patchify(x, patch) @ kernel.flatten(1).T, rearrange(convolved, "b d t h w -> (b t h w) d")
    )


@pytest.mark.parametrize(("patch", "grid"), GRIDS)
def test_coordinates_are_in_token_order(patch, grid):
    coordinates = grid_coordinates(*grid, patch)
    one_per_place = torch.arange(coordinates.shape[0]).reshape([size // p for size, p in zip(grid, patch)])
    assert torch.equal(one_per_place[tuple(coordinates.T)], torch.arange(coordinates.shape[0]))


def test_first_frame_shifts_time_only():
    shifted = grid_coordinates(3, 4, 4, (1, 2, 2), first_frame=5) - grid_coordinates(3, 4, 4, (1, 2, 2))
    assert torch.equal(shifted, torch.tensor([5, 0, 0]).expand(12, 3))
