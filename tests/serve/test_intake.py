"""Tasks of the server as requests: the prompt of a clip."""

import numpy as np
import pytest

from kinema.generation.conditioning.clips import TimedPrompt
from kinema.generation.output.provenance import metadata, provenance
from kinema.generation.request import Request
from kinema.serve.intake import Intake, check
from kinema.serve.models import describe
from kinema.video import Video


@pytest.fixture(scope="module")
def model():
    return describe("nano", "shipped")


@pytest.mark.parametrize(("direction", "prompt"), [("forward", "a ball rolls"), ("backward", "a fox runs")])
def test_an_extension_takes_the_prompt_at_the_extended_end(model, tmp_path, direction, prompt):
    size = {"width": 96, "height": 96, "frames": 9}
    made = Request("a fox runs", prompts=(TimedPrompt(0.5, "a ball rolls"),), **size)
    values = provenance(model.plan(made), model_name="nano", model_hash="0" * 12)
    file = Video(np.zeros((9, 96, 96, 3), np.uint8), 8.0).save(
        tmp_path / "clip.mkv", metadata=metadata(values)
    )

    intake = Intake("extend", {}, {"seconds": 1.0, "direction": direction}, {"clip": str(file)})
    assert check(intake, model, tmp_path / "media").request.prompt == prompt
