"""Text inside files of every kind."""

import pytest
from PIL import Image
from tests.video.frames import METADATA, VIDEO_ENDINGS, noise

from kinema.errors import VideoError
from kinema.video import Video, read_metadata, save_image


@pytest.mark.parametrize("ending", VIDEO_ENDINGS)
@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["long", "none"])
def test_metadata_survives_in_every_container(tmp_path, ending, metadata):
    path = Video(noise(), 8.0).save(tmp_path / f"a{ending}", metadata=metadata)
    assert read_metadata(path) == metadata


def test_metadata_survives_in_a_png(tmp_path):
    assert read_metadata(save_image(tmp_path / "a.png", noise()[0], metadata=METADATA)) == METADATA
    assert read_metadata(Video(noise(1), 8.0).save(tmp_path / "b.png", metadata=METADATA)) == METADATA


def test_a_gif_comment_of_another_program_is_kept(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b"made by hand")
    assert read_metadata(tmp_path / "a.gif") == {"comment": "made by hand"}


@pytest.mark.parametrize(
    "metadata",
    [{"Prompt": "x"}, {"a b": "x"}, {"encoder": "x"}, {"a": ""}, {"a": 7}, {"a": "x\0y"}, {"a": "\ud800"}],
)
def test_metadata_that_would_not_survive_is_refused(tmp_path, metadata):
    for ending in [*VIDEO_ENDINGS, ".png"]:
        with pytest.raises(VideoError, match="metadata"):
            Video(noise(1), 8.0).save(tmp_path / f"a{ending}", metadata=metadata)
    assert not list(tmp_path.iterdir())
