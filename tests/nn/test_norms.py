import torch

from kinema.nn.norms import LayerNorm, RMSNorm

X = torch.randn(7, 12, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_rms_norm_is_its_formula():
    norm = RMSNorm(12, eps=1e-3)
    torch.nn.init.uniform_(norm.weight)
    torch.testing.assert_close(norm(X), X / (X.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


def test_layer_norm_is_its_formula():
    norm = LayerNorm(12, eps=1e-3)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    scaled = (X - X.mean(-1, keepdim=True)) / (X.var(-1, keepdim=True, unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(norm(X), scaled * norm.weight + norm.bias)


def test_layer_norm_without_affine_has_no_parameters():
    assert list(LayerNorm(12, affine=False).parameters()) == []


def test_norms_of_half_precision_weights_compute_in_float32():
    layer, rms = LayerNorm(12).bfloat16(), RMSNorm(12).bfloat16()
    half = X.bfloat16()
    torch.testing.assert_close(layer(half), LayerNorm(12)(half.float()))
    assert layer(half).dtype == torch.float32
    assert torch.equal(rms(half), RMSNorm(12)(half.float()).bfloat16())


def test_printing_a_norm_explains_it():
    assert repr(RMSNorm(12)) == "RMSNorm(12, eps=1e-06)"
    assert repr(LayerNorm(12, affine=False)) == "LayerNorm(12, eps=1e-06, affine=False)"
