"""How far a generation has come, shown while it runs: a bar in the terminal, and a small moving picture of what it will be."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.generation.pipeline import OnStep, Pipeline, Step

STAGES = {"sample": "sampling", "decode": "decoding"}
PREVIEW_SHARE = 0.25
"""Most of the time that previews may take."""


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


@contextmanager
def with_preview(
    shown: "AbstractContextManager[OnStep]", pipeline: "Pipeline", path: Path
) -> Iterator["OnStep"]:
    """`shown`, and at `path` an animated GIF of half the size of what the present window begins to look like.

    It is decoded from the sampler's estimate of the clean latents, as often as `PREVIEW_SHARE` of the time allows.
    """
    import numpy as np

    from kinema.models.pixels import to_uint8
    from kinema.video import Video

    begun, spent = time.perf_counter(), 0.0
    with shown as inner:

        def on_step(step: "Step") -> None:
            nonlocal spent
            inner(step)
            now = time.perf_counter()
            if step.x0 is None or spent > PREVIEW_SHARE * (now - begun):
                return
            pieces = pipeline.vae.stream_decode([pipeline.vae.denormalise(step.x0.unsqueeze(0))], clamp=True)
            frames = [frame[::2, ::2] for piece in pieces for frame in to_uint8(piece[0])]
            Video(np.stack(frames), pipeline.manifest.fps).save(path)
            spent += time.perf_counter() - now

        yield on_step
