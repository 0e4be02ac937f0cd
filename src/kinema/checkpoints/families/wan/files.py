"""The files of a model of the Wan family, found in four layouts and described from their headers.

    diffusers   model_index.json, one folder per component; names of diffusers and transformers
    kinema      the same, with kinema.json for defaults and hashes
    wan         config.json (or high_noise_model/ and low_noise_model/), *_VAE.pth, models_t5*.pth;
                original names
    comfy       one file of the backbone, the others in folders beside it; original names, for the text
                encoder those of transformers

`find_wan_files` reads no tensor. A component then returns its tensors under our names, one at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from kinema.checkpoints.components import dit_config_from_diffusers
from kinema.checkpoints.families.wan.shapes import (
    dit_config_from_tensors,
    umt5_config,
    vae_config_from_tensors,
    vae_shapes,
)
from kinema.checkpoints.key_maps import (
    COMFY_PREFIX,
    PATCH_WEIGHT,
    dit_keys,
    num_blocks,
    umt5_keys,
    vae_config_from_diffusers,
    vae_original_name,
)
from kinema.checkpoints.manifest import CONFIG, DIFFUSERS_WEIGHTS, INDEX, MANIFEST
from kinema.checkpoints.tensors import TensorFiles, component_files
from kinema.errors import KinemaError, ModelError
from kinema.files import read_json
from kinema.models.backbone import without_weights
from kinema.models.dit import DiTConfig
from kinema.models.vae import VAEConfig

C = TypeVar("C")
WanLayout = Literal["kinema", "diffusers", "wan", "comfy"]
LAYOUTS: tuple[WanLayout, ...] = ("kinema", "diffusers", "wan", "comfy")
PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
EXPERTS = ("high_noise_model", "low_noise_model")
COMFY_FOLDERS = {
    "vae": ("vae", "*vae*"),
    "text": ("text_encoders", "*umt5*"),
    "images": ("clip_vision", "*clip_vision*"),
}
TEXT_WEIGHTS = "model.safetensors"


class RenamedTensors(Mapping[str, Tensor]):
    """Tensors under other names: `names` maps ours to theirs, `change` reshapes some of them."""

    def __init__(
        self,
        files: Mapping[str, Tensor],
        names: Mapping[str, str],
        change: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ):
        self.files, self.names, self.change = files, names, change or {}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.files[self.names[name]]
        return self.change[name](tensor) if name in self.change else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class NetworkFiles(Generic[C]):
    """The files of one network."""

    config: C
    state: Mapping[str, Tensor]
    """Under our names, or those of transformers for its networks."""
    files: TensorFiles


BackboneFiles = NetworkFiles[DiTConfig]
VAEFiles = NetworkFiles[VAEConfig]
EncoderFiles = NetworkFiles[dict[str, Any]]
"""A network of transformers, with its config.json."""


@dataclass(frozen=True, eq=False)
class WanFiles:
    """The files of a model of the family."""

    path: Path
    layout: WanLayout
    backbones: tuple[BackboneFiles, ...]
    """One, or the high-noise expert and the low-noise expert."""
    vae: VAEFiles
    text: EncoderFiles
    tokenizer: Path
    """Path of tokenizer.json."""
    images: EncoderFiles | None = None
    has_token_times: bool = False
    boundary: float | None = None
    shift: float | None = None
    other: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the layout."""

    @property
    def parts(self) -> dict[str, TensorFiles]:
        """The files of every component by its name in a diffusers folder."""
        named = {
            "transformer": self.backbones[0].files,
            "vae": self.vae.files,
            "text_encoder": self.text.files,
        }
        if len(self.backbones) == 2:
            named["transformer_2"] = self.backbones[1].files
        return named if self.images is None else named | {"image_encoder": self.images.files}


def layout_of(path: Path) -> WanLayout | None:
    """The layout of the family that `path` has, or None."""
    if path.is_file():
        return "comfy" if path.suffix == ".safetensors" else None
    if (path / INDEX).is_file():
        is_family = read_json(path / INDEX).get("_class_name") in PIPELINES
        return ("kinema" if (path / MANIFEST).is_file() else "diffusers") if is_family else None
    if all((path / expert / CONFIG).is_file() for expert in EXPERTS) or (
        (path / CONFIG).is_file() and list(path.glob("*VAE.pth"))
    ):
        return "wan"
    return None


