"""What a generation yields: a `Step` for each unit of work, and at the end a `Result`, or a `Failure`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from kinema.errors import KinemaError
from kinema.generation.output.provenance import metadata, provenance
from kinema.generation.plan import Plan
from kinema.prompts.reading import PromptReport
from kinema.video import Video

OnStep = Callable[["Step"], None]
Phase = Literal["sample", "decode"]


@dataclass(frozen=True, eq=False)
class Step:
    """One unit of work that was done: a step of the sampler, or a few decoded frames."""

    phase: Phase
    index: int
    """The step, or frame of the canvas, that was finished: from 0 to `total - 1` in each phase."""
    total: int
    seconds: float
    """Seconds since the phase began."""
    x0: Tensor | None = None
    """While sampling, the estimate of the window's clean latents (c, lf, lh, lw) on the model's device."""
    num_computed: int | None = None
    """With a cache, the number of estimates that the network has computed so far, over all windows."""
    item: int = 0
    """The index of the request in its batch."""


@dataclass(frozen=True, eq=False)
class Result:
    """A video and how it was generated."""

    video: Video
    plan: Plan
    prompt: PromptReport
    model_name: str
    model_hash: str
    similarity: float | None
    """Similarity of video and prompt by the model's CLIP, -1 to 1, for ranking seeds. None without a CLIP."""
    seconds: float
    """Total wall-clock seconds."""
    notes: tuple[str, ...] = ()
    """How each input was fitted, one line each."""
    warnings: tuple[str, ...] = ()
    """Problems that the run recovered from, one line each."""
    report: dict[str, Any] = field(default_factory=dict)
    """Quality in numbers (`QualityMonitor.report`), and as "cache" the numbers of estimates and of steps."""
    path: Path | None = None
    """The file that the whole video was written to."""
    item: int = 0
    """The index of the request in its batch."""
    shown_object: str | None = None
    """The object of `prompt.objects` that the video is most like, by the model's own CLIP."""

    @property
    def object_line(self) -> str:
        """One line that states which of the objects of the prompt is shown; empty if all can be."""
        if self.shown_object is None:
            return ""
        names = ", ".join(name for name, _ in self.prompt.objects)
        return f"of {names} the video is most like {self.shown_object}, by the model's CLIP"

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to generate this video again. `save` writes it into the file."""
        return provenance(self.plan, model_name=self.model_name, model_hash=self.model_hash)

    def save(self, path: str | Path) -> Path:
        """Write the video with its provenance, in the format that the suffix of `path` names, and return its
        path.

        Raises the errors of `Video.save`.
        """
        return self.video.save(path, metadata=metadata(self.provenance))


@dataclass(frozen=True, eq=False)
class Failure:
    """A request of a batch that failed, while the others go on."""

    error: KinemaError
    item: int
