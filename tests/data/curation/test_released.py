"""Data sets and interrupted builds of version 0.1.0 are read and continued without repeating their work.

tests/released/0.1.0/dataset and dataset_interrupted were written by 0.1.0 from the files in dataset_inputs,
the latter stopped before its shards were written. Only the probe of the input files is repeated: its key
contains their times.
"""

import hashlib
import shutil
from pathlib import Path

import pytest

from kinema.config import from_dict, override
from kinema.data.curation.build import build
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.validate import dataset_problems
from kinema.data.dataset import Dataset

RELEASED = Path(__file__).parents[2] / "released" / "0.1.0"
SETTINGS = (
    "vae=vae",
    "clips.area=4096",
    "licence=CC0",
    "pixels=false",  # 0.1.0 stored none
    "clips.min_frames=5",
    "clips.max_frames=13",
    "captions.writer=file",
    "captions.file=written.jsonl",
    'scorers.overlay.function="kinema.curate.overlay:share"',  # the name of the module in 0.1.0
    "scorers.overlay.max=0.5",
)


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A copy of what 0.1.0 wrote and of its inputs, as the working directory, to which its paths are
    relative.
    """
    shutil.copytree(RELEASED / "dataset_inputs", tmp_path, dirs_exist_ok=True)
    for name in ("dataset", "dataset_interrupted"):
        shutil.copytree(RELEASED / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shards(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "shards").iterdir()
    }


def test_a_data_set_is_read_and_valid(work):
    dataset = Dataset(work / "dataset")
    assert [dataset.captions(index) for index in range(len(dataset))] == [
        {"short": "a texture slides to the right"},
        {"written": "a blue texture slides slowly to the right"},
    ]
    assert [tuple(dataset.latents(index).shape) for index in range(2)] == [(4, 4, 4, 4)] * 2
    assert not [line for line in dataset_problems(work / "dataset") if line.startswith("error")]


@pytest.mark.parametrize("name", ["dataset", "dataset_interrupted"])
def test_a_build_continues_without_repeating_work(work, here, name):
    before = shards(work / "dataset")
    recipe = from_dict(DataRecipe, override({}, SETTINGS))

    build(Path("videos"), Path(name), recipe, engine=here)

    assert sorted(here.done) == ["fingerprint one.mp4", "fingerprint two.mp4"]
    assert shards(work / name) == before
    assert not [line for line in dataset_problems(work / name) if line.startswith("error")]
