"""Inspects, verifies and converts models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.terminal import table

if TYPE_CHECKING:
    from kinema.checkpoints.families.base import ComponentFiles
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
    """Writes a model in another layout of its family. Tensors are copied bit for bit."""
    from kinema.checkpoints.families import find_family
    from kinema.errors import ModelError

    family, path = find_family(source)
    if family.convert is None:
        raise ModelError(f"{source} has the only layout of its family: convert models of the Wan family")
    components = family.convert(path, target, layout).components.values()
    num_tensors = sum(component.num_tensors for component in components)
    size_bytes = sum(component.size_bytes for component in components)
    print(f"{target}: {num_tensors} tensors, {size_bytes / 1e6:.1f} MB in the layout {layout}")


def verify(model: str) -> None:
    """Reads every file of a model and compares its hash with kinema.json."""
    from kinema.checkpoints import folders, manifest

    folder = folders.resolve_model(model)
    num_files = manifest.verify_hashes(folder)
    print(f"{folder}: {num_files} files as they were written, model {manifest.model_hash(folder)}")


def inspect(model: str) -> None:
    """Prints the abilities and the components of a model, without loading weights."""
    from kinema.checkpoints.families import find_family
    from kinema.config import to_dict

    family, path = find_family(model)
    files = family.inspect(path)
    manifest, backbone = files.sizes.manifest, files.sizes.backbone
    rows = {
        "model": f"{manifest.name}, {family.fingerprint(path)}",
        "kind": files.kind,
        "licence": manifest.licence,
    }
    if manifest.card.get("notes"):
        rows["notes"] = str(manifest.card["notes"])
    rows |= _abilities(manifest)
    rows["backbone"] = ", ".join(f"{name}={value}" for name, value in to_dict(backbone).items())
    rows |= {f"{name}/": _component_line(component) for name, component in files.components.items()}
    num_parameters = sum(component.num_parameters for component in files.components.values())
    rows["memory"] = (
        f"{2 * num_parameters / 2**30:.2f} GiB for all weights in bfloat16, "
        f"{4 * num_parameters / 2**30:.2f} GiB in float32"
    )
    vocabulary = manifest.vocabulary.items()
    rows |= {f"known {kind}": f"{len(words)}: {', '.join(words)}" for kind, words in vocabulary}
    rows |= dict(sorted(manifest.sha256.items()))
    print(table(rows.items()))


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


def _component_line(component: "ComponentFiles") -> str:
    """One line with the size of a component and its tensor types."""
    return (
        f"{component.num_parameters / 1e6:.2f} million parameters, {component.size_bytes / 1e6:.1f} MB of "
        f"{' and '.join(sorted(component.dtypes))}"
    )
