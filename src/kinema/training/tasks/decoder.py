"""Training a new decoder for the latents of a VAE whose encoder stays as it is, so that a DiT of these
latents stays valid.

Clips are fresh in every step. Each is encoded whole and gives several crops, most of them around a sprite,
whose pixels weigh more in the absolute error. Late in the run a patch discriminator and its features join:
absolute error alone answers doubt about the place of an edge with blur.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, load_vae, save_component
from kinema.checkpoints.folders import resolve_model
from kinema.config import check_range
from kinema.data.latents import Shape
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.world_clips import draw_clips, to_tensor
from kinema.errors import ConfigError
from kinema.models.pixels import psnr
from kinema.models.subpixel_decoder import SubpixelConfig
from kinema.models.vae import VAE
from kinema.shapes import Float
from kinema.training.adversarial import (
    AdversarialConfig,
    PairDiscriminator,
    discriminator_loss,
    pairs_of,
    perceptual_gradient,
)
from kinema.training.task import BenchmarkBatch, Recipe
from kinema.training.tasks.vae import save_reconstructions
from kinema.worlds import HasObjectMasks, WorldConfig, make_world

MASK_MARGIN = 3
"""Pixels by which the mask of the objects is grown on each side."""


@dataclass(frozen=True)
class CropKind:
    """One kind of step: `num_clips` clips of `num_frames` frames, and of each `num_crops` squares of `crop`
    pixels (None: whole frames).
    """

    share: float
    num_frames: int
    num_clips: int
    num_crops: int = 1
    crop: int | None = 64

    def __post_init__(self) -> None:
        if (
            self.share <= 0
            or min(self.num_frames, self.num_clips, self.num_crops) < 1
            or (self.crop is not None and self.crop < 1)
        ):
            raise ConfigError(f"{self}: share must be positive, and all sizes at least 1")


@dataclass(frozen=True)
class DecoderData:
    """What steps are made of. `near_object` is the share of crops with an object in them, `wide_share` the
    share of clips of the world `wide`, and `noise` the factor on the standard deviation with which latents
    are drawn from the posterior.
    """

    shapes: tuple[Shape, ...] = (Shape(128, 128),)
    kinds: tuple[CropKind, ...] = (CropKind(1.0, 17, 4, 3),)
    near_object: float = 0.85
    wide_share: float = 0.15
    noise: float = 0.5
    held_out_clips: int = 48

    def __post_init__(self) -> None:
        if not self.shapes or not self.kinds:
            raise ConfigError("shapes and kinds must not be empty")
        check_range(self, ("held_out_clips",), 1)
        check_range(self, ("noise",), 0)
        check_range(self, ("near_object", "wide_share"), 0, 1)


@dataclass(frozen=True)
class DecoderRecipe(Recipe):
    """Everything of a decoder run. `vae` is "shipped" or a folder; its encoder and its latents' statistics
    are kept.
    """

    task: str = "decoder"
    vae: str = "shipped"
    world: WorldConfig = field(default_factory=WorldConfig)
    wide: WorldConfig = field(default_factory=WorldConfig)
    model: SubpixelConfig = field(default_factory=SubpixelConfig)
    data: DecoderData = field(default_factory=DecoderData)
    object_weight: float = 6.0
    """Pixels of an object weigh 1 + this in the absolute error."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)


class VAEAndPairDiscriminator(nn.Module):
    """What the optimizer sees: the VAE with its frozen encoder, and the discriminator."""

    def __init__(self, vae: VAE, discriminator: PairDiscriminator):
        super().__init__()
        self.vae, self.discriminator = vae, discriminator