def find_wan_files(path: Path) -> WanFiles:
    """The files of the model of the family at `path`, every tensor checked.

    Raises `ModelError` naming what is missing or wrong.
    """
    layout = layout_of(path)
    if layout is None:
        raise ModelError(
            f"{path} is in none of the layouts {', '.join(LAYOUTS)}: it needs {INDEX}, an original "
            "config.json, or be a file"
        )
    return {"kinema": _diffusers, "diffusers": _diffusers, "wan": _original, "comfy": _comfy}[layout](
        path, layout
    )


def _diffusers(folder: Path, layout: WanLayout) -> WanFiles:
    index = read_json(folder / INDEX)

    def has(part: str) -> bool:
        return isinstance(index.get(part), list) and index[part][0] is not None

    def encoder(part: str) -> EncoderFiles:
        files = TensorFiles(component_files(folder / part, TEXT_WEIGHTS))
        return EncoderFiles(read_json(folder / part / CONFIG), files, files)

    backbones = tuple(
        _backbone_of_diffusers(folder / part) for part in ("transformer", "transformer_2") if has(part)
    )
    if not backbones:
        raise ModelError(f"{folder / INDEX} names no transformer")
    if backbones[0].config.image_dim is not None and not has("image_encoder"):
        raise ModelError(f"{folder}: the backbone takes image states, but {INDEX} names no image_encoder")
    config = _read_config(folder / "vae" / CONFIG, vae_config_from_diffusers)
    files = TensorFiles(component_files(folder / "vae", DIFFUSERS_WEIGHTS))
    files.account(vae_shapes(config), f"{folder / 'vae' / CONFIG}")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return WanFiles(
        folder,
        layout,
        backbones,
        VAEFiles(config, files, files),
        encoder("text_encoder"),
        folder / "tokenizer" / "tokenizer.json",
        images=encoder("image_encoder") if has("image_encoder") else None,
        has_token_times=bool(index.get("expand_timesteps")),
        boundary=index.get("boundary_ratio"),
        shift=scheduler.get("flow_shift", scheduler.get("shift")),
    )


def _original(folder: Path, layout: WanLayout) -> WanFiles:
    folders = [folder / expert for expert in EXPERTS] if (folder / EXPERTS[0]).is_dir() else [folder]
    backbones = tuple(
        _backbone_of_original(component_files(each, DIFFUSERS_WEIGHTS), each / CONFIG) for each in folders
    )
    values = read_json(folders[0] / CONFIG)
    _refuse_image_encoder(folder, backbones[0].config)
    return WanFiles(
        folder,
        layout,
        backbones,
        _codec_of_original(_only(folder, "*VAE.pth")),
        _text_of_original(_only(folder, "models_t5*.pth"), values.get("text_len", 512)),
        _tokenizer(folder, "google/umt5-xxl/tokenizer.json", "umt5-xxl/tokenizer.json"),
        has_token_times=values.get("model_type") == "ti2v",
    )


def _comfy(file: Path, layout: WanLayout) -> WanFiles:
    with_prefix = TensorFiles([file], prefix=COMFY_PREFIX)
    backbone = _backbone_of_original([file], None, prefix=COMFY_PREFIX if len(with_prefix) else "")
    second = _other_expert(file)
    backbones = (backbone,) if second is None else (backbone, _backbone_of_original([second], None))
    models = file.parent.parent if file.parent.name in ("diffusion_models", "unet") else file.parent

    def companion(part: str) -> Path:
        folder, pattern = COMFY_FOLDERS[part]
        pattern = f"{pattern}.safetensors"
        folders = [
            each for each in (models / folder, file.parent) if each.is_dir() and list(each.glob(pattern))
        ]
        if not folders:
            raise ModelError(f"{file} has no companion {folder}/{pattern} in {models}: put it there")
        return _only(folders[0], pattern)

    vae = _codec_of_original(companion("vae"))
    files = TensorFiles([companion("text")])
    ignored = {"spiece_model", "encoder.embed_tokens.weight"}
    config = umt5_config(
        {name: shape for name, shape in files.shapes.items() if name not in ignored}, str(files.files[0])
    )
    text = EncoderFiles(
        config, RenamedTensors(files, {name: name for name in files if name not in ignored}), files
    )
    _refuse_image_encoder(file, backbone.config)
    return WanFiles(
        file,
        layout,
        backbones,
        vae,
        text,
        _tokenizer(models, "text_encoders/tokenizer.json", "tokenizer.json"),
        has_token_times=vae.config.residual,
    )


