import pytest
import torch

from kinema.nn.rotary import rotate, rotations, split_head


def test_a_head_of_wan_splits_as_published():
    assert split_head(128) == (44, 42, 42)


@pytest.mark.parametrize("dh", [12, 16, 64, 128])
def test_heads_split_into_pairs(dh):
    parts = split_head(dh)
    assert sum(parts) == dh
    assert all(part % 2 == 0 for part in parts)


def places(count, dh_seed=0):
    return torch.randint(0, 1024, (count, 3), generator=torch.Generator().manual_seed(dh_seed))


def test_float32_angles_are_those_of_float64():
    coordinates = torch.cat(
        [places(2000), torch.tensor([[1023, 1023, 1023], [4095, 4095, 4095], [0, 0, 0], [-5, 0, 0]])]
    )
    speeds = torch.cat(
        [10000.0 ** (-torch.arange(0, c, 2, dtype=torch.float64) / c) for c in split_head(128)]
    )
    axis = torch.tensor([i for i, c in enumerate(split_head(128)) for _ in range(c // 2)])
    exact = torch.polar(torch.ones(1, dtype=torch.float64), coordinates.double()[:, axis] * speeds)
    assert (rotations(coordinates, 128) - exact).abs().max() < 1.5e-6


def test_agrees_with_diffusers_to_the_edge_of_its_table():
    wan = pytest.importorskip("diffusers.models.transformers.transformer_wan")
    cos, sin = wan.WanRotaryPosEmbed(128, (1, 2, 2), 1024)(
        torch.zeros(1, 1, 4, 2048, 4)
    )  # coordinates to (4, 1024, 2)
    ours = rotations(torch.cartesian_prod(torch.arange(4), torch.arange(1024), torch.arange(2)), 128)
    torch.testing.assert_close(ours.real, cos[0, :, 0, ::2], atol=1.5e-6, rtol=0)
    torch.testing.assert_close(ours.imag, sin[0, :, 0, 1::2], atol=1.5e-6, rtol=0)
    x = torch.randn(len(ours), 1, 128, generator=torch.Generator().manual_seed(0))
    even, odd = x[..., ::2], x[..., 1::2]
    c, s = cos[0, :, :, ::2], sin[0, :, :, 1::2]
    theirs = torch.stack([even * c - odd * s, even * s + odd * c], dim=-1).flatten(-2)
    torch.testing.assert_close(rotate(x, ours), theirs, atol=1e-5, rtol=0)


def test_scores_depend_on_differences_of_place_only():
    q, k = torch.randn(2, 50, 2, 24, generator=torch.Generator().manual_seed(1))
    a, b, shift = places(50), places(50, 1), torch.tensor([17, 300, 1001])

    def scores(offset):
        return (rotate(q, rotations(a + offset, 24)) * rotate(k, rotations(b + offset, 24))).sum(-1)

    torch.testing.assert_close(scores(0), scores(shift), atol=3e-5, rtol=0)


def test_origin_turns_nothing_and_lengths_are_kept():
    x = torch.randn(8, 2, 24, generator=torch.Generator().manual_seed(2))
    assert torch.equal(rotate(x, rotations(torch.zeros(8, 3, dtype=torch.long), 24)), x)
    torch.testing.assert_close(rotate(x, rotations(places(8), 24)).norm(dim=-1), x.norm(dim=-1))


def test_dtype_is_kept():
    assert (
        rotate(torch.ones(4, 1, 12, dtype=torch.bfloat16), rotations(places(4), 12)).dtype == torch.bfloat16
    )
