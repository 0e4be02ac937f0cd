"""The progress bars and the table printer."""

import sys

from kinema.terminal import ProgressBars, table


def test_columns_are_as_wide_as_their_longest_cell_and_lines_have_no_trailing_spaces():
    text = table([["decode", 12.5], ["a", "3"]], header=["step", "seconds"], align="lr")
    assert text.splitlines() == ["step    seconds", "decode     12.5", "a             3"]


def test_a_row_may_be_shorter_and_lines_are_indented():
    assert table([["a", "b"], ["ccc"]], indent=2).splitlines() == ["  a    b", "  ccc"]


def test_long_cells_are_neither_cut_nor_wrapped():
    assert table([["x", "y" * 5000]]) == "x  " + "y" * 5000


def test_a_wide_character_counts_as_two():
    assert table([["狗", "1"], ["dog", "2"]]).splitlines() == ["狗   1", "dog  2"]


def test_brackets_are_no_markup():
    assert table([["[stage]", "[bold]x"]]) == "[stage]  [bold]x"


def test_an_empty_table_has_no_lines():
    assert table([]) == ""


def test_off_a_terminal_complete_tasks_are_announced_once_and_no_bar_is_drawn(capsys):
    with ProgressBars(announce=True) as bars:
        for done in range(3):
            bars.show("encode", done, 2)
    assert capsys.readouterr() == ("", "encode: 2 done\n")


def test_off_a_terminal_nothing_is_printed_without_announce(capsys):
    with ProgressBars() as bars:
        bars.show("encode", 2, 2)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_shows_its_name_count_and_note(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressBars(transient=False) as bars:
        bars.show("[training]", 3, 8, "loss 0.5")
    shown = capsys.readouterr().err
    assert "[training]" in shown
    assert "3/8" in shown
    assert "loss 0.5" in shown
