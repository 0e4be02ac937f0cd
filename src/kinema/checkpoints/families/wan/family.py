"""The entry of the Wan family."""

from math import prod
from pathlib import Path

from kinema.checkpoints.families.base import ComponentFiles, Family, ModelFiles, ModelSizes, TextEncoderSizes
from kinema.checkpoints.families.wan import convert as conversion
from kinema.checkpoints.families.wan.files import WanFiles, find_wan_files, layout_of
from kinema.checkpoints.families.wan.model import describe_wan, load_wan_model
from kinema.checkpoints.families.wan.published import PUBLISHED
from kinema.checkpoints.manifest import Manifest
from kinema.files import file_fingerprint


def is_wan(path: Path) -> bool:
    """Whether `path` is a model of the family, in any of its layouts."""
    return layout_of(path) is not None


def manifest(path: Path) -> Manifest:
    """The limits and defaults of a model."""
    return describe_wan(find_wan_files(path))[1]


def inspect(path: Path) -> ModelFiles:
    """The sizes and the components of a model."""
    return describe_files(find_wan_files(path))


def describe_files(files: WanFiles) -> ModelFiles:
    """The sizes and the components of the model in `files`."""
    variant, found = describe_wan(files)
    copies = ("encoder.embed_tokens.weight", "spiece_model")
    text_parameters = sum(
        prod(shape) for name, shape in files.text.files.shapes.items() if name not in copies
    )
    sizes = ModelSizes(
        files.backbones[0].config,
        files.vae.config,
        found,
        TextEncoderSizes.of(files.text.config, text_parameters),
        len(files.backbones),
        0 if files.images is None else files.images.files.num_parameters,
    )
    components = {name: ComponentFiles.of(part) for name, part in files.parts.items()}
    return ModelFiles(f"{variant}, in the layout {files.layout}", sizes, components)


def convert(source: Path, target: Path, layout: str) -> ModelFiles:
    """Write the model at `source` as the folder `target` in `layout`; see `conversion.convert`."""
    return describe_files(conversion.convert(source, target, layout))


WAN = Family(
    "Wan",
    is_wan,
    manifest,
    inspect,
    file_fingerprint,
    load_wan_model,
    offloads=("text", "none", "layers"),
    published=PUBLISHED,
    checks_memory=True,
    convert=convert,
)
