"""Step 8: shards, tables and dataset.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kinema.config import to_dict
from kinema.data.curation.array_store import ArrayStore
from kinema.data.curation.context import BuildContext
from kinema.data.curation.funnel import Funnel
from kinema.data.curation.steps import analyze, encode, score
from kinema.data.dataset import (
    CARD,
    LATENT_SHARDS,
    SCHEMA_VERSION,
    SHARD_KINDS,
    ClipRow,
    Row,
    SourceRow,
    parquet,
    to_table,
)
from kinema.files import atomic_file, content_key, output_errors, sha256_of, write_json
from kinema.video import pyav

STEPS = "kinema.data.curation.steps"


def write_dataset(
    context: BuildContext,
    sources: Sequence[SourceRow],
    clips: Sequence[ClipRow],
    stores: Sequence[ArrayStore],
    writer: Mapping[str, Any],
    funnel: Funnel,
) -> None:
    """Write shards, tables and, last, dataset.json; then remove the files that it does not name.

    `writer` identifies the writer of captions. Raises `OutputError` if a file cannot be written.
    """
    out, recipe = context.out, context.recipe
    rows, shards = _write_shards(context, clips, stores)
    tables = {
        "clips": _write_table(out, "clips", rows, ClipRow),
        "sources": _write_table(out, "sources", sources, SourceRow),
    }
    card = {
        "schema_version": SCHEMA_VERSION,
        "tables": tables,
        **{
            kind.folder: {name: sha256_of(out / kind.folder / name) for name in names}
            for kind, names in zip(SHARD_KINDS, shards)
        },
        "num_clips": sum(clip.is_kept for clip in clips),
        "recipe": to_dict(recipe),
        "vae": {"name": recipe.vae, "weights": context.vae.weights},
        "stages": _lineage(context, writer),
        "funnel": [[name, left, dict(reasons)] for name, left, reasons in funnel.rows],
    }
    write_json(out / CARD, card)

    _remove_old_tables(out, set(tables.values()))
    for store, names in zip(stores, shards):
        store.remove_others(names)


def _write_shards(
    context: BuildContext, clips: Sequence[ClipRow], stores: Sequence[ArrayStore]
) -> tuple[list[ClipRow], list[list[str]]]:
    """The rows with shards and latent sizes of the kept clips, and the file names of the shards of each
    store.
    """
    rows = list(clips)
    kept = [index for index, clip in enumerate(clips) if clip.is_kept]
    size = context.recipe.work.shard_clips
    starts = range(0, len(kept), size)
    shards: list[list[str]] = [[] for _ in stores]

    for done, start in enumerate(starts, 1):
        indices = kept[start : start + size]
        for store, names in zip(stores, shards):
            keys = [getattr(clips[index], store.kind.key) for index in indices]
            if not all(keys):
                continue
            names.append(f"{content_key([keys])}.safetensors")
            shapes = store.write_shard(names[-1], keys)

            for index, key in zip(indices, keys):
                columns: dict[str, Any] = {store.kind.shard: names[-1]}
                if store.kind is LATENT_SHARDS:
                    sizes = ("latent_frames", "latent_height", "latent_width")
                    columns |= zip(sizes, shapes[key][1:])
                rows[index] = replace(rows[index], **columns)
        context.progress("shards", done, len(starts))

    return rows, shards


def _write_table(out: Path, name: str, rows: Sequence[Row], kind: type[Row]) -> str:
    """The name of the Parquet file of the rows, which contains their hash; written unless it exists."""
    file_name = f"{name}-{content_key([[dataclasses.asdict(row) for row in rows]])[:16]}.parquet"
    path = out / file_name
    if not path.exists():
        table = to_table(rows, kind)
        with atomic_file(path) as partial, output_errors(path):
            parquet().write_table(table, partial)
    return file_name


def _remove_old_tables(out: Path, names: set[str]) -> None:
    """Remove the tables whose file names are not in `names`."""
    for path in [*out.glob("clips-*.parquet"), *out.glob("sources-*.parquet")]:
        if path.name not in names:
            path.unlink()


def _lineage(context: BuildContext, writer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, tool, version and parameters of every step, in order."""
    import cv2

    recipe = context.recipe
    tables = to_dict(recipe)
    package, decoder = _package_version(), f"PyAV {pyav.load().__version__}"
    analysis = {"side": recipe.side, "cuts": tables["cuts"], "clips": tables["clips"]}
    models = {"agreement": tables["agreement"], "scorers": tables["scorers"], "version": score.VERSION}
    latents = {"vae": recipe.vae, "weights": context.vae.weights, "version": encode.VERSION}
    caption_tool = f"{STEPS}.caption" if writer else "kinema.data.curation.sources"

    rows: list[tuple[str, str, str, Mapping[str, Any]]] = [
        ("probe", f"{STEPS}.probe", decoder, {}),
        ("analyze", f"{STEPS}.analyze", f"{analyze.VERSION}, {decoder}, OpenCV {cv2.__version__}", analysis),
        ("filter", "kinema.data.curation.filters", package, tables["filters"]),
        ("dedup", "kinema.data.curation.dedup", package, tables["dedup"]),
        ("caption", caption_tool, package, dict(writer)),
        ("score", f"{STEPS}.score", package, models),
        ("encode", f"{STEPS}.encode", package, latents),
    ]
    return [
        {"stage": name, "tool": tool, "version": tool_version, "parameters": parameters}
        for name, tool, tool_version, parameters in rows
    ]


def _package_version() -> str:
    """The version of Kinema; empty if it runs from a checkout that is not installed."""
    try:
        return version("kinema")
    except PackageNotFoundError:
        return ""
