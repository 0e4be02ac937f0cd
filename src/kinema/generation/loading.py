"""Loading of models: Kinema folders, and models of the Wan family in any layout."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from kinema.checkpoints.adapters import LoRAFile, merge_lora, read_lora
from kinema.checkpoints.components import load_clip, load_dit, load_vae
from kinema.checkpoints.families.base import LoadedModel
from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.checkpoints.families.wan.model import (
    Offload,
    describe_wan,
    is_wan,
    load_wan_model,
)
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import Manifest, load_manifest, model_hash
from kinema.checkpoints.shipped import SHIPPED
from kinema.device import Precision, pick_device, weight_dtype
from kinema.errors import ConfigError, ModelError
from kinema.files import file_fingerprint, sha256_of
from kinema.generation.pipeline import Pipeline
from kinema.generation.sampling.denoiser import Denoiser
from kinema.nn.attention import ATTENTION_KERNELS
from kinema.registry import lookup

log = logging.getLogger(__name__)

def load(
    model: str | Path = SHIPPED,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    offload: Offload | None = None,
    attention: str = "auto",
    loras: Sequence[LoRAFile] = (),
    on_note: Callable[[str], object] = log.info,
) -> Pipeline:
    """The pipeline of a model: "shipped", or the path of a model folder or file.

    `loras` are adapters that are merged into its backbone, one after the other; `on_note` receives a line for
    each. `offload` is for models of the Wan family (None is "text", see `load_wan_model`). `attention` is one
    of `kinema.nn.attention.ATTENTION_KERNELS`. Raises `ModelError` for a model that is incomplete and an
    adapter that does not fit, and `ConfigError` for `offload` with another model.
    """
    lookup(ATTENTION_KERNELS, attention, kind="attention kernel")
    loaded, identity = _load(model, device, precision, offload)
    for lora in loras:
        num_layers = merge(lora, loaded)
        identity = _with_lora(identity, lora)
        on_note(f"{lora.path}: applied {num_layers}/{num_layers} at scale {lora.scale:g}")
    denoiser = Denoiser.of(loaded, precision=precision, attention=attention)
    return Pipeline(denoiser, loaded.vae, model=str(model), model_hash=identity)


def merge(lora: LoRAFile, model: LoadedModel) -> int:
    """Merge an adapter into the backbone, into both experts unless it names one. Returns the number of
    changed layers.

    Raises `ModelError` with the list of what does not fit.
    """
    backbones = model.backbones
    if lora.expert is not None and len(backbones) == 1:
        raise ModelError(f"{model.manifest.name} has one backbone: leave :{lora.expert} out")

    chosen = [backbone for name, backbone in backbones.items() if lora.expert in (None, name)]
    read = [read_lora(lora.path, backbone) for backbone in chosen]
    for backbone, adapters in zip(chosen, read):
        merge_lora(backbone, adapters, lora.scale)
    return sum(map(len, read))


def _with_lora(identity: str, lora: LoRAFile) -> str:
    """The hash of a model with an adapter."""
    line = f"{identity} {sha256_of(lora.path)} {lora.scale!r} {lora.expert}"
    return sha256(line.encode()).hexdigest()[:12]


def manifest_of(model: str | Path) -> Manifest:
    """The manifest of a model: trained sizes, lengths and rate, and defaults. No weights are read. Raises
    `ModelError`."""
    if is_wan(Path(model)):
        return describe_wan(find_wan_files(Path(model)), name=Path(model).name)[1]
    return load_manifest(resolve_model(model))


def _load(
    model: str | Path, device: str, precision: Precision, offload: Offload | None
) -> tuple[LoadedModel, str]:
    """The networks of a model, and its hash."""
    chosen = pick_device(device)
    if is_wan(Path(model)):
        dtype = weight_dtype(chosen, precision)
        loaded = load_wan_model(Path(model), chosen, dtype, offload=offload or "text")
        return loaded, file_fingerprint(Path(model))
    if offload is not None:
        raise ConfigError(
            f"offload='{offload}' applies to models of the Wan family, and {model} is another: leave it out"
        )

    folder = resolve_model(model)
    backbone, vae, clip = load_dit(folder, chosen), load_vae(folder, chosen), load_clip(folder, chosen)
    return LoadedModel(load_manifest(folder), {"high": backbone}, vae, clip), model_hash(folder)


cached_pipeline = lru_cache(maxsize=1)(load)
"""`load`, which keeps the last model for the next call."""
