"""Reconstruction losses without a pretrained network: gradients at several scales, and a patch
discriminator."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from kinema.errors import ConfigError
from kinema.shapes import Float


@dataclass(frozen=True)
class ReconstructionConfig:
    """Weights of the losses. `adversarial` starts at step `adversarial_from`; 0 turns it off."""

    gradient: float = 1.0
    gradient_scales: int = 3
    kl: float = 5e-4
    adversarial: float = 0.0
    adversarial_from: int = 1000
    discriminator_dim: int = 32

    def __post_init__(self) -> None:
        if min(self.gradient, self.kl, self.adversarial) < 0 or self.gradient_scales < 1:
            raise ConfigError("loss weights must not be negative, and gradient_scales must be at least 1")


def gradient_difference(
    a: Float[Tensor, "b c f h w"], b: Float[Tensor, "b c f h w"], num_scales: int
) -> Tensor:
    """Mean absolute error of the finite differences in x, y and time, averaged over `num_scales` scales, each
    half as large.

    The gradient difference loss of Mathieu et al. 2016 (eq. 6) on a pyramid: it measures edges of every size,
    not flat colour.
    """
    x = rearrange(a - b, "b c f h w -> (b f) c h w")
    num_frames = a.shape[2]
    total = x.new_zeros(())
    for scale in range(num_scales):
        if scale:
            x = F.avg_pool2d(x, 2)
        total = total + x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()
        if num_frames > 1:
            total = total + rearrange(x, "(b f) c h w -> b f c h w", f=num_frames).diff(dim=1).abs().mean()
        if min(x.shape[-2:]) < 8:
            break
    return total / num_scales


class Discriminator(nn.Module):
    """Scores patches of single frames as real (high) or reconstructed (low): PatchGAN (Isola et al. 2017)
    with spectral norm."""

    def __init__(self, dim: int):
        super().__init__()
        widths = (3, dim, 2 * dim, 4 * dim)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, after, 4, 2, 1)),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, video: Float[Tensor, "b c f h w"]) -> Tensor:
        """One score for each patch of each frame: (b*f, 1, h/8, w/8)."""
        return self.layers(rearrange(video, "b c f h w -> (b f) c h w"))


def adversarial_losses(discriminator: Discriminator, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's and the discriminator's hinge loss (Lim and Ye 2017) for one backward pass.

    The generator's loss uses detached discriminator weights, and the discriminator's loss a detached video,
    so that their sum has the right gradient for both.
    """
    frozen = {name: value.detach() for name, value in discriminator.state_dict(keep_vars=True).items()}
    generator_loss = -functional_call(discriminator, frozen, (fake,)).mean()
    discriminator_loss = (
        F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake.detach())).mean()
    )
    return generator_loss, discriminator_loss
