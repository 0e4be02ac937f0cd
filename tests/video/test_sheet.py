"""Contact sheets."""

import numpy as np
import pytest
from tests.video.frames import noise

from kinema.errors import VideoError
from kinema.video import Video, contact_sheet


def test_contact_sheet_holds_every_video_and_keeps_to_its_size():
    videos = [Video(noise(16, 48, 64), 8.0), Video(noise(3, 64, 36), 24.0), Video(noise(1, 10, 10), 1.0)]
    sheet = contact_sheet(
        videos, ["one", "a long title " * 20, "一只红狐狸"], columns=2, frames_per_video=4, cell_height_px=48
    )
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 20 + (4 * 64 + 3 * 3) + 20 + (3 * 27 + 2 * 3) + 20
    plain = contact_sheet(videos[:1], frames_per_video=16, cell_height_px=48)
    assert np.array_equal(plain[20:68, 20:84], videos[0].frames[0])
    assert np.array_equal(plain[20:68, -84:-20], videos[0].frames[15])


def test_a_chinese_title_is_drawn_and_depends_on_its_characters():
    videos = [Video(noise(8), 8.0)]
    fox, duck, mixed, latin = (
        contact_sheet(videos, [title]) for title in ("狐狸。", "鸭子。", "a fox 狐", "a fox ?")
    )
    assert not np.array_equal(fox, duck)
    assert not np.array_equal(mixed, latin)
    assert (fox[20:43].min(axis=2) < 128).sum() > 50  # ink


def test_a_title_that_no_face_can_draw_is_replaced():
    videos = [Video(noise(2), 8.0)]
    assert np.array_equal(contact_sheet(videos, ["ทท"]), contact_sheet(videos, ["video 1"]))
    assert np.array_equal(contact_sheet(videos, ["fox ท"]), contact_sheet(videos, ["fox ?"]))


def test_a_chinese_title_has_at_most_two_lines():
    videos = [Video(noise(2), 8.0)]
    assert contact_sheet(videos, ["雪地" * 200]).shape == contact_sheet(videos, ["snow " * 200]).shape


@pytest.mark.parametrize(
    ("videos", "titles"), [([], None), ([Video(noise(), 8.0)], []), ([Video(noise(), 8.0)], ["a", "b"])]
)
def test_contact_sheet_refuses_what_does_not_fit(videos, titles):
    with pytest.raises(VideoError):
        contact_sheet(videos, titles)
