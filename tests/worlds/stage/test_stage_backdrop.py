"""A clip's backdrop is the clip without its objects, whatever the camera does."""

import numpy as np
import pytest

from kinema.worlds.stage import StageConfig, StageWorld

SIZE = {"height": 48, "width": 48, "num_frames": 5}


@pytest.mark.parametrize("camera", ["still", "pan_left", "zoom_in"])
def test_what_no_object_covers_is_the_backdrop(camera):
    world = StageWorld(StageConfig(nouns=("car", "penguin"), max_objects=1, cameras=(camera,)))
    clip = world.clip(3, **SIZE)
    mask, backdrop = world.object_mask(clip, **SIZE), world.backdrop(3, **SIZE)
    assert mask.shape == (5, 48, 48)
    assert mask.any(axis=(1, 2)).all()
    assert mask.mean() < 0.5
    corner = np.abs(clip.frames[:, :8].astype(int) - backdrop[:, :8])
    assert corner[~mask[:, :8]].max() <= 24


def test_a_picture_has_the_backdrop_of_its_own_time():
    world = StageWorld(StageConfig(nouns=("car",), max_objects=1, cameras=("pan_left",)))
    size = {"height": 48, "width": 48, "num_frames": 1}
    assert world.object_mask(world.clip(5, **size), **size).mean() < 0.5
