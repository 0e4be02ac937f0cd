"""The commands of docs/data.md run, in their order, on six small films."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from tests.data.curation.films import film, shot

from kinema.checkpoints.manifest import load_manifest
from kinema.cli.main import main

ROOT = Path(__file__).parents[1]


def commands() -> list[str]:
    return re.findall(r"^kinema .+$", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_from_raw_clips_to_a_video_of_the_model_they_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for seed in range(3):
        film(tmp_path / "videos" / f"{seed}.mkv", shot(seed, 20, height=96, width=64 if seed else 96))
        (tmp_path / "videos" / f"{seed}.txt").write_text("a penguin walks on a snowy plain")
    lines = commands()
    assert len(lines) == 6
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "kinema"
        assert main(words) == 0, line
    assert load_manifest(tmp_path / "runs" / "mine" / "export").sides[:2] == (64, 96)
    assert (tmp_path / "dataset" / "report.html").exists()
    assert (tmp_path / "mine.mp4").exists()
    with Image.open(tmp_path / "mine.png") as sheet:
        assert sheet.width > 100
