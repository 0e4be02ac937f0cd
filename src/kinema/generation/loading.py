"""Loading of models of every family: a pipeline from a path, with adapters merged."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import cast

from torch import nn

from kinema.checkpoints.adapters import LoRAFile, merge_lora, read_lora
from kinema.checkpoints.families import find_family
from kinema.checkpoints.families.base import LoadedModel, Offload
from kinema.checkpoints.manifest import Manifest
from kinema.checkpoints.shipped import SHIPPED
from kinema.device import Precision, pick_device, weight_dtype
from kinema.errors import ModelError
from kinema.files import sha256_of
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
    each. `attention` is one of `kinema.nn.attention.ATTENTION_KERNELS`. Raises `ModelError` for a model that
    is incomplete and an adapter that does not fit, and `ConfigError` for an `offload` that its family does
    not have.
    """
    lookup(ATTENTION_KERNELS, attention, kind="attention kernel")
    chosen = pick_device(device)
    family, path = find_family(model)
    loaded = family.load(path, chosen, weight_dtype(chosen, precision), family.offload(offload, path))
    identity = family.fingerprint(path)
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

    chosen = [cast(nn.Module, one) for name, one in backbones.items() if lora.expert in (None, name)]
    read = [read_lora(lora.path, backbone) for backbone in chosen]
    for backbone, adapters in zip(chosen, read):
        merge_lora(backbone, adapters, lora.scale)
    return sum(map(len, read))


def _with_lora(identity: str, lora: LoRAFile) -> str:
    """The hash of a model with an adapter."""
    line = f"{identity} {sha256_of(lora.path)} {lora.scale!r} {lora.expert}"
    return sha256(line.encode()).hexdigest()[:12]


def manifest_of(model: str | Path) -> Manifest:
    """The manifest of a model: trained sizes and defaults. No weights are read. Raises `ModelError`."""
    family, path = find_family(model)
    return family.manifest(path)


cached_pipeline = lru_cache(maxsize=1)(load)
"""`load`, which keeps the last model for the next call."""