class DecoderTask:
    """See `kinema.training.task.TrainingTask`."""

    def __init__(self, recipe: DecoderRecipe):
        self.recipe = recipe
        released = load_vae(resolve_model(recipe.vae))
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        vae = VAE(dataclasses.replace(released.config, subpixel=recipe.model))
        for mine, theirs in ((vae.encoder, released.encoder), (vae.quant_conv, released.quant_conv)):
            mine.load_state_dict(theirs.state_dict())
            mine.requires_grad_(False)
        self._check_sizes(vae)
        self.model = VAEAndPairDiscriminator(vae, PairDiscriminator(recipe.adversarial.dim))
        self.world, self.wide = world_with_masks(recipe.world), world_with_masks(recipe.wide)

    def _check_sizes(self, vae: VAE) -> None:
        space, pace, data = vae.config.spatial_factor, vae.config.temporal_factor, self.recipe.data
        for shape in data.shapes:
            if shape.height % space or shape.width % space:
                raise ConfigError(
                    f"a shape of {shape.height}x{shape.width} does not fit the VAE: use multiples of {space}"
                )
        for kind in data.kinds:
            if (kind.num_frames - 1) % pace or (kind.crop or 0) % space:
                raise ConfigError(
                    f"{kind} does not fit the VAE: frames must be {pace}k+1 and crops multiples of {space}"
                )
            if (kind.crop or 0) > min(min(shape.height, shape.width) for shape in data.shapes):
                raise ConfigError(f"{kind} does not fit into the smallest of the shapes")

    def prepare(self, out: Path, device: torch.device) -> None:
        """Nothing: clips are drawn as they are needed."""

    def batch(self, step: int) -> Batch:
        """Whole clips (n, 3, f, h, w), masks of their objects (n, 1, f, h, w), and the corners of their crops
        in latents, [(y, x), ...] a clip.
        """
        data, rng = self.recipe.data, numpy_rng(self.recipe.run.seed, "batch", step)
        kind, shape = _drawn(data.kinds, rng), _drawn(data.shapes, rng)
        clips, masks, corners = [], [], []
        for _ in range(kind.num_clips):
            world = self.wide if rng.random() < data.wide_share else self.world
            seed, size = (
                int(rng.integers(2**40)),
                {"height": shape.height, "width": shape.width, "num_frames": kind.num_frames},
            )
            clip = draw_clips(world, "decoder", [seed], **size)[0]
            mask = world.object_mask(clip, **size)
            clips.append(clip)
            masks.append(torch.from_numpy(mask.astype(np.float32))[None])
            corners.append([self._corner(mask, kind.crop, rng) for _ in range(kind.num_crops)])
        return {
            "video": to_tensor(clips),
            "mask": torch.stack(masks),
            "corners": corners,
            "crop": kind.crop,
            "step": step,
        }

    def _corner(self, mask: np.ndarray, crop: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """The first latent row and column of a crop: with probability `near_object` a pixel of a random
        frame's mask is in it.
        """
        factor = self.model.vae.config.spatial_factor
        if crop is None:
            return 0, 0
        room = [size // factor - crop // factor for size in mask.shape[1:]]
        inside = np.argwhere(mask[rng.integers(len(mask))])
        if not len(inside) or rng.random() >= self.recipe.data.near_object:
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        centre = inside.mean(axis=0) // factor
        y, x = (int(np.clip(centre[i] - rng.integers(crop // factor), 0, room[i])) for i in (0, 1))
        return y, x

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The weighted absolute error, and from `adversarial.start` of the run on the discriminator's part of
        the gradient and its own loss.

        The gradients meet at the decoder's pixels, where the perceptual ones are brought to the norm of the
        absolute error's.
        """
        assert isinstance(model, VAEAndPairDiscriminator), "the decoder task trains VAEAndPairDiscriminator"
        real, mask, z = self._crops(model.vae, batch, generator)
        made = model.vae.decode(z)
        fake = made.detach().float().requires_grad_()
        weight = 1 + self.recipe.object_weight * mask
        absolute = ((fake - real).abs() * weight).mean() / weight.mean()
        (gradient,) = torch.autograd.grad(absolute, fake)
        metrics: dict[str, Tensor | float] = {
            "l1": absolute.detach(),
            "psnr": psnr(fake.detach(), real),
            "object_psnr": psnr((fake.detach() * mask), real * mask)
            + 10 * torch.log10(mask.mean().clamp_min(1e-8)),
        }
        total = absolute.detach()

        steps_in = batch["step"] - round(self.recipe.adversarial.start * self.recipe.run.steps)
        if steps_in >= 0 and real.shape[2] > 1:
            config = self.recipe.adversarial
            frames = (
                1 + torch.randperm(real.shape[2] - 1, generator=generator)[: config.num_frames].sort().values
            )
            real_pairs = pairs_of(real, frames)
            if (strength := config.strength(steps_in)) > 0:
                more, seen = perceptual_gradient(
                    model.discriminator, fake, real_pairs, frames, gradient, config
                )
                gradient = gradient + strength * more
                metrics |= seen
            judged = discriminator_loss(
                model.discriminator, real_pairs, pairs_of(made.detach().float(), frames)
            )
            total = total + judged
            metrics["discriminator"] = judged.detach()

        # A term of value zero whose gradient at the decoder's pixels is `gradient`.
        made = made.float()
        return total + ((made - made.detach()) * gradient).sum(), metrics

    def _crops(self, vae: VAE, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of pixels and of masks grown by `MASK_MARGIN`, and their latents, drawn with the posterior's
        noise times `noise`.
        """
        with torch.no_grad():
            posterior = vae.encode(batch["video"])
        factor, crop = vae.config.spatial_factor, batch["crop"]
        lh, lw = posterior.mean.shape[3:] if crop is None else (crop // factor, crop // factor)

        def cut(tensor: Tensor, scale: int) -> Tensor:
            squares = [
                clip[:, :, y * scale : (y + lh) * scale, x * scale : (x + lw) * scale]
                for clip, places in zip(tensor, batch["corners"], strict=True)
                for y, x in places
            ]
            return torch.stack(squares)

        mean, std = cut(posterior.mean.float(), 1), cut(torch.exp(0.5 * posterior.logvar.float()), 1)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        size = 2 * MASK_MARGIN + 1
        grown = F.max_pool3d(batch["mask"], (1, size, size), 1, (0, MASK_MARGIN, MASK_MARGIN))
        return cut(batch["video"], factor), cut(grown, factor), mean + self.recipe.data.noise * std * noise

    def _held_out(self, count: int) -> Float[Tensor, "b 3 f h w"]:
        shape, frames = self.recipe.data.shapes[0], self.recipe.data.kinds[0].num_frames
        clips = draw_clips(
            self.world.in_split("held_out"),
            "decoder-held-out",
            range(count),
            height=shape.height,
            width=shape.width,
            num_frames=frames,
        )
        return to_tensor(clips)

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Held-out clips above what the VAE makes of them."""
        assert isinstance(model, VAEAndPairDiscriminator), "the decoder task trains VAEAndPairDiscriminator"
        save_reconstructions(model.vae, self._held_out(6), "held-out clip", path, device)

    @torch.no_grad()
    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """The VAE in bfloat16, with the statistics of its latents unchanged, and its PSNR on held-out clips
        (of the mean squared error).
        """
        assert isinstance(model, VAEAndPairDiscriminator), "the decoder task trains VAEAndPairDiscriminator"
        errors = []
        for clip in self._held_out(self.recipe.data.held_out_clips).to(device).split(1):
            errors.append(
                (model.vae.decode(model.vae.encode(clip).mean, clamp=True) - clip).square().mean().item()
            )
        score = round(float(10 * np.log10(4 / np.mean(errors))), 2)
        save_component(folder, model.vae, card={**training, "psnr_held_out_db": score}, dtype=torch.bfloat16)

    def init_from(self, folder: Path) -> None:
        """The weights of a VAE with a decoder of these sizes; raises `ConfigError` when its encoder is
        another one.
        """
        vae = load_component(folder, VAE)
        for name, weight in self.model.vae.encoder.state_dict().items():
            if not torch.equal(weight, vae.encoder.state_dict()[name]):
                raise ConfigError(f"{folder} has another encoder than the recipe's vae = {self.recipe.vae!r}")
        self.model.vae.load_state_dict(vae.state_dict())

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """A step of each kind, with the discriminator."""
        rows = []
        shape, config = self.recipe.data.shapes[0], self.model.vae.config
        for kind in self.recipe.data.kinds:
            height, width = (kind.crop, kind.crop) if kind.crop else (shape.height, shape.width)
            sizes = (kind.num_clips, 3, kind.num_frames, shape.height, shape.width)
            video = torch.rand(sizes, generator=torch_rng("plan")) * 2 - 1
            batch = {
                "video": video,
                "mask": (video[:, :1] > 0.5).float(),
                "corners": [[(0, 0)] * kind.num_crops] * kind.num_clips,
                "crop": kind.crop,
                "step": self.recipe.run.steps,
            }
            num_crops = kind.num_clips * kind.num_crops
            latent_frames = 1 + (kind.num_frames - 1) // config.temporal_factor
            num_positions = num_crops * latent_frames * height * width // config.spatial_factor**2
            name = f"{num_crops} crops {width}x{height}x{kind.num_frames} of {kind.num_clips} clips"
            rows.append(BenchmarkBatch(name, batch, num_positions))
        return rows


def world_with_masks(config: WorldConfig) -> HasObjectMasks:
    """The world of a table. Raises `ConfigError` if it has no object masks."""
    world = make_world(config)
    if not isinstance(world, HasObjectMasks):
        raise ConfigError(f"the world '{world.name}' has no object masks, which a decoder needs")
    return world


def _drawn(options: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the options, each as often as its `share` says."""
    shares = np.array([option.share for option in options])
    return options[int(rng.choice(len(options), p=shares / shares.sum()))]
