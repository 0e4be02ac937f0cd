import pytest
import torch
from torch.nn import functional as F

from kinema.errors import ConfigError, UnknownName
from kinema.nn.attention import attend, attention_kernel


def by_segment(q, k, v, q_lengths, kv_lengths):
    """The definition, one segment and softmax at a time."""
    out = []
    for qs, ks, vs in zip(q.split(q_lengths), k.split(kv_lengths), v.split(kv_lengths)):
        scores = torch.einsum("nkc,mkc->knm", qs, ks) / qs.shape[-1] ** 0.5
        out.append(torch.einsum("knm,mkc->nkc", scores.softmax(-1), vs))
    return torch.cat(out)


def draw(q_lengths, kv_lengths):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(sum(lengths), 3, 8, generator=generator)
        for lengths in (q_lengths, kv_lengths, kv_lengths)
    ]


@pytest.mark.parametrize(
    ("q_lengths", "kv_lengths"),
    [
        ((5, 5), (5, 5)),
        ((7,), (4,)),
        ((5, 5, 5), (1, 6, 3)),
        ((2, 7, 4), (2, 7, 4)),
        ((2, 7), (3, 3)),
        ((4, 4), (0, 3)),
        ((2, 5), (3, 0)),
        ((40, 2), (3, 50)),
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.portable
def test_each_segment_attends_to_its_own(q_lengths, kv_lengths, dtype, atol):
    q, k, v = (x.to(dtype) for x in draw(q_lengths, kv_lengths))
    expected = by_segment(q.float(), k.float(), v.float(), q_lengths, kv_lengths)
    out = attend(q, k, v, q_lengths, kv_lengths)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=atol, rtol=0)


def test_a_key_with_the_bias_log_n_counts_n_times():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(size, 2, 4, generator=generator) for size in (5, 6, 6))
    rows, lengths = [0, 1, 1, 1, 2, 3, 3, 4, 5, 5], (4, 6)
    times = torch.tensor([1.0, 3, 1, 2, 1, 2])
    for q_lengths in ((2, 3), (4, 1)):
        expected = attend(q, k[rows], v[rows], q_lengths, lengths)
        torch.testing.assert_close(attend(q, k, v, q_lengths, (2, 4), times.log()), expected)
    one = attend(q, k, v, (5,), (6,), times.log())
    torch.testing.assert_close(one, attend(q, k[rows], v[rows], (5,), (10,)))


@pytest.mark.parametrize("q_lengths", [(4, 4), (4, 6), (4, 40)])
@pytest.mark.parametrize("kv_lengths", [(0, 0), (0, 3)])
def test_a_segment_without_keys_gives_zeros_and_finite_gradients(q_lengths, kv_lengths):
    q, k, v = (x.requires_grad_() for x in draw(q_lengths, kv_lengths))
    out = attend(q, k, v, q_lengths, kv_lengths)
    assert (out[:4] == 0).all()
    if sum(kv_lengths):
        out.square().sum().backward()
        assert all(torch.isfinite(x.grad).all() for x in (q, k, v))


def test_padding_lets_no_gradient_through():
    q, k, v = (x.requires_grad_() for x in draw((3, 3), (2, 4)))
    attend(q, k, v, (3, 3), (2, 4))[:3].sum().backward()
    assert k.grad[2:].abs().max() == v.grad[2:].abs().max() == 0


def test_no_segments_is_no_tokens():
    empty = torch.zeros(0, 2, 4)
    assert attend(empty, empty, empty, (), ()).shape == (0, 2, 4)


def test_one_segment_is_plain_attention_bit_for_bit():
    q, k, v = draw((6,), (6,))
    plain = F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)))[0].transpose(0, 1)
    assert torch.equal(attend(q, k, v, (6,), (6,)), plain)


@pytest.mark.parametrize(("q_lengths", "kv_lengths"), [((5,), (4,)), ((6,), (5,)), ((3, 3), (4,))])
def test_lengths_that_do_not_add_up_are_refused(q_lengths, kv_lengths):
    q, k, v = draw((6,), (4,))
    with pytest.raises(ValueError, match="6 queries in"):
        attend(q, k, v, q_lengths, kv_lengths)


@pytest.mark.parametrize("name", ["flash", "math"])
def test_a_kernel_that_is_asked_for_gives_the_same_numbers(name):
    q, k, v = (torch.randn(12, 2, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    usual = attend(q, k, v, (12,), (12,))
    with attention_kernel(name):
        torch.testing.assert_close(attend(q, k, v, (12,), (12,)), usual, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_is_not_there_is_one_line():
    q = torch.randn(4, 1, 8)
    with pytest.raises(ConfigError, match="'cudnn' does not work"), attention_kernel("cudnn"):
        attend(q, q, q, (4,), (4,))
    with pytest.raises(UnknownName, match="math"), attention_kernel("fast"):
        pass
