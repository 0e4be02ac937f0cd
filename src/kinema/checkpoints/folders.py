"""Model folders: written at once or not at all, read strictly.

A model lies in diffusers' layout, so that its DiT and VAE load there too:

    model_index.json   kinema.json
    transformer/   config.json  diffusion_pytorch_model.safetensors
    vae/           config.json  diffusion_pytorch_model.safetensors
    text_encoder/  config.json  model.safetensors
    tokenizer/     tokenizer.json
    scheduler/     scheduler_config.json

A component by itself, as a training run exports it, is one such subfolder plus card.json (and tokenizer.json for a CLIP).
Every tensor and shape is accounted for when a folder is read; tensors come out as float32 whatever they are stored as.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kinema.checkpoints.key_maps import dit_diffusers_config, dit_from_diffusers, dit_to_diffusers
from kinema.checkpoints.shipped import SHIPPED, shipped_model, shipped_oracle
from kinema.checkpoints.tensors import read_tensors
from kinema.config import from_dict, to_dict
from kinema.errors import ConfigError, ModelError
from kinema.files import atomic_folder, read_json, sha256_of, write_json
from kinema.models.captioner import Captioner, CaptionerConfig
from kinema.models.clip import CLIP, CLIPConfig
from kinema.models.dit import DiT, DiTConfig
from kinema.models.expander import Expander, ExpanderConfig
from kinema.models.oracle import Oracle, OracleConfig
from kinema.models.vae import VAE, vae_diffusers_config, vae_from_diffusers_config
from kinema.nn.parameters import weight_dtypes
from kinema.prompts.tokenizer import Tokenizer
from kinema.registry import lookup, unknown

M = TypeVar("M", bound=nn.Module)
State = Mapping[str, Tensor]

INDEX, MANIFEST, CARD, CONFIG, TOKENIZER = (
    "model_index.json",
    "kinema.json",
    "card.json",
    "config.json",
    "tokenizer.json",
)
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
CLIP_CLASS = "KinemaCLIP"
SCHEDULERS: dict[str, dict[str, Any]] = {
    "linear": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    "cosine": {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"},
    "ddpm": {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 2e-2},
}
"""Our noise schedules as diffusers names them."""
PREDICTIONS = {"noise": "epsilon", "x0": "sample", "v": "v_prediction", "velocity": "flow_prediction"}
OURS = "_kinema"


@dataclass(frozen=True)
class Manifest:
    """What kinema.json says of a model beyond its networks' sizes. Pixels are those of a side, frames those of a clip."""

    name: str
    licence: str
    fps: float
    sides: tuple[int, int, int]
    """Trained heights and widths in pixels: least, most, and what they are multiples of."""
    frames: tuple[int, int]
    """Trained lengths: fewest and most frames."""
    default_size: tuple[int, int]
    """Height and width of a video when none is asked for."""
    default_frames: int
    schedule: str = "linear"
    prediction: str = "velocity"
    sampler: str = "euler"
    steps: int = 30
    guidance: float = 5.0
    shift: float = 1.0
    time_per_token: bool = True
    """Whether it was trained with a diffusion time for every token; otherwise known latents are shown as noisy as the others."""
    vocabulary: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The world's words by kind: nouns, verbs, grounds, skies and so on."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Digest of every other file of the folder; written by `save_model`."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What training cost and what was measured; plain JSON."""

    def __post_init__(self) -> None:
        lookup(SCHEDULERS, self.schedule, kind="noise schedule")
        lookup(PREDICTIONS, self.prediction, kind="prediction")
        least, most, multiple = self.sides
        if not 1 <= least <= most or multiple < 1 or least % multiple or most % multiple:
            raise ConfigError(f"sides={list(self.sides)} must be least, most and a number that divides both")
        if not 1 <= self.frames[0] <= self.default_frames <= self.frames[1]:
            raise ConfigError(
                f"frames={list(self.frames)} must be fewest and most, with default_frames={self.default_frames} between them"
            )
        if self.fps <= 0 or self.steps < 1 or self.shift <= 0:
            raise ConfigError(
                f"fps={self.fps:g} and shift={self.shift:g} must be positive, steps={self.steps} at least 1"
            )


