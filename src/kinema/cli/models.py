"""Inspects, verifies and converts models."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.terminal import table

if TYPE_CHECKING:
    from kinema.checkpoints.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema models`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for act, help_line in (
        (inspect, "sizes, lengths, words, parameters, licence and hashes of a model"),
        (verify, "compare the hash of every file"),
    ):
        action = actions.add_parser(act.__name__, help=help_line, description=act.__doc__)
        action.add_argument(
            "model",
            nargs="?",
            default="shipped",
            metavar="MODEL",
            help="a model folder (default: the model in the package)",
        )
        action.set_defaults(act=act)

    action = actions.add_parser(
        "convert", help="write a Wan model in another layout", description=convert.__doc__
    )
    action.add_argument("source", type=Path, metavar="A", help="a model folder or file, in any layout")
    action.add_argument("target", type=Path, metavar="B", help="the folder to write")
    action.add_argument(
        "--layout", required=True, metavar="NAME", help="kinema, diffusers, wan (the original files) or comfy"
    )
    action.set_defaults(act=None)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema models`."""
    if arguments.act is None:
        convert(arguments.source, arguments.target, arguments.layout)
    else:
        arguments.act(arguments.model)
    return 0


def convert(source: Path, target: Path, layout: str) -> None:
    """Writes a Wan model in another layout. Tensors are copied bit for bit."""
    from kinema.checkpoints.families.wan.convert import convert as write

    files = write(source, target, layout)
    num_tensors = sum(len(component) for component in files.parts.values())
    size_bytes = sum(component.size_bytes for component in files.parts.values())
    print(f"{target}: {num_tensors} tensors, {size_bytes / 1e6:.1f} MB in the layout {layout}")


def verify(model: str) -> None:
    """Reads every file of a model and compares its hash with kinema.json."""
    from kinema.checkpoints import folders, manifest

    folder = folders.resolve_model(model)
    num_files = manifest.verify_hashes(folder)
    print(f"{folder}: {num_files} files as they were written, model {manifest.model_hash(folder)}")


def inspect(model: str) -> None:
    """Prints the abilities and the components of a model, without loading weights."""
    from kinema.checkpoints import folders, manifest
    from kinema.checkpoints.families.wan.model import is_wan

    if is_wan(Path(model)):
        print(table(_wan_rows(Path(model)).items()))
        return

    folder = folders.resolve_model(model)
    found = manifest.load_manifest(folder)
    rows = {"model": f"{found.name}, {manifest.model_hash(folder)}", "licence": found.licence}
    if found.card.get("notes"):
        rows["notes"] = str(found.card["notes"])
    rows |= _abilities(found)
    rows |= {f"{name}/": line for name, line in _components(folder)}
    rows |= {f"known {kind}": f"{len(words)}: {', '.join(words)}" for kind, words in found.vocabulary.items()}
    rows |= dict(sorted(found.sha256.items()))
    print(table(rows.items()))


def _wan_rows(path: Path) -> dict[str, str]:
    """The lines of `inspect` for a Wan model."""
    from kinema.checkpoints.families.wan import model as wan_model
    from kinema.files import file_fingerprint

    files = wan_model.find_wan_files(path)
    variant, manifest = wan_model.describe_wan(files, name=path.resolve().name)
    config = files.backbones[0].config
    rows = {
        "model": f"{manifest.name}, {file_fingerprint(path)}",
        "kind": f"{variant}, in the layout {files.layout}",
        "licence": manifest.licence,
        **_abilities(manifest),
        "backbone": (
            f"d={config.d}, {config.num_layers} layers, {config.num_heads} heads, "
            f"{config.in_channels} input channels"
        ),
    }

    num_parameters = 0
    for name, component in files.parts.items():
        types = {str(dtype).removeprefix("torch.") for dtype in component.dtypes.values()}
        num_parameters += component.num_parameters
        rows[f"{name}/"] = _component_line(component.num_parameters, component.size_bytes, types)
    rows["memory"] = (
        f"{2 * num_parameters / 2**30:.2f} GiB for all weights in bfloat16, "
        f"{4 * num_parameters / 2**30:.2f} GiB in float32"
    )
    return rows


def _abilities(manifest: "Manifest") -> dict[str, str]:
    """Trained sizes and lengths, and the defaults of a request."""
    min_side, max_side, multiple = manifest.sides
    (min_frames, max_frames), fps = manifest.frames, manifest.fps
    height, width = manifest.default_size
    return {
        "sizes": (
            f"width and height {min_side} to {max_side} pixels in steps of {multiple}; "
            f"default {width}x{height}"
        ),
        "lengths": (
            f"{min_frames} to {max_frames} frames, up to {max_frames / fps:.3g} s at {fps:g} fps; "
            f"default {manifest.default_frames} frames"
        ),
        "sampling": (
            f"by default {manifest.sampler}, {manifest.steps} steps, guidance {manifest.guidance:g}, "
            f"shift {manifest.shift:g}"
        ),
        "trained on": f"the {manifest.schedule} noise schedule, predicting {manifest.prediction}",
    }


def _components(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, line) of every subfolder with weights, read from the headers of the files."""
    from kinema.checkpoints.tensors import opened

    for component in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(component.glob("*.safetensors"))
        if not files:
            continue
        num_parameters, kinds = 0, set()
        for file in files:
            with opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  the file is no mapping
                    tensor = tensors.get_slice(name)
                    num_parameters += math.prod(tensor.get_shape())
                    kinds.add(tensor.get_dtype())
        size_bytes = sum(file.stat().st_size for file in files)
        yield component.name, _component_line(num_parameters, size_bytes, kinds)


def _component_line(num_parameters: int, size_bytes: int, types: set[str]) -> str:
    """One line with the size of a component and its tensor types."""
    return (
        f"{num_parameters / 1e6:.2f} million parameters, {size_bytes / 1e6:.1f} MB of "
        f"{' and '.join(sorted(types))}"
    )
