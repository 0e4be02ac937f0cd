"""Objects that a prompt names, as the shipped model reads it."""

import pytest

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.manifest import load_manifest
from kinema.checkpoints.shipped import shipped_model
from kinema.prompts.objects import named_objects, with_objects
from kinema.prompts.reading import read_prompt

MANIFEST = load_manifest(shipped_model())


@pytest.fixture(scope="module")
def tokenizer():
    return load_clip(shipped_model()).tokenizer


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        ("two elephants play chess on the moon", {"elephant": "elephants", "star": "moon"}),
        ("a teddy bear and a football", {"teddy bear": "teddy bear", "soccer ball": "football"}),
        ("a soccer ball rolls across the grass", {"soccer ball": "soccer ball"}),
        ("a fox and another fox", {"fox": "fox"}),
        ("大象和狐狸在雪地上", {"elephant": "大象", "fox": "狐狸"}),
        ("snow at night", {}),
    ],
)
def test_objects_are_those_that_the_model_reads(tokenizer, prompt, objects):
    assert named_objects(tokenizer.explain(prompt), MANIFEST.object_names) == objects


def test_more_objects_than_the_model_draws_are_reported_and_as_many_are_not(tokenizer):
    report = read_prompt(tokenizer, "two elephants play chess on the moon")
    counted = with_objects(report, MANIFEST.object_names, 1)
    assert counted.text.endswith(
        "the model draws 1 of these 2 objects: elephant ('elephants'), star ('moon')"
    )
    assert with_objects(report, MANIFEST.object_names, 2) is report
    assert with_objects(report, MANIFEST.object_names, None) is report
    assert with_objects(report, {}, 1) is report


def test_the_shipped_manifest_names_every_noun_of_its_world():
    assert MANIFEST.max_objects == 1
    assert set(MANIFEST.object_names) == set(MANIFEST.vocabulary["nouns"])
