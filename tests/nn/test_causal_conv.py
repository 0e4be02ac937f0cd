"""Causal convolutions: the future is never seen, and pieces give what the whole gives."""

import pytest
import torch
import torch.nn.functional as F

from kinema.device import CPU, Precision, autocast
from kinema.nn.causal_conv import CausalConv3d, FeatureCache, causal_conv3d

ATOL = {"fp32": 1e-6, "bf16": 2e-2}
"""Of outputs near one: bfloat16 has 8 bits, and sums of other shapes may round to a neighbour."""


def layer(kernel_size: int | tuple[int, int, int] = 3) -> CausalConv3d:
    torch.manual_seed(0)
    return CausalConv3d(3, 4, kernel_size)


@pytest.mark.portable
@torch.no_grad()
def test_equals_a_convolution_of_the_input_with_zeros_in_front(precision):
    conv, x = layer(), torch.randn(2, 3, 5, 6, 7)
    expected = F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0)), conv.weight, conv.bias)
    with autocast(CPU, precision):
        out = conv(x)
    torch.testing.assert_close(out.float(), expected, atol=ATOL[precision], rtol=1e-5)


def test_single_frame_equals_the_first_frame_of_more():
    conv, x = layer(), torch.randn(2, 3, 5, 6, 7)
    torch.testing.assert_close(conv(x[:, :, :1]), conv(x)[:, :, :1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (3, 1, 1), (1, 1, 1), (5, 3, 3)], ids=str)
@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1), (1, 2, 3), (4, 2), (2, 1, 3)], ids=str)
@pytest.mark.portable
@torch.no_grad()
def test_pieces_equal_the_whole(
    kernel_size: tuple[int, int, int], pieces: tuple[int, ...], precision: Precision
):
    conv, x, cache = layer(kernel_size), torch.randn(1, 3, 6, 4, 4), FeatureCache()
    with autocast(CPU, precision):
        streamed = torch.cat([conv(piece, cache) for piece in x.split(pieces, dim=2)], dim=2)
        torch.testing.assert_close(streamed, conv(x), atol=ATOL[precision], rtol=1e-5)


def test_frames_before_a_change_stay_the_same():
    conv, x = layer(), torch.randn(1, 3, 6, 4, 4)
    changed = x.clone()
    changed[:, :, 4] += 1
    assert torch.equal(conv(changed)[:, :, :4], conv(x)[:, :, :4])
    assert not torch.equal(conv(changed)[:, :, 4], conv(x)[:, :, 4])


def test_history_is_what_came_before():
    conv, x = layer(), torch.randn(1, 3, 6, 4, 4)
    assert conv.bias is not None
    later = causal_conv3d(x[:, :, 3:], conv.weight, conv.bias, history=x[:, :, 1:3])
    torch.testing.assert_close(later, conv(x)[:, :, 3:], atol=1e-6, rtol=1e-5)


def test_gradient_of_a_single_frame_equals_that_of_three_dimensions():
    conv, x = layer(), torch.randn(2, 3, 1, 6, 7)
    assert conv.bias is not None
    expected = F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0)), conv.weight, conv.bias).square().sum()
    by_three = torch.autograd.grad(expected, list(conv.parameters()))
    by_two = torch.autograd.grad(conv(x).square().sum(), list(conv.parameters()))
    for two, three in zip(by_two, by_three):
        torch.testing.assert_close(two, three, atol=1e-4, rtol=1e-4)


def test_cache_holds_a_fixed_number_of_frames():
    conv, cache = layer(), FeatureCache()
    sizes = []
    for num_frames in (1, 1, 4, 1, 8):
        conv(torch.randn(1, 3, num_frames, 4, 4), cache)
        sizes.append(cache.size_bytes())
    one_frame = 3 * 4 * 4 * 4
    assert sizes == [one_frame, *[2 * one_frame] * 4]
