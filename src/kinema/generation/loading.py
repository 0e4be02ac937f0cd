"""Loading of models: Kinema folders, and models of the Wan family in any layout."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from kinema.checkpoints.adapters import LoRAFile
from kinema.checkpoints.components import load_clip, load_dit, load_vae
from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.checkpoints.families.wan.model import Offload, describe_wan, is_wan
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import Manifest, load_manifest, model_hash
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
    """The pipeline of a model: "shipped", or the path of a model folder or file.

    `loras` are adapters that are merged into its backbone, one after the other. `offload` is for models of
    the Wan family (None is "text", see `load_wan_model`). Raises `ModelError` for a model that is incomplete
    and an adapter that does not fit, and `ConfigError` for `offload` with another model. `attention` is one
    of `kinema.nn.attention.ATTENTION_KERNELS`.
    """
    lookup(ATTENTION_KERNELS, attention, kind="attention kernel")
    pipeline = _load(model, device, precision, offload)
    pipeline.attention = attention
    for lora in loras:
        pipeline.add_lora(lora)
    return pipeline


def manifest_of(model: str | Path) -> Manifest:
    """The manifest of a model: trained sizes, lengths and rate, and defaults. No weights are read. Raises
    `ModelError`."""
    if is_wan(Path(model)):
        return describe_wan(find_wan_files(Path(model)), name=Path(model).name)[1]
    return load_manifest(resolve_model(model))


def _load(model: str | Path, device: str, precision: Precision, offload: Offload | None) -> Pipeline:
    chosen = pick_device(device)
    if is_wan(Path(model)):
        return load_wan(Path(model), chosen, precision, offload or "text")
    if offload is not None:
        raise ConfigError(
            f"offload='{offload}' applies to models of the Wan family, and {model} is another: leave it out"
        )

    folder = resolve_model(model)
    manifest = load_manifest(folder)
    components = load_dit(folder, chosen), load_vae(folder, chosen), load_clip(folder, chosen)
    return Pipeline(
        *components, manifest, model=str(model), model_hash=model_hash(folder), precision=precision
    )


cached_pipeline = lru_cache(maxsize=1)(load)
"""`load`, which keeps the last model for the next call."""
