"""What scores say of films whose motion, borders and brightness are known."""

import cv2
import numpy as np
import pytest
from tests.data.curation.films import FPS, shot, texture

from kinema.config import from_dict
from kinema.data.curation.dedup import ClipSignature, difference, duplicates
from kinema.data.curation.recipe import DedupSettings
from kinema.data.curation.scores import dhash, inside_borders, motion, score


def greys(frames: np.ndarray) -> list[np.ndarray]:
    return [cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in frames]


@pytest.mark.parametrize("speed", [0, 1, 2, 4])
def test_motion_is_the_speed_in_diagonals_a_second(speed):
    measured = motion(greys(shot(1, 6, speed=speed)), 1 / FPS)
    assert measured == pytest.approx(speed * FPS / np.hypot(96, 128), rel=0.15, abs=0.002)


@pytest.mark.parametrize(("height", "width"), [(24, 320), (320, 24), (16, 96), (17, 17)])
def test_the_motion_of_a_strip_is_measured_and_does_not_end_the_process(height, width):
    still, moving = (
        motion(greys(shot(1, 6, speed=speed, height=height, width=width)), 1 / FPS) for speed in (0, 1)
    )
    assert still < 0.002 < moving


def test_borders_are_found_to_the_pixel_of_the_frame_looked_at():
    frames = np.zeros((3, 96, 128, 3), np.uint8)
    frames[:, 12:84, 16:112] = shot(1, 3, height=72, width=96)
    assert inside_borders(greys(frames)) == (12 / 96, 16 / 128, 84 / 96, 112 / 128)
    inner = score(greys(frames), 1 / FPS)
    assert inner.border == pytest.approx(1 - 72 * 96 / (96 * 128), abs=1e-5)
    assert inner.brightness == pytest.approx(score(greys(frames[:, 12:84, 16:112]), 1 / FPS).brightness)


def test_a_dark_scene_without_borders_has_none():
    assert inside_borders([np.full((20, 30), 8, np.uint8)]) == (0.0, 0.0, 1.0, 1.0)


def test_blur_lowers_sharpness_and_brightness_is_a_share():
    sharp = greys(shot(1, 3))
    blurred = [cv2.GaussianBlur(grey, (0, 0), 2) for grey in sharp]
    assert score(blurred, 1).sharpness < 0.1 * score(sharp, 1).sharpness
    assert score([np.full((64, 64), 51, np.uint8)], 1).brightness == 0.2


def seen(name: str, frames: np.ndarray) -> ClipSignature:
    return from_dict(
        ClipSignature,
        {
            "clip_id": name,
            "shot": name,
            **{k: getattr(score(greys(frames), 1), k) for k in ("hash", "thumbnails")},
        },
    )


def test_a_smaller_and_compressed_copy_is_a_duplicate_and_a_changed_scene_is_not():
    original = shot(1, 5, height=192, width=256)
    copy = np.stack([cv2.resize(pixels, (128, 96), interpolation=cv2.INTER_AREA) for pixels in original])
    copy = np.stack(
        [cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 1) for pixels in copy]
    )
    moved = original.copy()
    moved[:, 30:54, 40:72] = 255 - moved[:, 30:54, 40:72]
    other = shot(2, 5)
    clips = [seen("original", original), seen("copy", copy), seen("moved", moved), seen("other", other)]
    assert list(duplicates(clips, DedupSettings())) == [("copy", "original")]
    assert list(duplicates(clips, DedupSettings(max_bits=-1))) == []
    assert difference(clips[0], clips[1]) < 14 < difference(clips[0], clips[2])


def test_clips_of_one_shot_are_no_duplicates():
    first = seen("a", shot(1, 5, speed=0))
    again = ClipSignature("b", first.shot, first.hash, first.thumbnails)
    assert list(duplicates([first, again], DedupSettings())) == []
    assert list(
        duplicates([first, ClipSignature("b", "elsewhere", first.hash, first.thumbnails)], DedupSettings())
    ) == [("b", "a")]


def test_a_hash_outlives_a_change_of_size():
    picture = cv2.cvtColor(texture(3, 240, 320), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(picture, (80, 60), interpolation=cv2.INTER_AREA)
    assert (dhash(picture) ^ dhash(small)).bit_count() <= 4
    assert (dhash(picture) ^ dhash(picture[:, ::-1])).bit_count() > 20
