"""Every example runs."""

import runpy
import sys
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_sheet_shows_every_prompt(model_folder, tmp_path, monkeypatch):
    out = tmp_path / "sheet.png"
    monkeypatch.setattr(
        sys,
        "argv",
        ["sheet.py", "--model", str(model_folder), "--out", str(out), "--steps", "1", "--prompts", "2"],
    )
    runpy.run_path(str(EXAMPLES / "sheet.py"), run_name="__main__")
    with Image.open(out) as picture:
        assert picture.width > picture.height


def test_there_are_at_most_six_and_each_has_a_test():
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) <= 6
    assert [name for name in names if name not in Path(__file__).read_text(encoding="utf-8")] == []
