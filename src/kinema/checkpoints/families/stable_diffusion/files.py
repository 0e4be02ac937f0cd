"""The folder of an image model: its variant, its limits and sampling defaults, and how it is sampled, read
from configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kinema.checkpoints.families.base import SamplingRules
from kinema.checkpoints.image_configs import (
    image_dit_config_from_diffusers,
    image_vae_config_from_diffusers,
    unet_config_from_diffusers,
)
from kinema.checkpoints.manifest import CONFIG, DIFFUSERS_PREDICTIONS, INDEX, Manifest
from kinema.checkpoints.tensors import TensorFiles, component_files
from kinema.diffusion.schedules import SCHEDULES, DDPMTable, Spacing, TimestepGrid
from kinema.errors import ConfigError, ModelError
from kinema.files import read_json
from kinema.models.image_dit import ImageDiTConfig
from kinema.models.image_vae import ImageVAEConfig
from kinema.models.unet import UNetConfig


@dataclass(frozen=True)
class Variant:
    """Names and defaults of the published models of one kind."""

    title: str
    licence: str
    backbone: str
    """The folder of the backbone."""
    encoders: tuple[str, ...]
    """The folders of the text encoders."""
    guidance: float


SD_ENCODERS, XL_ENCODERS = ("text_encoder",), ("text_encoder", "text_encoder_2")
SD = Variant("Stable Diffusion", "CreativeML OpenRAIL-M", "unet", SD_ENCODERS, 7.5)
XL = Variant("Stable Diffusion XL", "CreativeML OpenRAIL++-M", "unet", XL_ENCODERS, 5.0)
VARIANTS = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionXLPipeline": XL,
    "StableDiffusionXLImg2ImgPipeline": XL,
    "DiTPipeline": Variant("DiT", "CC-BY-NC-4.0", "transformer", (), 4.0),
}
"""The variants by the class in model_index.json."""
REFUSED = {
    "UnCLIP": "the decoder of Karlo is another dialect of U-Nets",
    "StableUnCLIP": "unCLIP generates from the embedding of an image, which is not read yet",
    "IF": "DeepFloyd IF generates pixels with another dialect of U-Nets",
    "Kandinsky": "Kandinsky has another dialect of U-Nets",
    "StableDiffusion": "only text to image and image to image are read, without ControlNet",
}
"""Why pipelines whose class begins with a word are not read."""
STEPS = 30
SAMPLERS = {"DPMSolverMultistepScheduler": "dpmpp_2m", "UniPCMultistepScheduler": "unipc"} | dict.fromkeys(
    ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"), "euler"
)
"""The sampler for a scheduler of diffusers. Of the others it is ddim."""
SIGMA_SCHEDULERS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler")
"""Schedulers that end without noise and count timesteps as "linspace" unless they say otherwise."""


@dataclass(frozen=True)
class ImageFiles:
    """An image model in files."""

    path: Path
    variant: Variant
    index: Mapping[str, Any]
    backbone: UNetConfig | ImageDiTConfig
    vae: ImageVAEConfig
    manifest: Manifest
    rules: SamplingRules

    @property
    def components(self) -> dict[str, TensorFiles]:
        """The tensors of every component by the name of its folder."""
        names = (self.variant.backbone, "vae", *self.variant.encoders)
        return {name: tensors_in(self.path / name) for name in names}


def tensors_in(folder: Path) -> TensorFiles:
    """The tensors of a component in any of the names of its file. Raises `ModelError` if there are none."""
    stems = ("diffusion_pytorch_model", "model")
    for stem in stems:
        for ending in (".safetensors", ".fp16.safetensors"):
            if (folder / (stem + ending)).is_file() or (folder / f"{stem}{ending}.index.json").is_file():
                return TensorFiles(component_files(folder, stem + ending))
    raise ModelError(f"{folder} has no {stems[0]}.safetensors and no {stems[1]}.safetensors")


def pipeline_class(path: Path) -> str | None:
    """The class in model_index.json if it is an image model of diffusers, read or refused."""
    if not (path / INDEX).is_file():
        return None
    name = str(read_json(path / INDEX).get("_class_name"))
    return name if name in VARIANTS or name.startswith(tuple(REFUSED)) else None


def read_files(path: Path) -> ImageFiles:
    """The image model in a folder. Raises `ModelError` for one that is not supported."""
    name = pipeline_class(path)
    if name not in VARIANTS:
        reason = next(reason for start, reason in REFUSED.items() if str(name).startswith(start))
        raise ModelError(f"{path} is a {name}, which is not supported: {reason}")

    variant, index = VARIANTS[name], read_json(path / INDEX)
    values = _config(path / variant.backbone)
    vae = _read(path / "vae", image_vae_config_from_diffusers)
    if variant.backbone == "unet":
        backbone: UNetConfig | ImageDiTConfig = _read(path / "unet", unet_config_from_diffusers)
    else:
        backbone = _read(path / "transformer", image_dit_config_from_diffusers)
    if index.get("requires_aesthetics_score"):
        raise ModelError(
            f"{path} is the refiner of SDXL, which continues images of the base model: use the base"
        )
    if backbone.in_channels != vae.z_dim:
        raise ModelError(
            f"{path}: the backbone takes {backbone.in_channels} channels, and latents have {vae.z_dim}: "
            "models with a picture beside the latents are not supported"
        )

    manifest, rules = _sampling(
        path, variant, _config(path / "scheduler", "scheduler_config.json"), values, vae
    )
    return ImageFiles(path, variant, index, backbone, vae, manifest, rules)


def _sampling(
    path: Path,
    variant: Variant,
    scheduler: Mapping[str, Any],
    backbone: Mapping[str, Any],
    vae: ImageVAEConfig,
) -> tuple[Manifest, SamplingRules]:
    """The manifest of a model, and how it is sampled."""
    kind, prediction = scheduler["_class_name"], scheduler.get("prediction_type", "epsilon")
    predictions = {theirs: ours for ours, theirs in DIFFUSERS_PREDICTIONS.items()}
    if prediction not in predictions or prediction == "flow_prediction":
        raise ModelError(
            f"{path}: prediction_type = {prediction!r} is not one of epsilon, v_prediction and sample"
        )

    is_dit = variant.backbone == "transformer"
    side = backbone.get("sample_size", 64) * vae.spatial_factor
    multiple = vae.spatial_factor * (backbone["patch_size"] if is_dit else 1)
    low, high = (side, side) if is_dit else (min(256, side), max(1024, side))
    manifest = Manifest(
        name=path.resolve().name,
        licence=variant.licence,
        fps=1.0,
        sides=(low, high, multiple),
        frames=(1, 1),
        default_size=(side, side),
        default_frames=1,
        schedule=_schedule(path, scheduler),
        prediction=predictions[prediction],
        sampler=SAMPLERS.get(kind, "ddim"),
        steps=STEPS,
        guidance=variant.guidance,
        time_per_token=False,
    )
    has_sigmas = kind in SIGMA_SCHEDULERS
    spacing = scheduler.get("timestep_spacing", "linspace" if has_sigmas else "leading")
    ends_at_zero = has_sigmas or scheduler.get("set_alpha_to_one", kind == "DDIMScheduler")
    grid = TimestepGrid(
        cast(Spacing, spacing), scheduler.get("steps_offset", 0), 0.0 if ends_at_zero else 0.001
    )
    return manifest, SamplingRules(grid=grid)


def _schedule(path: Path, scheduler: Mapping[str, Any]) -> str:
    """The name of the noise schedule in `SCHEDULES`. Raises `ModelError` for other betas."""
    curve = {"scaled_linear": "sqrt_linear"}.get(scheduler["beta_schedule"], scheduler["beta_schedule"])
    steps = scheduler.get("num_train_timesteps", 1000)
    betas = (steps, scheduler["beta_start"], scheduler["beta_end"], curve)
    for name in ("latent_diffusion", "ddpm_table"):
        table = cast(DDPMTable, SCHEDULES[name]())
        if betas == (table.num_steps, table.beta_start, table.beta_end, table.curve):
            return name
    raise ModelError(f"{path}: betas of {betas} are not those of a noise schedule here")


def _config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    return read_json(folder / name)


def _read(folder: Path, parse: Any) -> Any:
    """The configuration of a component. Raises `ModelError` that names the file."""
    try:
        return parse(_config(folder))
    except KeyError as error:
        raise ModelError(f"{folder / CONFIG}: {error} is missing") from None
    except (ConfigError, ModelError) as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from None
