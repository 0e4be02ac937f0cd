"""Progress of a generation: a bar in the terminal, and an animated preview."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from kinema.generation.pipeline import Pipeline
from kinema.generation.result import OnStep, Step
from kinema.models.pixels import to_uint8
from kinema.terminal import ProgressBars
from kinema.video import Video

PHASES = {"sample": "sampling", "decode": "decoding"}
PREVIEW_SHARE = 0.25
"""Maximum share of the time that previews take."""


@contextmanager
def progress_bar() -> Iterator["OnStep"]:
    """A function that draws each step in a progress bar, if standard error is a terminal."""
    with ProgressBars() as bars:
        yield lambda step: bars.show(PHASES[step.phase], step.index + 1, step.total)


@contextmanager
def with_preview(
    progress: "AbstractContextManager[OnStep]", pipeline: "Pipeline", path: Path
) -> Iterator["OnStep"]:
    """The callback of `progress`, which also writes a preview of the current window to `path`: an animated
    GIF of half the size.

    It is decoded from the sampler's estimate of the clean latents, as often as `PREVIEW_SHARE` of the time
    allows.
    """
    start_s, preview_s = time.perf_counter(), 0.0
    with progress as show:

        def on_step(step: "Step") -> None:
            nonlocal preview_s
            show(step)

            now = time.perf_counter()
            if step.x0 is None or preview_s > PREVIEW_SHARE * (now - start_s):
                return

            chunks = pipeline.vae.stream_decode([pipeline.vae.denormalise(step.x0.unsqueeze(0))], clamp=True)
            frames = [frame[::2, ::2] for chunk in chunks for frame in to_uint8(chunk[0])]
            Video(np.stack(frames), pipeline.manifest.fps).save(path)
            preview_s += time.perf_counter() - now

        yield on_step
