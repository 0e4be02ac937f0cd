"""Still pictures as videos of one frame."""

import numpy as np
import pytest
from PIL import Image
from tests.video.frames import half_transparent, noise, psnr, smooth

from kinema.video import Video, save_image


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp"])
def test_a_picture_is_a_video_of_one_frame(tmp_path, ending):
    pixels = smooth(1)[0]
    Image.fromarray(pixels).save(
        tmp_path / f"a{ending}", **{".jpg": {"quality": 98}, ".webp": {"lossless": True}}.get(ending, {})
    )
    video = Video.read(tmp_path / f"a{ending}")
    assert (video.num_frames, video.fps) == (1, 1.0)
    assert psnr(video.frames[0], pixels) > 28 if ending == ".jpg" else np.array_equal(video.frames[0], pixels)


def test_pictures_respect_exif_alpha_and_16_bit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(1, 4, 6)[0]
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(Video.read(tmp_path / "turned.png").frames[0], np.rot90(pixels, -1))
    Image.fromarray(half_transparent()[0]).save(tmp_path / "alpha.png")
    assert Video.read(tmp_path / "alpha.png").frames[0, 0, [0, 31], 0].tolist() == [200, 0]
    Image.fromarray(np.full((4, 4), 0x8040, np.uint16)).save(tmp_path / "deep.png")
    assert Video.read(tmp_path / "deep.png").frames[0, 0, 0].tolist() == [0x80] * 3


@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_save_image_keeps_every_bit(tmp_path, ending):
    assert np.array_equal(Video.read(save_image(tmp_path / f"a{ending}", noise(1)[0])).frames, noise(1))
