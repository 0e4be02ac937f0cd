"""What the steps of one build share: recipe, VAE, stored results, engine and error budget."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinema.checkpoints.components import load_vae
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.tensors import vae_hash
from kinema.data.curation.engine import Engine, StepFunction, WorkItem, WorkOutcome
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.store import Store
from kinema.errors import DataError
from kinema.models.vae import VAEConfig

log = logging.getLogger(__name__)

ALWAYS_ALLOWED = 3
"""Unusable files that every error budget allows."""
CLIPS_PER_ITEM = 16
"""Clips of one file that one work item decodes."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the number of items done and their total."""


@dataclass(frozen=True)
class DatasetVAE:
    """The VAE of a data set: its folder, its configuration and a hash of its weights."""

    folder: Path
    config: VAEConfig
    weights: str

    @classmethod
    def load(cls, name: str) -> "DatasetVAE":
        """The VAE called `name` in a recipe. Raises `ModelError` if it does not exist or is damaged."""
        folder = resolve_model(name)
        vae = load_vae(folder)
        return cls(folder, vae.config, vae_hash(vae))

    @property
    def multiple(self) -> int:
        """Sides of clips are multiples of this: two latents, which is one patch of the DiT."""
        return 2 * self.config.spatial_factor


class ErrorBudget:
    """Counts unusable files. More than `share` of `num_files` (and more than `ALWAYS_ALLOWED`) stop the
    build.
    """

    def __init__(self, num_files: int, share: float) -> None:
        self.num_files, self.share = num_files, share
        self.num_unusable = 0
        self.first = ""

    def count(self, path: str, reason: str) -> None:
        """Count the file at `path` if there is a `reason`. Raises `DataError` when the budget is exceeded."""
        if not reason:
            return

        self.num_unusable += 1
        self.first = self.first or f"{path}: {reason}"
        log.info("quarantined %s: %s", path, reason)

        if self.num_unusable > max(ALWAYS_ALLOWED, self.share * self.num_files):
            raise DataError(
                f"{self.num_unusable} of {self.num_files} files cannot be used, and error_budget allows "
                f"{self.share:.0%}; the first is {self.first}. Fix or remove them, or raise the budget: "
                "--set work.error_budget=0.5 (finished work is kept)"
            )


@dataclass(frozen=True, eq=False)
class BuildContext:
    """One build: where it writes, its recipe, and how its work is run. `retry` repeats stored failures."""

    out: Path
    recipe: DataRecipe
    vae: DatasetVAE
    engine: Engine
    store: Store
    errors: ErrorBudget
    retry: bool
    progress: Progress

    def run_stored(
        self,
        step: str,
        kind: str,
        function: StepFunction,
        items: Sequence[WorkItem],
        *,
        stores_failures: bool = True,
    ) -> dict[str, WorkOutcome]:
        """The outcome of every item by key: from the store, or run now and stored under `kind`.

        A stored failure is used if it had at least the deadline of the item, unless `retry` is set.
        """
        outcomes: dict[str, WorkOutcome] = {}
        missing: dict[str, WorkItem] = {}
        for item in items:
            stored = self._stored(kind, item)
            if stored is None:
                missing[item.key] = item
            else:
                outcomes[item.key] = stored
                self.errors.count(str(item.arguments["path"]), stored.reason)

        total = len(outcomes) + len(missing)
        self.progress(step, len(outcomes), total)

        for outcome in self.engine.run(function, list(missing.values())):
            item = missing[outcome.key]
            outcomes[outcome.key] = outcome
            if outcome.result is not None or stores_failures:
                record = {**dataclasses.asdict(outcome), "deadline_s": item.deadline_s}
                self.store.put(kind, outcome.key, record)
            self.progress(step, len(outcomes), total)
            self.errors.count(str(item.arguments["path"]), outcome.reason)

        return outcomes

    def _stored(self, kind: str, item: WorkItem) -> WorkOutcome | None:
        record = self.store.get(kind, item.key)
        if record is None:
            return None
        if record["result"] is None and (self.retry or record["deadline_s"] < item.deadline_s):
            return None
        return WorkOutcome(item.key, record["result"], record["reason"], record["seconds"])
