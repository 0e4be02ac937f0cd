"""What the documents say about the tree, the command line and each other is true."""

import re
from pathlib import Path

import pytest

from kinema.cli.main import VERBS

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)]+)\)", read(name))
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", read(name))
    assert [
        path
        for path in named
        if not any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "kinema"))
    ] == []


def test_the_tree_is_as_architecture_says():
    block = read("ARCHITECTURE.md").split("## The tree")[1].split("## ")[0]
    above: list[tuple[int, str]] = []
    missing = []
    for indent, name in re.findall(r"^    ( *)(\S+)(?:  |$)", block, re.MULTILINE):
        above = [(depth, folder) for depth, folder in above if depth < len(indent)]
        path = "".join(folder for _, folder in above) + name
        if not (ROOT / path).exists():
            missing.append(path)
        above.append((len(indent), name))
    assert above
    assert missing == []


def test_the_readme_names_every_verb():
    assert {verb for verb in VERBS if f"`kinema {verb}" not in read("README.md")} == set()


def test_the_readme_is_short():
    assert len(read("README.md").split()) < 1000
