"""What is measured of a task is what it says: the truth scores as truth, a frozen picture as frozen."""

from dataclasses import replace

import numpy as np
import pytest

from kinema.evaluate import tasks
from kinema.generate.pipeline import load
from kinema.worlds import StageConfig, StageWorld

STEPS = {"steps": 1, "seed": 0}


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def clip():
    world = StageWorld(StageConfig(verbs=("roll",), max_objects=1, cameras=("still",)))
    return world.clip(3, height=32, width=48, num_frames=17, fps=8.0)


def test_the_truth_moves_as_the_truth_and_a_frozen_picture_fails(clip):
    new = slice(9, None)
    true = tasks._joined(clip.frames, clip.frames, [slice(0, 9)], new)
    assert (true.motion, true.truth, true.kept) == (pytest.approx(1), 0, True)
    frozen = np.concatenate([clip.frames[:9], np.repeat(clip.frames[8:9], 8, axis=0)])
    still = tasks._joined(frozen, clip.frames, [slice(0, 9)], new)
    assert (still.motion, still.truth) == (0, pytest.approx(1))
    assert not still.is_good
    flash = clip.frames.copy()
    flash[9:] = 255 - flash[9:]
    assert tasks._joined(flash, clip.frames, [slice(0, 9)], new).seam > 10
    flash[0] += 1
    assert not tasks._joined(flash, clip.frames, [slice(0, 9)], new).kept


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_extension_is_measured_at_its_join(pipeline, clip, direction):
    measured = tasks.measure_extension(pipeline, clip, num_known=9, direction=direction, **STEPS)
    assert measured.kept
    assert measured.seam > 0 < measured.motion


def test_connections_loops_and_edits_are_measured(pipeline, clip):
    assert tasks.measure_connection(pipeline, replace(clip, frames=clip.frames[:14]), num_known=5, **STEPS).kept
    loops = [tasks.measure_loop(pipeline, "a red fox", frames=8, width=32, height=32, **STEPS)]
    assert tasks.rows(loops)["seam"] == pytest.approx(loops[0].seam)
    edited = tasks.measure_region_edit(pipeline, clip, "a red fox", region=(8, 8, 16, 16), **STEPS)
    assert edited.outside
    assert edited.inside > 0


def test_drift_is_measured_beside_plain_extension(pipeline):
    drifted = tasks.measure_drift(pipeline, "a red fox", seconds=4, width=32, height=32, **STEPS)
    assert set(drifted.slopes) == set(drifted.plain_slopes)
    assert drifted.ratio > 0
