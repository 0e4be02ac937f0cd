"""Components of a model: one network in a folder with its config.json and weights.

Every tensor and shape is checked when a component is read. Tensors are loaded as float32 in whatever dtype
they are stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kinema.checkpoints.image_configs import (
    image_dit_config_from_diffusers,
    image_dit_diffusers_config,
    image_dit_from_diffusers,
    image_dit_to_diffusers,
    unet_config_from_diffusers,
    unet_diffusers_config,
    unet_from_diffusers,
    unet_to_diffusers,
)
from kinema.checkpoints.key_maps import (
    dit_diffusers_config,
    dit_from_diffusers,
    dit_keys,
    dit_to_diffusers,
    vae_config_from_diffusers,
    vae_diffusers_config,
)
from kinema.checkpoints.manifest import CARD, CONFIG, DIFFUSERS_WEIGHTS, REQUIRED_FILES, TOKENIZER, WEIGHTS
from kinema.checkpoints.tensors import read_tensors
from kinema.config import from_dict, to_dict
from kinema.errors import ModelError
from kinema.files import atomic_folder, read_json, write_json
from kinema.models.backbone import BACKBONES, Backbone, BackboneEntry
from kinema.models.clip import CLIP, CLIPConfig
from kinema.models.dit import DiT, DiTConfig
from kinema.models.image_dit import ImageDiT
from kinema.models.unet import UNet
from kinema.models.vae import VAE
from kinema.nn.parameters import weight_dtypes
from kinema.prompts import load_tokenizer
from kinema.registry import unknown

M = TypeVar("M", bound=nn.Module)
State = Mapping[str, Tensor]

CLASS_KEY = "_class_name"
"""Key of config.json for the class of the network."""
BACKBONE_FOLDER = "transformer"
CLIP_CLASS = "KinemaCLIP"
KINEMA_KEY = "_kinema"
"""Key of transformer/config.json for the fields that diffusers lacks; it ignores private keys."""
OWN_FIELDS = ("text_padding", "text_length", "vector_dim", "frame_vector_dim")
"""Fields of `DiTConfig` under that key."""
IGNORED_KEYS = (KINEMA_KEY, "_name_or_path", "rope_max_seq_len")
"""Keys of transformer/config.json that do not change results: rotations are computed for every position."""


@dataclass(frozen=True)
class ComponentFormat:
    """How one class of network is stored."""

    folder: str
    """Subfolder of a model folder."""
    weights: str
    """Name of the weights file."""
    config: Callable[[Any], dict[str, Any]]
    """From the network to the contents of config.json."""
    build: Callable[[Mapping[str, Any], Path], nn.Module]
    """From the contents of config.json and the folder to the network."""
    to_file: Callable[[Any, State], State] = lambda module, state: state
    """From the names and shapes of our state dict to those of the file."""
    from_file: Callable[[Any, State], State] = lambda module, state: state
    layouts: Callable[[Any], Sequence[Mapping[str, str]]] = lambda module: ({},)
    """From the network to its tensors' names in published layouts, by ours; absent names are the same."""


def _dit_config(dit: DiT) -> dict[str, Any]:
    own = {name: value for name in OWN_FIELDS if (value := getattr(dit.config, name)) is not None}
    return dit_diffusers_config(dit.config) | {KINEMA_KEY: own}


def dit_config_from_diffusers(values: Mapping[str, Any]) -> DiTConfig:
    """The configuration in a config.json of class WanTransformer3DModel, with Wan's text padding unless the
    file has another.

    Raises `ModelError` for a value that the DiT does not support, KeyError for a missing one.
    """
    same = ("in_channels", "out_channels", "num_layers", "ffn_dim", "text_dim", "freq_dim", "eps")
    sizes = {name: values[name] for name in same}
    num_heads, head_dim = values["num_attention_heads"], values["attention_head_dim"]
    sizes |= {"d": num_heads * head_dim, "num_heads": num_heads, "patch": values["patch_size"]}
    sizes |= {"image_dim": values.get("image_dim"), "image_positions": values.get("pos_embed_seq_len")}
    own = values.get(KINEMA_KEY, {"text_padding": "zeros", "text_length": 512})
    config = from_dict(DiTConfig, sizes | dict(own))

    expected = dit_diffusers_config(config)
    for key, value in values.items():
        is_ignored = key.startswith("_diffusers") or key in IGNORED_KEYS
        if not is_ignored and value != expected.get(key):
            raise ModelError(f"{key} = {value!r} is not supported (needed here: {expected.get(key)!r})")
    return config


