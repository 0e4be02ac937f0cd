"""The pipeline of the tiny model."""

import pytest

from kinema.generate.loading import load
from kinema.generate.pipeline import Pipeline


@pytest.fixture(scope="session")
def pipeline(model_folder) -> Pipeline:
    return load(model_folder)
