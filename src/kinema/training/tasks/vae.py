"""Trains the VAE on images and short crops of a world or of a data set, with reconstruction losses and KL.

The mean and std of the latents are measured at the end.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.checkpoints.components import load_component, save_component
from kinema.config import check_range
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.errors import ConfigError
from kinema.models.pixels import psnr, to_uint8
from kinema.models.vae import VAE, VAEConfig
from kinema.shapes import Float
from kinema.training.losses import (
    Discriminator,
    ReconstructionConfig,
    adversarial_losses,
    gradient_difference,
)
from kinema.training.task import BenchmarkBatch, Recipe
from kinema.training.tasks.pixel_sources import Crops, DatasetCrops, WorldCrops
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import WorldConfig, make_world


@dataclass(frozen=True)
class VAEData:
    """Side lengths in pixels of a world's frames and of the crops, frames per clip (4k+1), batch sizes, and
    the share of image steps.

    `stats_clips` clips measure the latents and the PSNR: held-out clips of a world, or the first clips of a
    data set. Raises `ConfigError` for values out of range.
    """

    size: int = 128
    crop: int = 64
    num_frames: int = 9
    clip_batch: int = 8
    image_batch: int = 16
    image_share: float = 0.5
    stats_clips: int = 64

    def __post_init__(self) -> None:
        check_range(self, ("size", "crop", "num_frames", "clip_batch", "image_batch", "stats_clips"), 1)
        check_range(self, ("image_share",), 0, 1)


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """All settings of a VAE run. With `dataset` it trains on the pixels of a data set instead of a world."""

    task: str = "vae"
    dataset: str | None = None
    world: WorldConfig = field(default_factory=WorldConfig)
    model: VAEConfig = field(default_factory=VAEConfig)
    data: VAEData = field(default_factory=VAEData)
    loss: ReconstructionConfig = field(default_factory=ReconstructionConfig)

    def unused_settings(self) -> dict[str, str]:
        """The settings that this run does not read, each with the reason."""
        return {} if self.dataset is None else dict.fromkeys(("world", "data.size"), "a run on a data set")


class VAEAndDiscriminator(nn.Module):
    """All trained parameters: those of the VAE, and of the discriminator if the run has one."""

    def __init__(self, vae: VAE, discriminator: Discriminator | None):
        super().__init__()
        self.vae, self.discriminator = vae, discriminator


class VAETask:
    """Trains a VAE. See `kinema.training.task.TrainingTask`.

    Raises `ConfigError` when sizes or lengths do not fit the VAE's factors.
    """

    def __init__(self, recipe: VAERecipe):
        self.recipe = recipe
        data, factor, stride = recipe.data, recipe.model.spatial_factor, recipe.model.temporal_factor
        size = data.size if recipe.dataset is None else data.crop
        if size % factor or data.crop % factor or (data.num_frames - 1) % stride:
            raise ConfigError(
                f"size = {size}, crop = {data.crop}, num_frames = {data.num_frames} do not fit the VAE: "
                f"use multiples of {factor} pixels and {stride}k+1 frames"
            )

        crops = {"crop": data.crop, "num_frames": data.num_frames}
        self.crops: Crops = (
            WorldCrops(make_world(recipe.world), size=data.size, **crops)
            if recipe.dataset is None
            else DatasetCrops(recipe.dataset, **crops, factors=(factor, stride))
        )
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        discriminator = Discriminator(recipe.loss.discriminator_dim) if recipe.loss.adversarial else None
        self.model = VAEAndDiscriminator(VAE(recipe.model), discriminator)
        self.released: VAEConfig | None = None

    def prepare(self, out: Path, device: torch.device) -> None:
        """Nothing to prepare: clips are drawn when they are needed."""

    def batch(self, step: int) -> Batch:
        """{"video": (b, 3, f, h, w), "step"}: crops of single frames or of clips."""
        data, rng = self.recipe.data, numpy_rng(self.recipe.run.seed, "batch", step)
        is_image = bool(rng.random() < data.image_share)
        count = data.image_batch if is_image else data.clip_batch
        video = self.crops.draw(rng, count, 1 if is_image else data.num_frames)
        return {"video": video, "step": step}

    def loss(
        self, model: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Absolute error, gradient difference and KL; the adversarial losses from step `adversarial_from`
        on."""
        assert isinstance(model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        config, video = self.recipe.loss, batch["video"]
        posterior = model.vae.encode(video)
        fake = model.vae.decode(posterior.sample(generator))

        absolute = (fake - video).abs().mean()
        gradient = gradient_difference(fake, video, config.gradient_scales)
        kl = posterior.kl().mean()
        loss = absolute + config.gradient * gradient + config.kl * kl
        metrics = {
            "l1": absolute.detach(),
            "gradient": gradient.detach(),
            "kl": kl.detach(),
            "psnr": psnr(fake.detach(), video),
        }

        if model.discriminator is not None and batch["step"] >= config.adversarial_from:
            generator_loss, discriminator_loss = adversarial_losses(model.discriminator, video, fake)
            loss = loss + config.adversarial * generator_loss + discriminator_loss
            metrics |= {"generator": generator_loss.detach(), "discriminator": discriminator_loss.detach()}
        return loss, metrics

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of clips, each above its reconstruction."""
        assert isinstance(model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        title = f"{self.crops.measured_on.replace('_', '-')} clip"
        save_reconstructions(model.vae, self.crops.measured(4), title, path, device)

    @torch.no_grad()
    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the VAE, with the mean and std of each latent channel and the PSNR of `Crops.measured`.

        A frozen encoder keeps the mean and std of the weights that the run started from, because a DiT was
        trained on its latents.
        """
        assert isinstance(model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        latents, scores = [], []
        for clip in self.crops.measured(self.recipe.data.stats_clips).split(8):
            z = model.vae.encode(clip.to(device)).mean
            back = model.vae.decode(z).clamp(-1, 1)
            scores += [psnr(b, a).item() for a, b in zip(clip.to(device), back)]
            latents.append(z.float().cpu())

        mean, std = _mean_and_std(torch.cat(latents))
        is_frozen = not any(weight.requires_grad for weight in self.model.vae.encoder.parameters())
        if self.released is not None and is_frozen:
            mean, std = self.released.latents_mean, self.released.latents_std

        config = dataclasses.replace(self.recipe.model, latents_mean=mean, latents_std=std)
        measured = VAE(config)
        measured.load_state_dict(model.vae.state_dict())
        psnr_db = round(sum(scores) / len(scores), 2)
        save_component(folder, measured, card={**training, f"psnr_{self.crops.measured_on}_db": psnr_db})

    def init_from(self, folder: Path) -> None:
        """Load the VAE weights of a released folder."""
        assert isinstance(self.model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        vae = load_component(folder, VAE)
        self.model.vae.load_state_dict(vae.state_dict())
        self.released = vae.config

    def benchmark_batches(self) -> list[BenchmarkBatch]:
        """An image batch and a clip batch."""
        data, step = self.recipe.data, self.recipe.loss.adversarial_from
        images = f"{data.image_batch} images {data.crop}x{data.crop}"
        clips = f"{data.clip_batch} clips {data.crop}x{data.crop}x{data.num_frames}"
        kinds = ((images, data.image_batch, 1), (clips, data.clip_batch, data.num_frames))
        rows = []

        for name, count, frames in kinds:
            video = torch.rand(count, 3, frames, data.crop, data.crop, generator=torch_rng("plan")) * 2 - 1
            latent_frames = 1 + (frames - 1) // self.recipe.model.temporal_factor
            num_positions = count * latent_frames * (data.crop // self.recipe.model.spatial_factor) ** 2
            rows.append(BenchmarkBatch(name, {"video": video, "step": step}, num_positions))
        return rows


@torch.no_grad()
def save_reconstructions(
    vae: VAE, clips: Float[Tensor, "b 3 f h w"], title: str, path: Path, device: torch.device
) -> None:
    """Write a contact sheet of clips, each above its reconstruction with the PSNR."""
    videos, titles = [], []
    for clip in clips:
        back = vae.decode(vae.encode(clip[None].to(device)).mean)[0]
        videos += [Video(to_uint8(clip), 8.0), Video(to_uint8(back), 8.0)]
        titles += [title, f"reconstructed, {psnr(back.cpu().clamp(-1, 1), clip).item():.1f} dB"]
    save_image(path, contact_sheet(videos, titles, columns=1, frames_per_video=5))


def _mean_and_std(latents: Float[Tensor, "b z lf lh lw"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each latent channel."""
    return tuple(latents.mean(dim=(0, 2, 3, 4)).tolist()), tuple(latents.std(dim=(0, 2, 3, 4)).tolist())