def _clip_config(clip: CLIP) -> dict[str, Any]:
    return {"_class_name": CLIP_CLASS, **to_dict(clip.config)}


def _build_clip(values: Mapping[str, Any], folder: Path) -> CLIP:
    """A CLIP with the tokenizer of its own folder, or of the model folder that contains it."""
    own = folder / TOKENIZER
    tokenizer = load_tokenizer(own if own.exists() else folder.parent / "tokenizer" / TOKENIZER)
    if values.get("_class_name") != CLIP_CLASS:
        raise ModelError(f"it is of class {values.get('_class_name')}; {CLIP_CLASS} is needed")
    sizes = {key: value for key, value in values.items() if key != "_class_name"}
    return CLIP(from_dict(CLIPConfig, sizes), tokenizer)


COMPONENTS: dict[type[nn.Module], ComponentFormat] = {
    DiT: ComponentFormat(
        BACKBONE_FOLDER,
        DIFFUSERS_WEIGHTS,
        config=_dit_config,
        build=lambda values, folder: BACKBONES["dit"].network(dit_config_from_diffusers(values)),
        to_file=lambda dit, state: dit_to_diffusers(state, dit.config),
        from_file=lambda dit, state: dit_from_diffusers(state, dit.config),
        layouts=lambda dit: (dit_keys(dit.config, "diffusers"), dit_keys(dit.config, "wan")),
    ),
    ImageDiT: ComponentFormat(
        BACKBONE_FOLDER,
        DIFFUSERS_WEIGHTS,
        config=lambda dit: image_dit_diffusers_config(dit.config),
        build=lambda values, folder: ImageDiT(image_dit_config_from_diffusers(values)),
        to_file=lambda dit, state: image_dit_to_diffusers(state, dit.config),
        from_file=lambda dit, state: image_dit_from_diffusers(state),
    ),
    UNet: ComponentFormat(
        BACKBONE_FOLDER,
        DIFFUSERS_WEIGHTS,
        config=lambda unet: unet_diffusers_config(unet.config),
        build=lambda values, folder: UNet(unet_config_from_diffusers(values)),
        to_file=lambda unet, state: unet_to_diffusers(state, unet.config),
        from_file=lambda unet, state: unet_from_diffusers(state, unet.config),
    ),
    VAE: ComponentFormat(
        "vae",
        DIFFUSERS_WEIGHTS,
        config=lambda vae: vae_diffusers_config(vae.config),
        build=lambda values, folder: VAE(vae_config_from_diffusers(values)),
    ),
    CLIP: ComponentFormat("text_encoder", WEIGHTS, config=_clip_config, build=_build_clip),
}
"""The components of a model folder. Other networks are stored by themselves (`format_of`)."""


def format_of(kind: type[nn.Module]) -> ComponentFormat:
    """How the networks of a class are stored.

    A class outside `COMPONENTS` is built from its configuration alone: config.json holds the fields of
    `config`, its argument, and for a backbone also its class.
    """
    if kind in COMPONENTS:
        return COMPONENTS[kind]
    for entry in BACKBONES.values():
        if entry.network is kind:
            return _backbone_format(entry)
    config_class = get_type_hints(kind.__init__)["config"]
    return ComponentFormat(
        kind.__name__.lower(),
        WEIGHTS,
        config=lambda module: to_dict(module.config),
        build=lambda values, folder: kind(from_dict(config_class, values)),
    )


def _backbone_format(entry: BackboneEntry) -> ComponentFormat:
    def build(values: Mapping[str, Any], folder: Path) -> nn.Module:
        sizes = {key: value for key, value in values.items() if key != CLASS_KEY}
        return entry.network(from_dict(entry.config, sizes))

    return ComponentFormat(
        BACKBONE_FOLDER,
        DIFFUSERS_WEIGHTS,
        config=lambda module: {CLASS_KEY: entry.class_names[0], **to_dict(module.config)},
        build=build,
    )


