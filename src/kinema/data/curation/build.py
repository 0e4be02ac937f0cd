"""The build of a data set: the chain of steps from files to shards.

Each step takes the rows of the steps before it. What costs time runs in child processes (`engine`) and is
stored as soon as it is done (`store`); what follows from rows alone is computed in every build.
"""

from pathlib import Path

from kinema.data.curation import plug_ins
from kinema.data.curation.array_store import ArrayStore
from kinema.data.curation.context import BuildContext, DatasetVAE, ErrorBudget, Progress
from kinema.data.curation.engine import Engine, Pool
from kinema.data.curation.funnel import Funnel, count_funnel
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.sources import find_files
from kinema.data.curation.steps.analyze import analyze_files
from kinema.data.curation.steps.caption import add_captions
from kinema.data.curation.steps.cut import cut_clips
from kinema.data.curation.steps.deduplicate import drop_duplicates
from kinema.data.curation.steps.encode import encode_clips
from kinema.data.curation.steps.probe import probe_files
from kinema.data.curation.steps.score import score_clips
from kinema.data.curation.steps.write import write_dataset
from kinema.data.curation.store import Store, only_builder
from kinema.data.dataset import SHARD_KINDS, parquet
from kinema.errors import DataError


def build(
    path: Path,
    out: Path,
    recipe: DataRecipe | None = None,
    *,
    engine: Engine | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> Funnel:
    """Build the data set `out` from the files of `path`, a folder or a list of files; returns the funnel.

    A build that is killed at any moment and called again continues with the remaining work; the result is the
    same bit for bit. Failures are repeated only with `retry`, with another recipe, or when the file has
    changed. Raises `DataError` if more files are unusable than the error budget allows, or if no clip is
    kept.
    """
    recipe = recipe or DataRecipe()
    parquet()  # fails before the work, not after it, if pyarrow is missing
    files = find_files(path)
    for function in (recipe.cuts.function, *(rule.function for rule in recipe.scorers.values())):
        if function is not None:
            plug_ins.load_function(function)
    vae = DatasetVAE.load(recipe.vae)

    with only_builder(out):
        context = BuildContext(
            out,
            recipe,
            vae,
            engine or Pool(),
            Store(out),
            ErrorBudget(len(files), recipe.work.error_budget),
            retry,
            progress or (lambda step, done, total: None),
        )
        sources = probe_files(context, files)
        sources, analyses = analyze_files(context, sources)
        clips, signatures = cut_clips(context, sources, analyses, files)
        clips = drop_duplicates(clips, signatures, recipe.dedup)
        clips, writer = add_captions(context, clips, sources)
        clips = score_clips(context, clips, sources)
        stores = [ArrayStore(out, context.store, kind) for kind in SHARD_KINDS]
        clips, sources = encode_clips(context, clips, sources, stores)
        funnel = count_funnel(len(files), sources, clips)
        write_dataset(context, sources, clips, stores, writer, funnel)

    if not any(clip.is_kept for clip in clips):
        raise DataError(f"no clip of {path} is kept:\n" + "\n".join(funnel.lines()))
    return funnel
