"""What a diffusion run starts from: a new backbone, or a model with an adapter. `wan.py` has a third."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from kinema.checkpoints.adapters import LoRALinear, add_lora, read_lora, save_lora
from kinema.checkpoints.components import backbone_entry, config_of, load_backbone, load_vae
from kinema.checkpoints.families import find_family
from kinema.checkpoints.families.base import SamplingRules
from kinema.checkpoints.families.kinema import KINEMA
from kinema.checkpoints.folders import resolve_model, save_model
from kinema.checkpoints.manifest import CARD, MANIFEST, Manifest, load_card, load_manifest
from kinema.checkpoints.text_encoders import TextSource, text_source
from kinema.data.seeds import derive_seed
from kinema.errors import ConfigError
from kinema.files import atomic_folder, write_json
from kinema.models.clip import CLIP
from kinema.models.conditioning import TextEncoder
from kinema.models.vae import VAE
from kinema.training.tasks.diffusion.recipe import DiffusionRecipe, LoRARecipe
from kinema.training.tasks.diffusion.text import frozen_text, prepared_text

LORA = "lora.safetensors"


class Start(Protocol):
    """The network that a diffusion run trains, and the frozen networks beside it."""

    @property
    def recipe(self) -> DiffusionRecipe:
        """The recipe with the settings that follow from a base model."""

    @property
    def model(self) -> nn.Module:
        """The trained network, a `Backbone`."""

    @property
    def vae(self) -> VAE:
        """The VAE of the latents."""

    @property
    def text(self) -> TextEncoder | None:
        """The encoder of captions. None: their states are made by `prepare_text`."""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the base model. None: that of the run."""

    def prepare_text(self, cache: Path, device: torch.device, captions: Iterable[str]) -> TextEncoder:
        """The encoder of `captions` on `device`. States that are stored are in a folder in `cache`."""

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1]."""

    def sampling_rules(self) -> SamplingRules:
        """How sample clips are generated. Raises `TrainingError` if they cannot be."""

    def export(self, model: nn.Module, folder: Path, manifest: Manifest, training: dict[str, Any]) -> None:
        """Write the averaged model in its release form."""

    def init_from(self, folder: Path) -> None:
        """Load the weights, and only the weights, of an exported folder."""


class NewModel:
    """A new backbone between a VAE and a CLIP. See `Start`.

    `words` are those of the world that the run draws its captions from; None for other captions.
    """

    manifest = None

    def __init__(self, recipe: DiffusionRecipe, words: Sequence[str] | None) -> None:
        self.recipe = recipe
        vae, clip = resolve_model(recipe.vae), resolve_model(recipe.clip)
        self.vae, self.cards = frozen_vae(vae), {"vae": _card(vae, "vae")}
        if recipe.text:
            self.encoder: CLIP | TextSource = text_source(recipe.text)
        else:
            self.encoder = frozen_text(clip, words)
            self.cards["clip"] = _card(clip, "clip")
        self.text = self.encoder if isinstance(self.encoder, CLIP) else None

        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        channels = self.vae.config.z_dim
        self.model = recipe.backbone_entry.build(
            recipe.model,
            in_channels=channels,
            out_channels=channels,
            text_dim=self.encoder.text_width,
            text_length=self.encoder.max_length,
        )

    def prepare_text(self, cache: Path, device: torch.device, captions: Iterable[str]) -> TextEncoder:
        """The CLIP on `device`, or the stored states of another encoder."""
        return prepared_text(self.encoder, cache, device, captions)

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1]."""
        return self.recipe.diffusion.draw_times(count, generator)

    def sampling_rules(self) -> SamplingRules:
        """Those of every model of Kinema."""
        return SamplingRules()

    def export(self, model: nn.Module, folder: Path, manifest: Manifest, training: dict[str, Any]) -> None:
        """Write a model folder: the averaged backbone with the VAE and the CLIP of the run."""
        card = {"notes": self.recipe.notes, "dit": training, **self.cards}
        save_model(folder, model, self.vae, self.encoder, replace(manifest, card=card))

    def init_from(self, folder: Path) -> None:
        """Load the weights of the backbone of a model folder, or of the model "shipped"."""
        backbone = load_backbone(resolve_model(str(folder)))
        if backbone.text_width != self.encoder.text_width:
            raise ConfigError(
                f"{folder} takes text states of width {backbone.text_width}, but the text encoder of the run "
                f"has width {self.encoder.text_width}: use that model's encoder, or start from new weights"
            )
        self.model.load_state_dict(cast(nn.Module, backbone).state_dict())