def _other_expert(file: Path) -> Path | None:
    """The file of the low-noise expert beside that of the high-noise expert.

    Raises `ModelError` if it is missing.
    """
    if "low_noise" in file.name:
        raise ModelError(
            f"{file} is the expert for low noise: give the file of the other one, with high_noise in its name"
        )
    if "high_noise" not in file.name:
        return None
    other = file.with_name(file.name.replace("high_noise", "low_noise"))
    if not other.is_file():
        raise ModelError(f"{file} is the expert for high noise, but {other.name} is not beside it")
    return other


def _refuse_image_encoder(path: Path, config: DiTConfig) -> None:
    if config.image_dim is not None:
        raise ModelError(
            f"{path}: the image encoder of Wan 2.1 is read in the diffusers layout only: take the folder of "
            "that layout"
        )


def _backbone_of_diffusers(folder: Path) -> BackboneFiles:
    config = _read_config(folder / CONFIG, dit_config_from_diffusers)
    files = TensorFiles(component_files(folder, DIFFUSERS_WEIGHTS))
    return _backbone(files, config, "diffusers", str(folder / CONFIG))


def _backbone_of_original(paths: list[Path], config_file: Path | None, prefix: str = "") -> BackboneFiles:
    files = TensorFiles(paths, prefix=prefix)
    if scaled := [name for name in files if name.endswith(("scale_weight", "scaled_fp8"))]:
        raise ModelError(f"{paths[0]} holds scaled 8-bit weights ({scaled[0]}): take the bf16 or fp16 file")
    values: Mapping[str, Any] = {} if config_file is None else read_json(config_file)
    config = dit_config_from_tensors(
        files.shapes,
        str(paths[0]),
        num_heads=values.get("num_heads"),
        text_length=values.get("text_len", 512),
    )
    if config_file is not None:
        configured = {
            "dim": config.d,
            "ffn_dim": config.ffn_dim,
            "freq_dim": config.freq_dim,
            "num_layers": config.num_layers,
        }
        configured |= {"in_dim": config.in_channels, "out_dim": config.out_channels}
        if wrong := [
            f"{key} is {values[key]}, the tensors have {have}"
            for key, have in configured.items()
            if values.get(key, have) != have
        ]:
            raise ModelError(f"{config_file} contradicts the tensors: {'; '.join(wrong)}")
    return _backbone(files, config, "wan", str(config_file or paths[0]))


def _backbone(
    files: TensorFiles, config: DiTConfig, naming: Literal["diffusers", "wan"], what: str
) -> BackboneFiles:
    names = dit_keys(config, naming)
    state = without_weights(config).state_dict()
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in state.items()}
    shapes[names[PATCH_WEIGHT]] = (config.d, config.in_channels, *config.patch)
    files.account(shapes, what)
    return BackboneFiles(
        config, RenamedTensors(files, names, {PATCH_WEIGHT: lambda kernel: kernel.flatten(1)}), files
    )


def _codec_of_original(file: Path) -> VAEFiles:
    files = TensorFiles([file])
    config = vae_config_from_tensors(files.shapes, str(file))
    names = {
        name: vae_original_name(name, num_res_blocks=config.num_res_blocks, residual=config.residual)
        for name in vae_shapes(config)
    }
    files.account({names[name]: shape for name, shape in vae_shapes(config).items()}, str(file))
    return VAEFiles(config, RenamedTensors(files, names), files)


def _text_of_original(file: Path, text_length: int) -> EncoderFiles:
    files = TensorFiles([file])
    names = umt5_keys(num_blocks(files, "blocks"))
    if missing := sorted(set(names.values()) - set(files)):
        raise ModelError(
            f"{file}: not the encoder of UMT5, {len(missing)} tensors are missing, {missing[0]} first"
        )
    shapes = {ours: files.shapes[theirs] for ours, theirs in names.items()}
    files.account({theirs: files.shapes[theirs] for theirs in names.values()}, str(file))
    return EncoderFiles(umt5_config(shapes, str(file)), RenamedTensors(files, names), files)


def _read_config(file: Path, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return read(read_json(file))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{file}: {error!r}") from None
    except KinemaError as error:
        raise ModelError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def _only(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ModelError(f"{folder} must hold one file {pattern}, and holds {found}")
    return files[0]


def _tokenizer(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder} has no {' or '.join(names)}: put the tokenizer of google/umt5-xxl there")