@dataclass(frozen=True)
class Part:
    """How one kind of network lies in a folder."""

    folder: str
    weights: str
    config: Callable[[Any], dict[str, Any]]
    build: Callable[[Mapping[str, Any], Path], nn.Module]
    """From the contents of config.json and the folder."""
    to_file: Callable[[Any, State], State] = lambda module, state: state
    """From our names and shapes to the file's."""
    from_file: Callable[[Any, State], State] = lambda module, state: state


def _dit_config(dit: DiT) -> dict[str, Any]:
    """What diffusers reads, and under a private key, which it passes over, what only this package knows."""
    config = dit.config
    return dit_diffusers_config(config) | {
        OURS: {"text_padding": config.text_padding, "text_length": config.text_length}
    }


def dit_config_from_diffusers(values: Mapping[str, Any]) -> DiTConfig:
    """The sizes in a config.json of class WanTransformer3DModel; Wan's own text rule when the file does not say another."""
    heads, head_dim = values["num_attention_heads"], values["attention_head_dim"]
    same = ("in_channels", "out_channels", "num_layers", "ffn_dim", "text_dim", "freq_dim", "eps")
    sizes = {name: values[name] for name in same}
    sizes |= {"d": heads * head_dim, "num_heads": heads, "patch": values["patch_size"]}
    sizes |= {"image_dim": values.get("image_dim"), "image_positions": values.get("pos_embed_seq_len")}
    config = from_dict(
        DiTConfig, sizes | dict(values.get(OURS, {"text_padding": "zeros", "text_length": 512}))
    )
    expected = dit_diffusers_config(config)
    for key, value in values.items():
        if (
            not key.startswith("_diffusers")
            and key not in (OURS, "_name_or_path")
            and value != expected.get(key)
        ):
            raise ModelError(f"{key} = {value!r} is not supported (needed here: {expected.get(key)!r})")
    return config


def _clip_config(clip: CLIP) -> dict[str, Any]:
    return {"_class_name": CLIP_CLASS, **to_dict(clip.config)}


def _build_clip(values: Mapping[str, Any], folder: Path) -> CLIP:
    """A CLIP with the tokenizer that lies in its folder, or beside it as in a model."""
    own = folder / TOKENIZER
    tokenizer = Tokenizer.load(own if own.exists() else folder.parent / "tokenizer" / TOKENIZER)
    if values.get("_class_name") != CLIP_CLASS:
        raise ModelError(f"it is of class {values.get('_class_name')}; {CLIP_CLASS} is needed")
    return CLIP(
        from_dict(CLIPConfig, {key: value for key, value in values.items() if key != "_class_name"}),
        tokenizer,
    )


PARTS: dict[type[nn.Module], Part] = {
    DiT: Part(
        "transformer",
        DIFFUSERS_WEIGHTS,
        config=_dit_config,
        build=lambda values, folder: DiT(dit_config_from_diffusers(values)),
        to_file=lambda dit, state: dit_to_diffusers(state, dit.config),
        from_file=lambda dit, state: dit_from_diffusers(state, dit.config),
    ),
    VAE: Part(
        "vae",
        DIFFUSERS_WEIGHTS,
        config=lambda vae: vae_diffusers_config(vae.config),
        build=lambda values, folder: VAE(vae_from_diffusers_config(values)),
    ),
    CLIP: Part("text_encoder", "model.safetensors", config=_clip_config, build=_build_clip),
    Oracle: Part(
        "oracle",
        "model.safetensors",
        config=lambda oracle: to_dict(oracle.config),
        build=lambda values, folder: Oracle(from_dict(OracleConfig, values)),
    ),
    Captioner: Part(
        "captioner",
        "model.safetensors",
        config=lambda captioner: to_dict(captioner.config),
        build=lambda values, folder: Captioner(from_dict(CaptionerConfig, values)),
    ),
    Expander: Part(
        "expander",
        "model.safetensors",
        config=lambda expander: to_dict(expander.config),
        build=lambda values, folder: Expander(from_dict(ExpanderConfig, values)),
    ),
}
Component = DiT | VAE | CLIP | Oracle | Captioner | Expander
IN_A_MODEL = (DiT, VAE, CLIP)
"""The parts that a model folder holds; an oracle, a captioner and an expander stand by themselves."""


