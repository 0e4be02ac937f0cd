"""The optimizers do what their papers say."""

import pytest
import torch
from torch import nn

from kinema.errors import ConfigError
from kinema.nn.parameters import use_muon
from kinema.training.ema import EMA
from kinema.training.losses import Discriminator, adversarial_losses, gradient_difference
from kinema.training.optimizer import Muon, OptimizerConfig, build_optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 32), (2, 32, 8), (1, 16, 16)])
@pytest.mark.portable
def test_singular_values_come_near_one(shape, precision):
    matrices = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(matrices.float())  # the iteration is in bfloat16 where that is fast
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_takes_matrices_and_kernels_of_marked_modules_and_adamw_the_rest():
    model = nn.Module()
    model.blocks = use_muon(nn.ModuleList([nn.Linear(4, 4), nn.Conv3d(2, 3, 3), nn.LayerNorm(4)]))
    model.head = nn.Linear(4, 2)
    adamw, muon = build_optimizers(model, OptimizerConfig(name="muon"))
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    assert taken == {id(model.blocks[0].weight), id(model.blocks[1].weight)}
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert taken | rest == {id(p) for p in model.parameters()}
    assert not taken & rest


def test_muon_solves_a_quadratic(precision):
    goal = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros(8, 4))
    optimizer = Muon([weight], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - goal).square().sum().backward()
        optimizer.step()
    assert (weight - goal).abs().max() < 0.05


def test_the_learning_rate_rises_stays_and_falls():
    config = OptimizerConfig(warmup_steps=10, decay_share=0.2)
    factors = [config.factor(step, 100) for step in range(100)]
    assert factors[0] == 0.1
    assert set(factors[9:81]) == {1.0}
    assert factors[90] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.05)
    with pytest.raises(ConfigError, match="learning rates"):
        OptimizerConfig(lr=0)


def test_the_average_follows_a_constant_model_exactly_and_a_changing_one_slowly():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.9)
    ema.update(model, 1000)
    assert torch.equal(ema.model.weight, model.weight)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    ema.update(model, 1000)
    torch.testing.assert_close(ema.model.weight, before + 0.1)


def test_the_gradient_term_sees_edges_and_not_offsets():
    a = torch.zeros(1, 3, 5, 16, 16)
    assert gradient_difference(a, a + 0.5, 3) == 0
    edge = a.clone()
    edge[..., 8:] = 1
    assert gradient_difference(a, edge, 1) == pytest.approx(1 / 15)


def test_each_side_of_the_adversarial_pair_gets_its_own_gradient():
    torch.manual_seed(0)
    discriminator, fake = Discriminator(8), torch.rand(1, 3, 2, 16, 16, requires_grad=True)
    discriminator.eval()
    generator_loss, discriminator_loss = adversarial_losses(discriminator, torch.rand(1, 3, 2, 16, 16), fake)
    generator_loss.backward()
    assert fake.grad is not None
    assert fake.grad.abs().max() > 0
    assert all(p.grad is None or not p.grad.any() for p in discriminator.parameters())
    fake.grad = None
    discriminator_loss.backward()
    assert fake.grad is None
    assert any(p.grad is not None and p.grad.any() for p in discriminator.parameters())
