"""Trains the VAE on images and short crops of a world, with reconstruction losses and KL.

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
from kinema.data.seeds import Batch, derive_seed, numpy_rng, torch_rng
from kinema.data.world_clips import draw_clips, to_tensor
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
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import WorldConfig, make_world


@dataclass(frozen=True)
class VAEData:
    """Side lengths in pixels of frames and of their crops, frames per clip (4k+1), batch sizes, and the share
    of image steps.

    `stats_clips` held-out clips measure the latents and the PSNR. Raises `ConfigError` for values out of
    range.
    """

    size: int = 128
    crop: int = 64
    num_frames: int = 9
    clip_batch: int = 8
    image_batch: int = 16
    image_share: float = 0.5
    stats_clips: int = 64

    def __post_init__(self) -> None:
        for name in ("size", "crop", "num_frames", "clip_batch", "image_batch", "stats_clips"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is out of range: use 1 or more")
        if self.crop > self.size or not 0 <= self.image_share <= 1:
            raise ConfigError(
                f"crop = {self.crop} must be at most size = {self.size}, "
                f"and image_share = {self.image_share} a share from 0 to 1"
            )


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """All settings of a VAE run."""

    task: str = "vae"
    world: WorldConfig = field(default_factory=WorldConfig)
    model: VAEConfig = field(default_factory=VAEConfig)
    data: VAEData = field(default_factory=VAEData)
    loss: ReconstructionConfig = field(default_factory=ReconstructionConfig)


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
        if data.size % factor or data.crop % factor or (data.num_frames - 1) % stride:
            raise ConfigError(
                f"size = {data.size}, crop = {data.crop}, num_frames = {data.num_frames} do not fit the VAE: "
                f"use multiples of {factor} pixels and {stride}k+1 frames"
            )

        self.world = make_world(recipe.world)
        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        discriminator = Discriminator(recipe.loss.discriminator_dim) if recipe.loss.adversarial else None
        self.model = VAEAndDiscriminator(VAE(recipe.model), discriminator)
        self.released: VAEConfig | None = None

    def prepare(self, out: Path, device: torch.device) -> None:
        """Nothing to prepare: clips are drawn when they are needed."""

    def batch(self, step: int) -> Batch:
        """{"video": (b, 3, f, h, w), "step"}: crops of single frames or of clips.

        Many small crops show more of the world than few whole frames.
        """
        data, rng = self.recipe.data, numpy_rng(self.recipe.run.seed, "batch", step)
        is_image = bool(rng.random() < data.image_share)
        count = data.image_batch if is_image else data.clip_batch
        indices = [int(i) for i in rng.integers(2**40, size=count)]

        num_frames = 1 if is_image else data.num_frames
        video = to_tensor(
            draw_clips(self.world, "vae", indices, height=data.size, width=data.size, num_frames=num_frames)
        )

        if data.crop < data.size:
            corners = rng.integers(data.size - data.crop + 1, size=(count, 2))
            crops = [clip[:, :, y : y + data.crop, x : x + data.crop] for clip, (y, x) in zip(video, corners)]
            video = torch.stack(crops)
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

    def _held_out(self, count: int) -> Float[Tensor, "b 3 f h w"]:
        """Whole clips that training does not use."""
        data = self.recipe.data
        return to_tensor(
            draw_clips(
                self.world,
                "vae-held-out",
                range(count),
                height=data.size,
                width=data.size,
                num_frames=data.num_frames,
            )
        )

    @torch.no_grad()
    def sample(self, model: nn.Module, path: Path, device: torch.device) -> None:
        """Write a contact sheet of held-out clips, each above its reconstruction."""
        assert isinstance(model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        videos, titles = [], []
        for clip in self._held_out(4):
            back = model.vae.decode(model.vae.encode(clip[None].to(device)).mean)[0]
            videos += [Video(to_uint8(clip), 8.0), Video(to_uint8(back), 8.0)]
            titles += ["held-out clip", f"reconstructed, {psnr(back.cpu().clamp(-1, 1), clip).item():.1f} dB"]
        save_image(path, contact_sheet(videos, titles, columns=1, frames_per_video=5))

    @torch.no_grad()
    def export(self, model: nn.Module, folder: Path, device: torch.device, training: dict[str, Any]) -> None:
        """Write the VAE, with the mean and std of each latent channel and the PSNR on held-out clips.

        A frozen encoder keeps the mean and std of the weights that the run started from, because a DiT was
        trained on its latents.
        """
        assert isinstance(model, VAEAndDiscriminator), "the VAE task trains VAEAndDiscriminator"
        latents, scores = [], []
        for clip in self._held_out(self.recipe.data.stats_clips).split(8):
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
        save_component(folder, measured, card={**training, "psnr_held_out_db": psnr_db})

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


def _mean_and_std(latents: Float[Tensor, "b z lf lh lw"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each latent channel."""
    return tuple(latents.mean(dim=(0, 2, 3, 4)).tolist()), tuple(latents.std(dim=(0, 2, 3, 4)).tolist())