_FOLDERS = [f"{PARTS[kind].folder}/{{{CONFIG},{PARTS[kind].weights}}}" for kind in IN_A_MODEL]
NEEDS = f"{MANIFEST}, {', '.join(_FOLDERS)} and tokenizer/{TOKENIZER}"


def save_model(
    folder: Path, dit: DiT, vae: VAE, clip: CLIP, manifest: Manifest, *, dtype: torch.dtype = torch.bfloat16
) -> Manifest:
    """Write a whole model and return its manifest with the hashes filled in. The folder appears complete or not at all.

    Weights are stored as `dtype`. Raises `OutputError` when the folder cannot be written or holds something else than a model.
    """
    with atomic_folder(folder, INDEX) as partial:
        for module in (dit, vae, clip):
            _write_part(partial / PARTS[type(module)].folder, module, dtype)
        (partial / "tokenizer").mkdir()
        clip.tokenizer.save(partial / "tokenizer" / TOKENIZER)
        scheduler = SCHEDULERS[manifest.schedule] | {"num_train_timesteps": 1000}
        is_flow = manifest.schedule == "linear"
        scheduler |= (
            {"shift": manifest.shift} if is_flow else {"prediction_type": PREDICTIONS[manifest.prediction]}
        )
        (partial / "scheduler").mkdir()
        write_json(partial / "scheduler" / "scheduler_config.json", scheduler)
        write_json(
            partial / INDEX,
            {
                "_class_name": "KinemaPipeline",
                "scheduler": ["diffusers", scheduler["_class_name"]],
                "text_encoder": ["kinema", CLIP_CLASS],
                "tokenizer": ["kinema", "Tokenizer"],
                "transformer": ["diffusers", "WanTransformer3DModel"],
                "vae": ["diffusers", "AutoencoderKLWan"],
            },
        )
        manifest = replace(
            manifest, sha256={name: sha256_of(partial / name) for name in files_below(partial)}
        )
        write_json(partial / MANIFEST, to_dict(manifest))
    return manifest


