"""Animated GIF: exact colours, no flicker, limits."""

import numpy as np
import pytest
from PIL import Image
from tests.video.frames import levels, noise, smooth

from kinema.errors import VideoError
from kinema.video import Video


def test_a_gif_of_few_colours_is_exact_and_loops(tmp_path):
    frames = (noise(6) > 128).astype(np.uint8) * 200  # 8 colours
    frames[3] = frames[2]  # a frame that repeats must not be merged away
    path = Video(frames, 12.0).save(tmp_path / "a.gif")
    assert np.array_equal(Video.read(path).frames, frames)
    with Image.open(path) as image:
        assert image.info["loop"] == 0


def test_a_gif_does_not_flicker_where_nothing_moves(tmp_path):
    frames = np.repeat(smooth(1), 4, axis=0)
    frames[:, :8, :8] = levels(0, 80, 160, 240, height=8, width=8)
    back = Video.read(Video(frames, 8.0).save(tmp_path / "a.gif"))
    assert (back.frames[1:, 8:] == back.frames[:1, 8:]).all()
    assert (back.frames[1:, :, 8:] == back.frames[:1, :, 8:]).all()
    assert len({frame.tobytes() for frame in back.frames}) == 4


def test_gif_limits_are_said(tmp_path):
    with pytest.raises(VideoError, match="at most 50 frames a second"):
        Video(noise(), 60.0).save(tmp_path / "a.gif")
    with pytest.raises(VideoError, match=r"use \.mkv"):
        Video(noise(), 8.0).save(tmp_path / "a.gif", lossless=True)
