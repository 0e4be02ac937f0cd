"""A job folder that version 0.1.0 wrote: the extension of a clip, interrupted in its second window."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import kinema
from kinema.generation.job import LATENTS, STATE, Job
from kinema.generation.request import Request

RELEASED = Path(__file__).parents[1] / "released" / "0.1.0"


@pytest.fixture
def job(tmp_path):
    """A copy of the job folder."""
    return Job(Path(shutil.copytree(RELEASED / "job", tmp_path / "job")))


def test_the_request_of_0_1_0_is_read_and_its_renamed_fields_are_written_anew(job):
    old = json.loads((job.folder / "request.json").read_text(encoding="utf-8"))
    request = job.request()
    assert request.original_prompt == old["written"] == "a ball rolls"
    (condition,) = request.conditions
    assert condition.media == old["places"][0]["media"]
    assert condition.seconds == old["places"][0]["seconds"] == 1.125

    new = request.to_dict()
    assert set(new) == set(old) - {"places", "written"} | {"conditions", "original_prompt"}
    assert Request.from_json(request.to_json()) == request


def test_a_job_of_0_1_0_continues_with_the_frames_of_an_uninterrupted_run(job):
    pipeline = kinema.load(RELEASED / "model", device="cpu", precision="fp32")
    state = job.state(model_hash=pipeline.model_hash)
    assert state is not None
    assert (state.window, state.next_step) == (1, 4)
    assert not job.is_sampled

    steps = []
    result = pipeline.continue_job(job.folder, on_step=steps.append)
    assert [step.index for step in steps if step.phase == "sample"] == [10, 11]
    assert (job.folder / LATENTS).is_file()
    assert not (job.folder / STATE).exists()

    expected = np.load(RELEASED / "job_frames.npy")
    clip = job.inputs(result.plan.request)[result.plan.request.conditions[0].media]
    assert np.array_equal(result.video.frames[: clip.num_frames], clip.frames)
    # CPUs round differently.
    assert np.abs(result.video.frames.astype(int) - expected).max() <= 1
