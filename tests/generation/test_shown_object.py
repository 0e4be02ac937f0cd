"""A prompt with more objects than the model draws: the result states which one the video is most like."""

import pytest

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.shipped import shipped_model
from kinema.cli.main import main
from kinema.generation.output.quality import shown_object
from kinema.worlds import WorldConfig, make_world


@pytest.mark.parametrize("seed", range(3))
def test_the_object_of_a_true_clip_is_told_from_another(seed):
    clip = load_clip(shipped_model()).eval()
    world = make_world(WorldConfig.from_table({"name": "stage", "nouns": 24, "max_objects": 1}))
    true = world.clip(seed, height=128, width=128, num_frames=17)
    noun = true.truth["noun"]
    assert shown_object(clip, true.frames, ["apple" if noun != "apple" else "bus", noun]) == noun
    assert shown_object(clip, true.frames, []) is None


def test_the_objects_and_the_shown_one_are_printed_and_stored_beside_the_video(tmp_path, capsys):
    words = ["two elephants play chess on the moon", "--steps", "1", "--frames", "5", "--size", "96x96"]
    assert main(["generate", *words, "-o", str(tmp_path / "video.mkv")]) == 0
    out, notes = capsys.readouterr().out, (tmp_path / "video.notes.txt").read_text()
    assert "the model draws 1 of these 2 objects: elephant ('elephants'), star ('moon')" in out
    (line,) = [
        line for line in out.splitlines() if line.startswith("of elephant, star the video is most like ")
    ]
    assert line in notes.splitlines()
