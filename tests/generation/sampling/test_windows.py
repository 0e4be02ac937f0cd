"""Windows: every free latent frame is generated once, by a window that contains finished ones."""

import pytest

from kinema.generation.sampling.sliding_windows import sliding_windows

CASES = [
    "f" * 5,
    "f" * 40,
    "kkkkkffffffff",
    "ffffffffkkkkk",
    "kkkffffkkkk",
    "kkkfffffffffffkkkk",
    "kffffk",
    "fffkfffffkff",
    "fkkkkkkkkk",
    "kkkk",
]


@pytest.mark.parametrize("cuts", [(), (3, 7)])
@pytest.mark.parametrize(("size", "history"), [(5, 2), (4, 2), (5, 1), (2, 1)])
@pytest.mark.parametrize("marks", CASES)
def test_windows_make_every_free_latent_once_and_see_only_what_is_done(marks, size, history, cuts):
    is_free = [mark == "f" for mark in marks]
    done = [not free for free in is_free]
    for window in sliding_windows(is_free, size, history, cuts):
        assert 0 <= window.first <= window.new_first < window.new_stop <= window.stop <= len(marks)
        assert window.stop - window.first <= size
        made = range(window.new_first, window.new_stop)
        assert not any(done[i] and is_free[i] for i in made)
        assert not any(window.new_first < cut < window.new_stop for cut in cuts)
        if any(done[: window.new_first]) and window.new_first > 0 and done[window.new_first - 1]:
            assert window.first < window.new_first  # it sees what it continues
        for i in made:
            done[i] = True
    assert all(done)


def test_what_leads_to_a_known_clip_is_made_by_a_window_that_sees_it():
    *_, last = sliding_windows([mark == "f" for mark in "kkkfffffffffffkkkk"], 5, 2)
    assert last.new_stop == 14
    assert last.stop > last.new_stop


def test_windows_share_the_work_so_that_each_sees_much():
    assert [
        (w.first, w.stop, w.new_first, w.new_stop) for w in sliding_windows([False] * 3 + [True] * 4, 5, 2)
    ] == [
        (0, 5, 3, 5),
        (2, 7, 5, 7),
    ]
    assert [
        (w.first, w.stop, w.new_first, w.new_stop) for w in sliding_windows([True] * 4 + [False] * 3, 5, 2)
    ] == [
        (2, 7, 2, 4),
        (0, 5, 0, 2),
    ]


def test_a_short_way_between_two_clips_is_made_by_one_window_that_sees_both():
    (window,) = sliding_windows([False] * 3 + [True] * 2 + [False] * 2, 5, 2)
    assert (window.first, window.stop) == (1, 6)


def test_what_comes_before_a_clip_is_made_backwards():
    windows = sliding_windows([mark == "f" for mark in "fffffffffkkkk"], 5, 2)
    assert [window.new_stop for window in windows] == [9, 6, 3]


def test_a_short_canvas_is_one_window():
    assert len(sliding_windows([True, False, True, True], 5, 2)) == 1
