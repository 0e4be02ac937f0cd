"""The pipeline of the tiny model."""

import pytest

from kinema.generate.pipeline import Pipeline, load


@pytest.fixture(scope="session")
def pipeline(model_folder) -> Pipeline:
    return load(model_folder)