def write_component(folder: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """Write config.json and weights of a network, stored as `dtype`, into `folder`, which is created."""
    layout = format_of(type(module))
    folder.mkdir(exist_ok=True)
    tensors = layout.to_file(module, module.state_dict())
    state = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    save_file(state, folder / layout.weights, metadata={"format": "pt"})
    write_json(folder / CONFIG, layout.config(module))


def save_component(
    folder: Path,
    module: nn.Module,
    *,
    card: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one network by itself, with `card` (plain JSON) as card.json. The folder is written atomically.

    Raises `OutputError` if it cannot be written or holds something else.
    """
    with atomic_folder(folder, CONFIG) as partial:
        write_component(partial, module, dtype)
        if isinstance(module, CLIP):
            module.tokenizer.save(partial / TOKENIZER)
        write_json(partial / CARD, dict(card or {}))


def load_component(folder: Path, kind: type[M], *, device: torch.device | None = None) -> M:
    """The network of class `kind` in `folder`, or in that part of a model folder: float32, in eval mode.

    Raises `ModelError` that names the file, and every tensor that is missing, unexpected or of another shape.
    """
    module, folder = _unloaded(folder, kind)
    layout = format_of(kind)
    stored = layout.to_file(module, module.state_dict())
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    tensors = read_tensors(folder, layout.weights, shapes, CONFIG)
    return with_weights(module, layout.from_file(module, tensors), device, torch.float32)


def config_of(folder: Path, kind: type[nn.Module]) -> Any:
    """The configuration that `load_component` would build; only config.json is read. Raises `ModelError`."""
    return _unloaded(folder, kind)[0].config


def _unloaded(folder: Path, kind: type[M]) -> tuple[M, Path]:
    """The network of class `kind` without weights, on the meta device, and its own folder."""
    layout = format_of(kind)
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}: a model has {REQUIRED_FILES}")
    if (folder / layout.folder).is_dir():
        folder = folder / layout.folder

    config_file = folder / CONFIG
    values = read_json(config_file)
    try:
        with torch.device("meta"):
            module = layout.build(values, folder)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{config_file}: {error!r}") from None
    except ValueError as error:  # includes our own errors
        raise ModelError(f"{config_file}: {error}") from None
    assert isinstance(module, kind), "a format builds its own class"
    return module, folder


def with_weights(module: M, state: State, device: torch.device | None, dtype: torch.dtype) -> M:
    """`module` in eval mode on `device` with the tensors of `state`, named as in its state dict.

    Matrices have `dtype`; norms, time embedding and modulation are always float32.
    """
    dtypes = weight_dtypes(module, dtype)
    # One tensor at a time, so that at most one tensor of the files is in memory twice.
    converted = {name: state[name].to(device, dtypes.get(name, dtype)) for name in state}
    module.load_state_dict(converted, strict=True, assign=True)
    return module.eval()


def backbone_entry(folder: Path) -> BackboneEntry:
    """The class of the backbone in `folder`, or in that part of a model folder. No weights are read.

    Raises `ModelError` for a class that is not in `BACKBONES`.
    """
    file = (folder / BACKBONE_FOLDER if (folder / BACKBONE_FOLDER).is_dir() else folder) / CONFIG
    name = str(read_json(file).get(CLASS_KEY))
    for entry in BACKBONES.values():
        if name in entry.class_names:
            return entry
    known = [name for entry in BACKBONES.values() for name in entry.class_names]
    raise ModelError(f"{file}: {unknown('backbone', name, known)}")


def load_backbone(folder: Path, device: torch.device | None = None) -> Backbone:
    """The backbone of a model folder, of any class of `BACKBONES`; see `load_component`."""
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}: a model has {REQUIRED_FILES}")
    backbone = load_component(folder, backbone_entry(folder).network, device=device)
    assert isinstance(backbone, Backbone), "a network of BACKBONES is a backbone"
    return backbone


def load_vae(folder: Path, device: torch.device | None = None) -> VAE:
    """The VAE of a model folder; see `load_component`."""
    return load_component(folder, VAE, device=device)


def load_clip(folder: Path, device: torch.device | None = None) -> CLIP:
    """The CLIP and tokenizer of a model folder; see `load_component`."""
    return load_component(folder, CLIP, device=device)
