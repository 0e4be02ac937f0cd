"""The names of one variant stay in its package: all else uses the protocol and the table of its kind."""

import re
from pathlib import Path

import pytest

import kinema

SRC = Path(kinema.__file__).parent
PLACES = {
    r"\bDiT\(": ("models/",),
    r"\bis_wan\b": ("checkpoints/families/wan/",),
    r"\bStageConfig\b": ("worlds/stage/", "worlds/__init__.py"),
}
"""A pattern, and where it may occur. `worlds/__init__.py` is the table of worlds."""


@pytest.mark.parametrize("pattern", PLACES)
def test_a_name_of_one_variant_stays_in_its_package(pattern):
    files = {file.relative_to(SRC).as_posix(): file for file in SRC.rglob("*.py")}
    found = {name for name, file in files.items() if re.search(pattern, file.read_text(encoding="utf-8"))}
    assert not [name for name in sorted(found) if not name.startswith(PLACES[pattern])]
    assert found
