"""The pipeline of a model, whichever family it is of: a folder of ours, or one of the Wan family in any layout."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from kinema.checkpoints.adapters import LoRAFile
from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.checkpoints.families.wan.model import Offload, describe_wan, is_wan
from kinema.checkpoints.folders import (
    Manifest,
    load_clip,
    load_dit,
    load_manifest,
    load_vae,
    model_hash,
    resolve_model,
)
from kinema.checkpoints.shipped import SHIPPED
from kinema.device import Precision, pick_device
from kinema.errors import ConfigError
from kinema.generation.pipeline import Pipeline
from kinema.generation.wan import load_wan
from kinema.nn.attention import ATTENTION_KERNELS
from kinema.registry import lookup


def load(
    model: str | Path = SHIPPED,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    offload: Offload | None = None,
    attention: str = "auto",
    loras: Sequence[LoRAFile] = (),
) -> Pipeline:
    """The pipeline of a model: "shipped", or the path of a model folder or file. Raises `ModelError` when it is not whole.

    `loras` are adapters that are merged into its backbone, one after the other; one that does not fit is an error that lists why.
    `offload` is for models of the Wan family ("text" when None, see `load_wan_model`); raises `ConfigError` for others.
    `attention` is one of `kinema.nn.attention.ATTENTION_KERNELS`.
    """
    lookup(ATTENTION_KERNELS, attention, kind="attention kernel")
    pipeline = _load(model, device, precision, offload)
    pipeline.attention = attention
    for lora in loras:
        pipeline.add_lora(lora)
    return pipeline


def manifest_of(model: str | Path) -> Manifest:
    """What a model was trained for and does when nothing is asked for; no weights are read."""
    if is_wan(Path(model)):
        return describe_wan(find_wan_files(Path(model)), name=Path(model).name)[1]
    return load_manifest(resolve_model(model))


def _load(model: str | Path, device: str, precision: Precision, offload: Offload | None) -> Pipeline:
    place = pick_device(device)
    if is_wan(Path(model)):
        return load_wan(Path(model), place, precision, offload or "text")
    if offload is not None:
        raise ConfigError(
            f"offload '{offload}' is for models of the Wan family, which {model} is not: leave it out"
        )
    folder = resolve_model(model)
    manifest = load_manifest(folder)
    parts = load_dit(folder, place), load_vae(folder, place), load_clip(folder, place)
    return Pipeline(*parts, manifest, model=str(model), model_hash=model_hash(folder), precision=precision)


cached_pipeline = lru_cache(maxsize=1)(load)
"""`load`, with the last model kept for the next call."""