class Adapter:
    """An adapter of a model, whose networks stay as they are. See `Start` and `NewModel`.

    Raises `ConfigError` for a base of the Wan family, which has a recipe of its own, and for another noise
    schedule or prediction than that of the base.
    """

    manifest = None

    def __init__(self, recipe: LoRARecipe, words: Sequence[str] | None) -> None:
        family, base = find_family(recipe.base)
        if family is not KINEMA:
            raise ConfigError(
                f"{recipe.base} is a model of the {family.name} family: train its adapters with "
                f"recipes/lora_{family.name.lower()}.toml"
            )
        manifest = load_manifest(base)
        for name in ("schedule", "prediction"):
            own, wanted = getattr(recipe.diffusion, name), getattr(manifest, name)
            if own != wanted:
                raise ConfigError(
                    f"diffusion.{name} = {own!r}, but {recipe.base} was trained with {wanted!r}"
                )
        self.vae, self.encoder, backbone = frozen_vae(base), frozen_text(base, words), load_backbone(base)
        self.text = self.encoder if isinstance(self.encoder, CLIP) else None
        self.recipe = replace(recipe, vae=recipe.base, clip=recipe.base, model=backbone_sizes(base))

        torch.manual_seed(derive_seed(recipe.run.seed, "init"))
        self.model = add_lora(cast(nn.Module, backbone), recipe.rank, recipe.alpha, recipe.targets)
        if recipe.matrices == "bf16":
            for module in self.model.modules():
                if isinstance(module, LoRALinear):
                    module.base.to(torch.bfloat16)

    def prepare_text(self, cache: Path, device: torch.device, captions: Iterable[str]) -> TextEncoder:
        """The CLIP on `device`, or the stored states of another encoder."""
        return prepared_text(self.encoder, cache, device, captions)

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1]."""
        return self.recipe.diffusion.draw_times(count, generator)

    def sampling_rules(self) -> SamplingRules:
        """Those of every model of Kinema."""
        return SamplingRules()

    def export(self, model: nn.Module, folder: Path, manifest: Manifest, training: dict[str, Any]) -> None:
        """Write the adapter with diffusers' tensor names, and its card."""
        write_adapter(folder, model, self.recipe, training)

    def init_from(self, folder: Path) -> None:
        """Load the adapter of an exported folder. It must have the same rank and targets."""
        take_adapter(self.model, folder)


def frozen_vae(folder: Path) -> VAE:
    """The VAE of a model or component folder, which is not trained."""
    return load_vae(folder).eval().requires_grad_(False)


def backbone_sizes(folder: Path) -> dict[str, Any]:
    """The sizes of the backbone of a model folder as the [model] table of a recipe."""
    model = resolve_model(str(folder))
    entry = backbone_entry(model)
    return entry.sizes(config_of(model, entry.network))


def write_adapter(folder: Path, model: nn.Module, recipe: LoRARecipe, training: dict[str, Any]) -> None:
    """Write the adapter of a backbone with diffusers' tensor names, and its card."""
    with atomic_folder(folder, LORA) as partial:
        save_lora(partial / LORA, model)
        write_json(partial / CARD, {"base": recipe.base, "rank": recipe.rank, **training})


def take_adapter(model: nn.Module, folder: Path) -> None:
    """Initialise the adapter of a backbone from an exported one of the same rank and targets."""
    adapters = read_lora(folder / LORA, model)
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            module.take(adapters[name])


def _card(folder: Path, component: str) -> dict[str, Any]:
    """The card of a component ("vae" or "clip"), from the folder of that component alone or of a whole
    model."""
    if not (folder / MANIFEST).is_file():
        return load_card(folder)
    return dict(load_manifest(folder).card.get(component, {}))
