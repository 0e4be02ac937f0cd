"""The public functions on files: each gives the same result as its request."""

import numpy as np
import pytest

import kinema
from kinema.errors import ConfigError
from kinema.generation.conditioning.tasks import Shot
from kinema.video import Video


@pytest.fixture
def options(model_folder):
    return {"model": model_folder, "width": 48, "height": 32, "steps": 1}


@pytest.fixture
def clip(tmp_path):
    """A file of 8 frames at 8 fps."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), np.uint8)
    return Video(frames, 8.0).save(tmp_path / "clip.mkv")


def test_a_clip_is_a_file_or_a_video(clip, options):
    by_file = kinema.extend(str(clip), "a red fox", seconds=0.5, **options).video.frames
    assert np.array_equal(
        by_file, kinema.extend(Video.read(clip), "a red fox", seconds=0.5, **options).video.frames
    )
    assert np.array_equal(by_file[:8], Video.read(clip).frames)


def test_every_task_keeps_what_it_was_given(clip, options, tmp_path):
    own = Video.read(clip).frames
    picture = Video(own[:1], 8.0).save(tmp_path / "first.png")
    assert np.array_equal(kinema.connect(clip, clip, seconds=0.5, **options).video.frames[-8:], own)
    assert np.array_equal(kinema.loop(clip=clip, frames=16, **options).video.frames[:8], own)
    assert np.array_equal(kinema.animate("a fox", first=picture, frames=9, **options).video.frames[0], own[0])
    edited = kinema.edit(clip, "a fox", region=(0, 0, 16, 16), **options).video.frames
    assert np.array_equal(edited[:, 16:], own[:, 16:])
    board = kinema.storyboard(
        [Shot(0, "a fox"), Shot(1.125, None, Video.read(clip))], frames=17, **options
    ).video.frames
    assert np.array_equal(board[9:], own)


def test_an_option_that_a_request_does_not_have_is_named(clip, options):
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        kinema.extend(clip, seconds=0.5, stepps=3, **options)
