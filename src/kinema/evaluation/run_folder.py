"""Sampling options and output folder of a benchmark. A folder belongs to one model and one set of options."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kinema.config import to_dict
from kinema.errors import OutputError
from kinema.files import read_json, write_json
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.worlds import World

T = TypeVar("T")
OnProgress = Callable[[str, int, int], None]
"""Called with a phase, the number of its items that are done, and their total number."""
CLIP_QUALITY = 12
"""Quality (CRF of x264) of an evaluation's .mp4 clips: no loss that the oracle or a viewer would notice."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How clips are sampled. None is the model's default."""

    width: int | None = None
    height: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    shift: float | None = None

    @property
    def request_fields(self) -> dict[str, Any]:
        """The fields of a `Request`."""
        names = ("width", "height", "steps", "sampler", "guidance", "shift")
        return {name: getattr(self, name) for name in names}


def reported(items: Sequence[T], phase: str, on_progress: OnProgress) -> Iterator[T]:
    """`items`, with a call of `on_progress` before each and after the last."""
    for index, item in enumerate(items):
        on_progress(phase, index, len(items))
        yield item
    on_progress(phase, len(items), len(items))


def run_settings(pipeline: Pipeline, world: World, planned: Request, names: Sequence[str]) -> dict[str, Any]:
    """Settings that identify a run: the model, its world and the fields `names` of the planned request."""
    request = planned.to_dict()
    return {
        "model": pipeline.manifest.name,
        "model_hash": pipeline.model_hash,
        "sampling": {name: request[name] for name in names},
        "world": {"name": world.name, **to_dict(world.config)},
    }


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Create the run folder `out` with `settings.json`, or check that an existing one has these settings.

    Raises `OutputError` if the folder holds a run with other settings or other files, or cannot be written.
    """
    file = out / "settings.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out} is in the way: it is not the folder of an evaluation")
        write_json(file, settings)
        return

    try:
        stored = read_json(file, OutputError)
    except OutputError as error:
        raise OutputError(f"{error}: use another --out") from None

    plain = json.loads(json.dumps(settings))
    different = [key for key in {**stored, **plain} if stored.get(key) != plain.get(key)]
    if different:
        raise OutputError(
            f"{out} holds an evaluation of another {' and '.join(different)}: use another --out"
        )
