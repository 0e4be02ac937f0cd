"""A patch discriminator of frames and their differences, and perceptual gradients that need no weights to
tune.

Hinge loss (Lim and Ye 2017) on PatchGAN (Isola et al. 2017) with spectral norm, and feature matching
(Salimans et al. 2016) on its layers. The adversarial and the matching gradient are brought to the norm of the
reconstruction's where all three meet, at the generated pixels; VQGAN (Esser et al. 2021, eq. 7) balances two
losses so at the last layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.shapes import Float


@dataclass(frozen=True)
class AdversarialConfig:
    """`weight` and `matching` are sizes of the gradients relative to the reconstruction's. `start` is the
    share of the run before them: the discriminator then learns alone for `warmup_steps`, and its strength
    rises over as many more. It reads `num_frames` frames a clip.
    """

    weight: float = 0.5
    matching: float = 1.0
    start: float = 0.7
    warmup_steps: int = 80
    num_frames: int = 4
    dim: int = 32

    def __post_init__(self) -> None:
        if (
            min(self.weight, self.matching, self.start) < 0
            or min(self.warmup_steps, self.num_frames, self.dim) < 1
        ):
            raise ConfigError(f"{self}: weights and start must not be negative, and all counts at least 1")

    def strength(self, steps_in: int) -> float:
        """The factor on both gradients `steps_in` steps after the start: 0 for `warmup_steps`, then rising to
        1.
        """
        return min(1.0, max(0.0, steps_in / self.warmup_steps - 1))


class PairDiscriminator(nn.Module):
    """Scores patches of frames, each with its difference from the frame before, as real (high) or generated
    (low).
    """

    def __init__(self, dim: int):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.ModuleList(
            [norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise((6, dim, 2 * dim, 4 * dim))]
        )
        self.score = nn.Conv2d(4 * dim, 1, 3, 1, 1)

    def forward(self, pairs: Float[Tensor, "n 6 h w"]) -> tuple[Float[Tensor, "n 1 h2 w2"], list[Tensor]]:
        """A score for each patch of 8x8 pixels, and the layers' outputs."""
        features, x = [], pairs
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x), features


def pairs_of(video: Float[Tensor, "b 3 f h w"], frames: Tensor) -> Float[Tensor, "n 6 h w"]:
    """The frames of these indices (1 or more), each stacked with its difference from the frame before it."""
    frames = frames.to(video.device)
    now = video[:, :, frames]
    return rearrange(torch.cat([now, now - video[:, :, frames - 1]], dim=1), "b c f h w -> (b f) c h w")


def perceptual_gradient(
    discriminator: PairDiscriminator,
    fake: Tensor,
    real_pairs: Tensor,
    frames: Tensor,
    reference: Tensor,
    config: AdversarialConfig,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The sum of the adversarial and the matching gradient at `fake`, each of `config`'s size relative to the
    norm of `reference`.

    The matching gradient's reference is `reference` plus the adversarial one. `fake` requires a gradient; the
    discriminator gets none.
    """
    score, features = discriminator(pairs_of(fake, frames))
    with torch.no_grad():
        _, wanted = discriminator(real_pairs)
    adversarial = -score.float().mean()
    terms = [(a.float() - b.float()).abs().mean() for a, b in zip(features, wanted, strict=True)]
    matching = torch.stack(terms).mean()

    (towards_real,) = torch.autograd.grad(adversarial, fake, retain_graph=True)
    (towards_features,) = torch.autograd.grad(matching, fake)
    total = config.weight * _scaled(towards_real, reference)
    total = total + config.matching * _scaled(towards_features, reference + total)
    return total, {"generator": adversarial.detach(), "matching": matching.detach()}


def discriminator_loss(discriminator: PairDiscriminator, real_pairs: Tensor, fake_pairs: Tensor) -> Tensor:
    """The hinge loss of the discriminator; `fake_pairs` are detached."""
    real, _ = discriminator(real_pairs)
    fake, _ = discriminator(fake_pairs)
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def _scaled(gradient: Tensor, reference: Tensor) -> Tensor:
    """`gradient` with the norm of `reference`."""
    return gradient * (reference.norm() / gradient.norm().clamp_min(1e-12)).clamp(max=1e4)
