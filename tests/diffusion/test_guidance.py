"""Guidance: its identities, and which network it calls."""

import pytest
import torch
from torch import Tensor

from kinema.diffusion.guidance import classifier_free, guide
from kinema.errors import ConfigError

X = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


class Counting:
    """A denoiser that multiplies by a number and counts its calls."""

    def __init__(self, factor: float):
        self.factor, self.calls = factor, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


def at(t: float) -> Tensor:
    return torch.tensor(t)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_scale_one_is_the_conditional_network_alone(rescale: float):
    conditional, unconditional = Counting(2.0), Counting(5.0)
    assert torch.equal(classifier_free(conditional, unconditional, 1.0, rescale=rescale)(X, at(0.5)), 2 * X)
    assert (conditional.calls, unconditional.calls) == (1, 0)


def test_scale_zero_is_the_unconditional_network_alone():
    conditional, unconditional = Counting(2.0), Counting(5.0)
    assert torch.equal(classifier_free(conditional, unconditional, 0.0)(X, at(0.5)), 5 * X)
    assert (conditional.calls, unconditional.calls) == (0, 1)


def test_guidance_is_linear_in_scale():
    for scale in (0.5, 3.0, 7.5):
        guided = classifier_free(Counting(2.0), Counting(5.0), scale)(X, at(0.5))
        torch.testing.assert_close(guided, (5 - 3 * scale) * X)


def test_both_agreeing_is_untouched_by_any_scale():
    assert torch.equal(classifier_free(Counting(2.0), Counting(2.0), 9.0)(X, at(0.5)), 2 * X)


@pytest.mark.parametrize(("t", "calls"), [(0.19, 0), (0.2, 1), (0.5, 1), (0.8, 1), (0.81, 0)])
@pytest.mark.parametrize("scale", [0.0, 4.0])
def test_outside_the_interval_only_the_conditional_network_is_called(t: float, calls: int, scale: float):
    conditional, unconditional = Counting(2.0), Counting(5.0)
    guided = classifier_free(conditional, unconditional, scale, interval=(0.2, 0.8))(
        X, torch.tensor(t, dtype=torch.float64)
    )
    assert unconditional.calls == calls
    torch.testing.assert_close(guided, (5 - 3 * scale) * X if calls else 2 * X)


def test_one_time_per_token_is_judged_by_its_greatest():
    unconditional = Counting(5.0)
    denoise = classifier_free(Counting(2.0), unconditional, 4.0, interval=(0.2, 0.8))
    denoise(X, torch.tensor([0.0, 0.5]))
    assert unconditional.calls == 1


def test_full_rescale_restores_the_spread_of_the_conditional_estimate():
    conditional, unconditional = torch.randn(
        2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1)
    ).unbind(0)
    guided = guide(conditional, unconditional, 6.0, rescale=1.0)
    axes = (1, 2, 3)
    torch.testing.assert_close(guided.std(axes), conditional.std(axes))
    plain = guide(conditional, unconditional, 6.0)
    torch.testing.assert_close(
        guide(conditional, unconditional, 6.0, rescale=0.25), 0.25 * guided + 0.75 * plain
    )


def test_rescale_of_a_constant_sample_is_finite():
    assert torch.isfinite(guide(torch.ones(2, 3), torch.zeros(2, 3), 6.0, rescale=0.7)).all()


def test_rescale_agrees_with_diffusers():
    theirs_module = pytest.importorskip("diffusers.guiders.guider_utils")
    conditional, unconditional = torch.randn(
        2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1)
    ).unbind(0)
    theirs = theirs_module.rescale_noise_cfg(
        guide(conditional, unconditional, 6.0), conditional, guidance_rescale=0.7
    )
    torch.testing.assert_close(guide(conditional, unconditional, 6.0, rescale=0.7), theirs)


def test_a_pair_serves_both_in_one_call_and_only_where_both_are_needed():
    conditional, unconditional, calls = Counting(2.0), Counting(5.0), []

    def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(float(t))
        return 2 * x, 5 * x

    denoise = classifier_free(conditional, unconditional, 4.0, interval=(0.0, 0.8), pair=pair)
    torch.testing.assert_close(denoise(X, at(0.5)), -7 * X)
    torch.testing.assert_close(denoise(X, at(0.9)), 2 * X)
    assert calls == [0.5]
    assert (conditional.calls, unconditional.calls) == (1, 0)


def test_impossible_options_are_refused():
    for options in ({"interval": (0.8, 0.2)}, {"interval": (-0.1, 1.0)}, {"rescale": 1.5}):
        with pytest.raises(ConfigError):
            classifier_free(Counting(1.0), Counting(1.0), 3.0, **options)
