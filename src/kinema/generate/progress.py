"""A bar that shows how far a generation has come."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.generate.pipeline import OnStep, Step

STAGES = {"sample": "sampling", "decode": "decoding"}


@contextmanager
def progress_bar() -> Iterator["OnStep"]:
    """A function that shows each step in a bar on the terminal, and nothing where there is none."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bars = {stage: progress.add_task(title, total=None, start=False) for stage, title in STAGES.items()}

        def on_step(step: "Step") -> None:
            progress.start_task(bars[step.stage])
            progress.update(bars[step.stage], completed=step.index + 1, total=step.total)

        yield on_step
