"""Looks into models: what one can do and is made of, and whether its files are as they were written; writes one in another layout."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.checkpoints.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for act, help_line in (
        (inspect, "sizes, lengths, words, parameters, licence and hashes of a model"),
        (verify, "compare every file's hash"),
    ):
        action = actions.add_parser(act.__name__, help=help_line, description=act.__doc__)
        action.add_argument(
            "model",
            nargs="?",
            default="shipped",
            metavar="MODEL",
            help="a model folder (default: the one inside the package)",
        )
        action.set_defaults(act=act)

    action = actions.add_parser(
        "convert", help="write a model of the Wan family in another layout", description=convert.__doc__
    )
    action.add_argument("source", type=Path, metavar="A", help="a model folder or file, in any layout")
    action.add_argument("target", type=Path, metavar="B", help="the folder to write")
    action.add_argument(
        "--layout", required=True, metavar="NAME", help="kinema, diffusers, wan (the original files) or comfy"
    )
    action.set_defaults(act=None)


def run(arguments: argparse.Namespace) -> int:
    from kinema.checkpoints.families.wan.model import is_wan
    from kinema.checkpoints.folders import resolve_model

    if arguments.act is None:
        convert(arguments.source, arguments.target, arguments.layout)
    elif arguments.act is inspect and is_wan(Path(arguments.model)):
        inspect_wan(Path(arguments.model))
    else:
        arguments.act(resolve_model(arguments.model))
    return 0


def convert(source: Path, target: Path, layout: str) -> None:
    """Writes a model of the Wan family in another layout, tensors bit for bit."""
    from kinema.checkpoints.families.wan.convert import convert as write

    files = write(source, target, layout)
    num_tensors = sum(len(part) for part in files.parts.values())
    print(
        f"{target}: {num_tensors} tensors, {sum(part.size_bytes for part in files.parts.values()) / 1e6:.1f} MB in the layout {layout}"
    )


def inspect_wan(path: Path) -> None:
    """Prints what a model of the Wan family can do and is made of; no weights are loaded."""
    from kinema.checkpoints.families.wan.files import find_wan_files
    from kinema.checkpoints.families.wan.model import describe_wan, file_fingerprint

    files = find_wan_files(path)
    variant, manifest = describe_wan(files, name=path.resolve().name)
    config = files.backbones[0].config
    rows = {
        "model": f"{manifest.name}, {file_fingerprint(path)}",
        "kind": f"{variant}, in the layout {files.layout}",
        "licence": manifest.licence,
        **_abilities(manifest),
        "backbone": f"d={config.d}, {config.num_layers} layers, {config.num_heads} heads, {config.in_channels} channels in",
    }
    total = 0
    for name, part in files.parts.items():
        types = sorted({str(dtype).removeprefix("torch.") for dtype in part.dtypes.values()})
        total += part.num_parameters
        rows[f"{name}/"] = (
            f"{part.num_parameters / 1e6:.2f} million parameters, {part.size_bytes / 1e6:.1f} MB of {' and '.join(types)}"
        )
    rows["memory"] = (
        f"{2 * total / 2**30:.2f} GiB for all weights in bfloat16, {4 * total / 2**30:.2f} GiB in float32"
    )
    width = max(map(len, rows))
    for name, line in rows.items():
        print(f"{name:<{width}}  {line}")


def verify(folder: Path) -> None:
    """Reads every file of a model and compares its hash with the one in kinema.json."""
    from kinema.checkpoints.manifest import model_hash, verify_hashes

    num_files = verify_hashes(folder)
    print(f"{folder}: {num_files} files as they were written, model {model_hash(folder)}")


def inspect(folder: Path) -> None:
    """Prints what a model can do and what it is made of; no weights are loaded."""
    from kinema.checkpoints.manifest import load_manifest, model_hash

    manifest = load_manifest(folder)
    rows = {
        "model": f"{manifest.name}, {model_hash(folder)}",
        "licence": manifest.licence,
        **({"notes": str(manifest.card["notes"])} if manifest.card.get("notes") else {}),
        **_abilities(manifest),
        **{f"{name}/": line for name, line in _components(folder)},
        **{
            f"{kind} it knows": f"{len(words)}: {', '.join(words)}"
            for kind, words in manifest.vocabulary.items()
        },
        **{name: digest for name, digest in sorted(manifest.sha256.items())},
    }
    width = max(map(len, rows))
    for name, line in rows.items():
        print(f"{name:<{width}}  {line}")


def _abilities(manifest: "Manifest") -> dict[str, str]:
    """What the model was trained for, and what it does when nothing is asked for."""
    least, most, multiple = manifest.sides
    (fewest, longest), fps = manifest.frames, manifest.fps
    height, width = manifest.default_size
    return {
        "sizes": f"width and height {least} to {most} pixels in steps of {multiple}; {width}x{height} unless asked",
        "lengths": f"{fewest} to {longest} frames, up to {longest / fps:.3g} s at {fps:g} fps; {manifest.default_frames} unless asked",
        "sampling": f"{manifest.sampler}, {manifest.steps} steps, guidance {manifest.guidance:g}, shift {manifest.shift:g} unless asked",
        "trained on": f"the {manifest.schedule} noise schedule, predicting {manifest.prediction}",
    }


def _components(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, parameters and size) of every subfolder that holds weights, read from the files' headers."""
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
        yield (
            component.name,
            f"{num_parameters / 1e6:.2f} million parameters, {size_bytes / 1e6:.1f} MB of {' and '.join(sorted(kinds))}",
        )
