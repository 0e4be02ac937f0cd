import numpy as np
import pytest

from kinema.cli.main import main
from kinema.cli.worlds import tiled
from kinema.video import Video
from kinema.worlds import WORLDS, WorldConfig, make_world

SMALL = ["--size", "48x32", "--frames", "3", "--count", "3"]


def test_list_names_every_world_and_its_words(capsys):
    assert main(["worlds", "list"]) == 0
    out = capsys.readouterr().out
    for name in WORLDS:
        world = make_world(WorldConfig.from_table({"name": name}))
        assert f"{name}: " in out
        assert all(", ".join(words) in out for words in world.vocabulary.values())


@pytest.mark.parametrize("world", WORLDS)
def test_preview_draws_a_sheet_and_prints_the_captions(world, tmp_path, capsys):
    file = tmp_path / "new" / "sheet.png"
    assert main(["worlds", "preview", world, "-o", str(file), "--seed", "5", *SMALL]) == 0
    *titles, last = capsys.readouterr().out.splitlines()
    assert last == str(file)
    assert [title.split(":")[0] for title in titles] == ["5", "6", "7"]
    assert Video.read(file).num_frames == 1


def test_preview_draws_a_wall_of_clips(tmp_path):
    file = tmp_path / "wall.mkv"
    assert main(["worlds", "preview", "stage", "-o", str(file), "--captions", "short_zh", *SMALL]) == 0
    video = Video.read(file)
    assert (video.num_frames, video.height, video.width) == (3, 2 * 32, 2 * 48)


def test_a_wall_has_the_clips_in_rows_and_is_black_where_none_is_left():
    def grey(value):
        return Video(np.full((2, 4, 6, 3), value, np.uint8), 8.0)

    whole = tiled([grey(10), grey(20), grey(30)])
    assert whole.fps == 8.0
    assert whole.frames.shape == (2, 8, 12, 3)
    assert [int(whole.frames[1, y, x, 0]) for y in (0, 4) for x in (0, 6)] == [10, 20, 30, 0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stagee"], "unknown world 'stagee'; did you mean 'stage'?"),
        (["stage", "--captions", "long"], "unknown caption 'long'"),
        (["stage", "--set", "max_object=1"], "unknown key 'max_object'; did you mean 'max_objects'?"),
        (["stage", "-o", "sheet.xyz", *SMALL], "unknown video ending '.xyz'"),
    ],
)
def test_a_wrong_word_is_named(words, line, capsys):
    assert main(["worlds", "preview", *words]) == 2
    assert capsys.readouterr().err.startswith(f"kinema: {line}")
