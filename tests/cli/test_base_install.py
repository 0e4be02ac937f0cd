"""Every verb works with the packages that a plain installation brings: extras are for other engines and
weights.
"""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.data.curation.films import film, shot

from kinema.cli.main import VERBS

ROOT = Path(__file__).parents[2]
SITE = """
import sys
from importlib.machinery import PathFinder

class BaseInstallation(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = BaseInstallation
"""
SMALL = ["--steps", "1", "--no-sheet", "--size", "48x32"]
WORDS = {
    "generate": [
        ["a red fox", "-o", "a.mkv", "--frames", "17", "--model", "{model}", "--job", "job", *SMALL]
    ],
    "extend": [["a.mkv", "a fox", "--seconds", "0.5", "-o", "b.mkv", "--model", "{model}", *SMALL]],
    "connect": [["a.mkv", "a.mkv", "--seconds", "0.5", "-o", "b.mkv", "--model", "{model}", *SMALL]],
    "loop": [["a red fox", "--frames", "8", "-o", "b.gif", "--model", "{model}", *SMALL]],
    "edit": [["a.mkv", "a fox", "--expand", "-o", "b.mkv", "--model", "{model}", *SMALL]],
    "storyboard": [["board.yaml", "-o", "b.mkv", "--model", "{model}", *SMALL]],
    "continue": [["job", "-o", "b.mkv", "--model", "{model}", "--no-sheet"]],
    "plan": [["--size", "128x128", "--frames", "1", "--compare", "sd,sdxl"]],
    "train": [
        ["{recipe}", "--out", "run", "--steps", "1", "--set", "data.size=32", "--set", "data.stats_clips=2"],
    ],
    "evaluate": [["{model}", "--prompts", "1"]],
    "caption": [["a.mkv"]],
    "worlds": [["list"], ["preview", "stage", "-o", "world.mkv"]],
    "data": [
        ["build", "clips", "-o", "set", "--set", "vae={model}", "--set", "clips.area=8192"],
        ["validate", "set"],
        ["report", "set"],
    ],
    "models": [["inspect", "{model}"], ["verify", "{model}"]],
    "serve": [["--data", "server", "--port", "0", "--host", "0.0.0.0"]],
    "worker": [["--store", "mysql://nobody@nowhere"]],
    "keys": [["create", "me", "--data", "server"], ["list", "--data", "server"]],
    "jobs": [["list", "--data", "server"]],
    "webhooks": [["list", "--data", "server"]],
    "doctor": [[]],
}
"""Arguments of the shortest useful calls, in the order in which they need each other's files."""
EXPECTED = {
    "evaluate": "only a model trained on a world can be evaluated",
    "serve": "create one first",
}
"""Errors that a call ends with, for verbs that take minutes otherwise; their modules have been imported by
then.
"""


def installed_by(names: list[str]) -> set[str]:
    """Distributions that `pip install` brings for these requirements, themselves included."""
    found: set[str] = set()
    pending = [Requirement(name) for name in names]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            pending += [Requirement(line) for line in requires(requirement.name) or ()]
        except PackageNotFoundError:
            continue
    return found


@pytest.fixture(scope="module")
def base_install(tmp_path_factory) -> dict[str, str]:
    """An environment whose Python lacks every installed package that the base installation does not bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = installed_by(project["dependencies"])
    absent = {
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & {*base, "kinema", "setuptools", "pip"}
    }
    assert {"diffusers", "pytest", "jaxtyping"} <= absent
    folder = tmp_path_factory.mktemp("base")
    (folder / "sitecustomize.py").write_text(SITE.format(absent=sorted(absent)))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def test_every_verb_is_called():
    assert WORDS.keys() == VERBS.keys()


def test_no_verb_needs_an_extra(base_install, model_folder, tmp_path):
    (tmp_path / "clips").mkdir()
    film(tmp_path / "clips" / "one.mkv", shot(1, 40), shot(2, 40))
    board = "seconds: 1\nshots: [{at: 0, prompt: a fox}, {at: 0.5, prompt: a ball}]\n"
    (tmp_path / "board.yaml").write_text(board)
    places = {"model": str(model_folder), "recipe": str(ROOT / "recipes" / "vae_tiny.toml")}
    calls = [[verb, *(word.format(**places) for word in words)] for verb in VERBS for words in WORDS[verb]]
    script = f"""
from kinema.cli.main import main
for call in {calls!r}:
    print(call[0], main(call), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=base_install,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    failed = {line.split()[0] for line in done.stdout.splitlines() if line in {f"{verb} 2" for verb in VERBS}}
    assert failed == EXPECTED.keys(), done.stderr
    assert all(text in done.stderr for text in EXPECTED.values())
