"""Templates find what is there, and the figures of the renderer's own clips are those of no loss."""

import cv2
import numpy as np
import pytest
from bench.fidelity import Allowed, FidelityMeter, allowed_by, edge_energy, match, reference_clips

from kinema.errors import RequestError
from kinema.evaluation.samples import ClipFormat
from kinema.worlds.stage import StageConfig, StageWorld
from kinema.worlds.stage.sprites import composite, sprite

NOUNS = ("penguin", "car", "rocket", "frog", "soccer ball")
CLIPS = ClipFormat(64, 64, 5, 8.0)


@pytest.fixture(scope="module")
def world() -> StageWorld:
    return StageWorld(
        StageConfig(
            nouns=NOUNS, verbs=("walk", "drive", "rise", "hop", "fall"), max_objects=1, cameras=("still",)
        )
    )


@pytest.fixture(scope="module")
def references(world):
    return reference_clips(world, CLIPS, 4)


def blurred(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in frames])


def drawn(noun: str, size: float = 40.0, mirrored: bool = False) -> np.ndarray:
    """A noun on grey, with its corners between the pixels as a template has them."""
    canvas = np.full((64, 64, 3), 128, np.float32)
    picture = sprite(noun)
    composite(
        canvas,
        picture.level(size),
        (34.0, 30.0),
        ((-1 if mirrored else 1) * picture.width * size, picture.height * size),
        0.0,
    )
    return np.clip(canvas.round(), 0, 255).astype(np.uint8)[None]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("noun", NOUNS)
def test_a_perfect_picture_scores_near_zero_and_other_nouns_do_not(noun, mirrored):
    found = match(drawn(noun, mirrored=mirrored), NOUNS, Allowed((40.0,), (0.0,)))
    assert found.noun == noun
    assert found.score < 0.15  # the soft outline shows some of what is behind it
    assert min(score for other, score in found.scores.items() if other != noun) > 0.4


def test_a_picture_without_the_object_scores_high():
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert match(noise, NOUNS, Allowed((24.0,), (0.0,))).score > 0.8


def test_templates_that_do_not_fit_into_the_frame_are_left_out():
    small = drawn("car", 24.0)[:, 18:42, 22:48]
    assert np.isfinite(match(small, ("car",), Allowed((20.0, 60.0), (0.0,))).score)


def test_a_noun_without_a_picture_is_named():
    with pytest.raises(RequestError, match="no pictures of unicorn"):
        match(drawn("car"), ("car", "unicorn"), Allowed((24.0,), (0.0,)))


def test_angles_are_those_of_the_truth():
    def truth(*degrees: float) -> dict:
        return {"objects": [{"tracks": {"size": [0.4] * len(degrees), "degrees": list(degrees)}}]}

    assert allowed_by(truth(0.0, 0.0), 100).angles == (0.0,)
    assert allowed_by(truth(-5.0, 3.0), 100).angles == (-5.0, 0.0, 5.0)
    assert len(allowed_by(truth(0.0, 90.0), 100).angles) == 24
    assert allowed_by(truth(0.0), 100).sizes[1] == 40.0


def test_clips_of_several_objects_are_refused():
    with pytest.raises(RequestError, match="2 objects"):
        allowed_by({"objects": [{}, {}]}, 64)


def test_the_renderers_own_clips_have_nothing_lost(references):
    meter = FidelityMeter(NOUNS, num_read=2)
    for reference in references:
        meter.add(reference.frames, reference)
    result = meter.result()
    assert result.edge_ratio == 1
    assert result.psnr_db == result.object_psnr_db
    assert result.psnr_db is not None
    assert result.psnr_db > 90
    assert (result.num, result.found, result.num_read) == (4, 2, 2)


def test_blur_is_seen_by_every_figure(references):
    meters = FidelityMeter(NOUNS), FidelityMeter(NOUNS)
    for reference in references:
        meters[0].add(reference.frames, reference)
        meters[1].add(blurred(reference.frames), reference)
    sharp, soft = (meter.result() for meter in meters)
    assert soft.edge_ratio < 0.5
    assert soft.psnr_db < sharp.psnr_db
    assert soft.object_psnr_db < soft.psnr_db
    assert soft.score > 2 * sharp.score


def test_clips_that_are_no_copies_have_no_psnr(references):
    meter = FidelityMeter(NOUNS, are_copies=False, num_read=0)
    meter.add(references[0].frames, references[1])
    assert (meter.result().psnr_db, meter.result().object_psnr_db) == (None, None)


def test_the_edge_energy_of_a_step_is_that_of_the_laplacian():
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    frame[:, :, 4:] = 100
    laplacian = np.zeros((8, 8))
    laplacian[:, 3], laplacian[:, 4] = 100, -100
    assert edge_energy(frame) == pytest.approx(laplacian.std(), rel=1e-6)