def save_component(
    folder: Path,
    module: Component,
    *,
    card: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one network by itself, with `card` (plain JSON) beside it; raises `OutputError` as `save_model` does."""
    with atomic_folder(folder, CONFIG) as partial:
        _write_part(partial, module, dtype)
        if isinstance(module, CLIP):
            module.tokenizer.save(partial / TOKENIZER)
        write_json(partial / CARD, dict(card or {}))


def load_component(
    folder: Path,
    kind: type[M],
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    subfolder: str | None = None,
) -> M:
    """The network of class `kind` that lies in `folder`, or in its subfolder when `folder` is a model; in eval mode.

    Its matrices are of `dtype`; what is small and sensitive (norms, time embedding, modulation) is float32 always. Raises `ModelError`
    that names the file, and every tensor that is missing, unexpected or of another shape.
    """
    part = PARTS[kind]
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}: a model has {NEEDS}")
    if (folder / (subfolder or part.folder)).is_dir():
        folder = folder / (subfolder or part.folder)
    config_file = folder / CONFIG
    values = read_json(config_file)
    try:
        with torch.device("meta"):
            module = part.build(values, folder)
    except (KeyError, TypeError, ValueError) as error:  # our own errors are ValueErrors
        raise ModelError(
            f"{config_file}: {error!r}"
            if isinstance(error, KeyError | TypeError)
            else f"{config_file}: {error}"
        ) from None
    assert isinstance(module, kind), "each part builds its own class"
    tensors = read_tensors(folder, part.weights, part.to_file(module, module.state_dict()), dtype=None)
    return with_weights(module, part.from_file(module, tensors), device, dtype)


def with_weights(module: M, state: State, device: torch.device | None, dtype: torch.dtype) -> M:
    """`module` with the tensors of `state`, which has its names, on `device` and in eval mode; see `load_component` for `dtype`."""
    dtypes = weight_dtypes(module, dtype)
    # One at a time, so that no more than one tensor of files is there twice.
    there = {name: state[name].to(device, dtypes.get(name, dtype)) for name in state}
    module.load_state_dict(there, strict=True, assign=True)
    return module.eval()


def load_dit(folder: Path, device: torch.device | None = None) -> DiT:
    """The DiT of a model folder; see `load_component`."""
    return load_component(folder, DiT, device=device)


def load_vae(folder: Path, device: torch.device | None = None) -> VAE:
    """The VAE of a model folder; see `load_component`."""
    return load_component(folder, VAE, device=device)


def load_clip(folder: Path, device: torch.device | None = None) -> CLIP:
    """The CLIP and tokenizer of a model folder; see `load_component`."""
    return load_component(folder, CLIP, device=device)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder. Raises `ModelError` when the folder is none or kinema.json is not right."""
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder} is not a model folder, there is no {MANIFEST}: a model has {NEEDS}")
    values = read_json(folder / MANIFEST)
    card = values.pop("card", {})
    try:
        return replace(from_dict(Manifest, values), card=card)
    except ConfigError as error:
        raise ModelError(f"{folder / MANIFEST}: {error}") from None


def load_card(folder: Path) -> dict[str, Any]:
    """What training wrote beside a component (card.json)."""
    return read_json(folder / CARD)


def verify(folder: Path) -> int:
    """How many files of a model were read and match their hashes. Raises `ModelError` listing what is missing, changed or not listed."""
    listed = load_manifest(folder).sha256
    present = set(files_below(folder)) - {MANIFEST}
    changed = [name for name in sorted(present & set(listed)) if sha256_of(folder / name) != listed[name]]
    problems = {
        "missing": sorted(set(listed) - present),
        "changed": changed,
        "not listed": sorted(present - set(listed)),
    }
    if any(problems.values()) or not listed:
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ModelError(f"{folder} is not as {MANIFEST} says: {found or 'no hashes'}")
    return len(listed)


def model_hash(folder: Path) -> str:
    """Twelve hexadecimal digits that stand for every listed file of a model; read from the manifest, not from the files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(load_manifest(folder).sha256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def _write_part(folder: Path, module: nn.Module, dtype: torch.dtype) -> None:
    part = PARTS[type(module)]
    folder.mkdir(exist_ok=True)
    state = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in part.to_file(module, module.state_dict()).items()
    }
    save_file(state, folder / part.weights, metadata={"format": "pt"})
    write_json(folder / CONFIG, part.config(module))


def files_below(folder: Path) -> list[str]:
    """The files below `folder`, by their path in it; hidden ones are not part of a model."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(name.startswith(".") for name in path.parts))


def resolve_model(model: str | Path) -> Path:
    """The folder of a model: "shipped", or a path. Raises `ModelError` when there is no such folder."""
    if model == SHIPPED:
        return shipped_model()
    if not Path(model).is_dir():
        raise ModelError(
            f"{unknown('model', str(model), [SHIPPED])}; or give the path of a model folder: {NEEDS}"
        )
    return Path(model)


def load_oracle(folder: Path | None = None, *, device: torch.device | None = None) -> Oracle:
    """The oracle in `folder`, or the one inside the package. Raises `ModelError` when it is not whole."""
    return load_component(folder or shipped_oracle(), Oracle, device=device)
