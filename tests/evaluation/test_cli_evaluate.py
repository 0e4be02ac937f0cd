"""The verb `kinema evaluate`: a table and a page, or one line that says what is wrong."""

from functools import partial

import numpy as np
import pytest

from kinema.cli.main import main
from kinema.errors import VideoError
from kinema.evaluation import PromptsConfig
from kinema.evaluation.samples import ClipFormat
from kinema.evaluation.vae_clip_metrics import read_real_clip
from kinema.video import Video


def test_the_verb_prints_a_table_and_writes_a_page(
    stage_model, untrained_oracle, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    few = partial(PromptsConfig, num_fresh=2, num_round_trips=1, num_vae_clips=1, num_clip_clips=1)
    monkeypatch.setattr("kinema.evaluation.PromptsConfig", few)
    words = [
        "evaluate",
        str(stage_model),
        "--seen",
        "--prompts",
        "1",
        "--steps",
        "1",
        "--oracle",
        str(untrained_oracle),
        "--out",
        str(out),
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Seen combinations, 1 prompts" in printed
    assert "No relative scores" in printed
    assert (out / "index.html").is_file()


@pytest.mark.parametrize(
    "option",
    [["--sampler", "unipcc"], ["--real-clip", "nowhere.mp4"], ["--oracle", "nowhere"], ["--frames", "3"]],
)
def test_what_is_wrong_is_said_in_one_line_before_any_work(
    stage_model, untrained_oracle, tmp_path, capsys, option
):
    words = [
        "evaluate",
        str(stage_model),
        "--oracle",
        str(untrained_oracle),
        "--out",
        str(tmp_path / "out"),
        *option,
    ]
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_the_words_of_the_world_is_told_so(model_folder, capsys):
    assert main(["evaluate", str(model_folder)]) == 2
    assert "only a model trained on a world" in capsys.readouterr().err


def test_a_real_clip_is_its_middle_at_the_models_size_and_rate(tmp_path):
    frames = np.zeros((60, 48, 96, 3), np.uint8)
    frames[:, :, 24:72] = np.arange(60, dtype=np.uint8)[:, None, None, None] * 4
    Video(frames, 24.0).save(tmp_path / "clip.mkv")
    seen = read_real_clip(tmp_path / "clip.mkv", ClipFormat(24, 24, 17, 8.0))
    assert seen.shape == (17, 24, 24, 3)
    assert np.diff(seen[:, 12, 12, 0].astype(int)).tolist() == [12] * 16
    assert seen.min(axis=(1, 2, 3)).tolist() == seen.max(axis=(1, 2, 3)).tolist()
    with pytest.raises(VideoError, match="at least 33 are needed"):
        read_real_clip(tmp_path / "clip.mkv", ClipFormat(24, 24, 33, 8.0))
