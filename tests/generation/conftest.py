"""The pipeline of the tiny model."""

import pytest

from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline


@pytest.fixture(scope="session")
def pipeline(model_folder) -> Pipeline:
    return load(model_folder)
