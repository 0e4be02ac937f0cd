"""The documents agree with the tree, the command line and each other."""

import re
from pathlib import Path

import pytest

from kinema.cli.main import VERBS

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS + GUIDES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", read(name)) if not link.startswith("https://")]
    assert [link for link in links if not (folder / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS + GUIDES)
def test_links_to_headings_lead_somewhere(name):
    wrong = []
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]*#[^)]+)\)", read(name))):
        path = (ROOT / name).parent / target if target else ROOT / name
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if anchor not in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}:
            wrong.append(f"{target}#{anchor}")
    assert wrong == []


@pytest.mark.parametrize("name", DOCUMENTS + GUIDES)
def test_a_cited_command_exists_or_is_cited_with_its_commit(name):
    text = read(name)
    gone = [match for match in re.finditer(r"`[^`]*?((?:bench|examples|tools)/\w+\.py)[^`]*`", text)]
    missing = [match for match in gone if not (ROOT / match[1]).exists()]
    assert [m[1] for m in missing if not re.search(r" at [0-9a-f]{7}\b", text[m.end() : m.end() + 40])] == []


@pytest.mark.parametrize("name", GUIDES)
def test_source_files_that_guides_name_exist(name):
    named = re.findall(r"`((?:src|tests|recipes)/[\w./-]+\.\w+)`", read(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


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
