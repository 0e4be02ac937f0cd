from collections.abc import Callable
from pathlib import Path

import pytest

from kinema.config import from_dict, override
from kinema.data.curation.build import build
from kinema.data.curation.engine import attempt
from kinema.data.curation.funnel import Funnel
from kinema.data.curation.recipe import DataRecipe

Build = Callable[..., Funnel]


class Here:
    """An engine that runs step functions in this process and records what it runs."""

    def __init__(self):
        self.done: list[str] = []

    def run(self, function, items):
        for item in items:
            self.done.append(f"{function.__name__} {Path(item.arguments['path']).name}")
            yield attempt(function, item)


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def built(model_folder, here) -> Build:
    """Builds a data set with the tiny VAE; settings are those of --set."""

    def run(place: Path, out: Path, *settings: str, engine=here, **options) -> Funnel:
        small = (f"vae={model_folder}", "clips.area=8192", "licence=CC0", *settings)
        return build(place, out, from_dict(DataRecipe, override({}, small)), engine=engine, **options)

    return run
