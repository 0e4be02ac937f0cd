from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from kinema.config import check_range, from_dict, load, merge, override, read_toml, to_dict
from kinema.errors import ConfigError


@dataclass(frozen=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    name: Literal["adamw", "muon"] = "adamw"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr = {self.lr} must be positive")


@dataclass(frozen=True)
class Recipe:
    steps: int
    widths: tuple[int, ...] = (1, 2, 3)
    optimizer: Optimizer = field(default_factory=Optimizer)
    folder: Path | None = None
    shares: dict[str, float] = field(default_factory=dict)
    is_causal: bool = False


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(1),
        Recipe(2, (), Optimizer(2.0, (0.5, 0.5), "muon"), Path("clips"), {"stage": 1.0}, True),
    ],
)
def test_from_dict_undoes_to_dict(recipe):
    assert from_dict(Recipe, to_dict(recipe)) == recipe


def test_a_file_and_overrides_say_only_what_differs(tmp_path):
    path = write(tmp_path / "a.toml", "steps = 5\n[optimizer]\nlr = 1\n")
    recipe = load(Recipe, path, ["optimizer.name=muon", "shares.stage=0.5", "widths=[4]"])
    assert recipe == Recipe(5, (4,), Optimizer(1.0, name="muon"), shares={"stage": 0.5})


def test_a_base_lies_underneath(tmp_path):
    write(tmp_path / "base.toml", "steps = 5\nis_causal = true\n[optimizer]\nlr = 1.0\nname = 'muon'\n")
    path = write(tmp_path / "tiny.toml", "base = 'base.toml'\nsteps = 2\n[optimizer]\nlr = 0.5\n")
    assert read_toml(path) == {"steps": 2, "is_causal": True, "optimizer": {"lr": 0.5, "name": "muon"}}


def test_merge_leaves_what_it_was_given_alone():
    under: dict = {"a": {"b": 1, "c": 2}}
    assert merge(under, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert under == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("word", "word"),
        ("'3'", "3"),
        ("a=b", "a=b"),
    ],
)
def test_an_override_is_toml_or_a_bare_word(text, value):
    assert override({}, [f"x.y={text}"]) == {"x": {"y": value}}


@pytest.mark.parametrize("assignment", ["steps", "=3", " =3"])
def test_an_override_without_a_name_or_value_is_an_error(assignment):
    with pytest.raises(ConfigError, match="is not an assignment"):
        override({}, [assignment])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1, "optimizer": {"lrr": 1.0}}, r"unknown key in \[optimizer\] 'lrr'; did you mean 'lr'\?"),
        ({"step": 1}, "unknown key 'step'; did you mean 'steps'"),
        ({}, "configuration lacks steps"),
        ({"steps": "abc"}, "steps = 'abc' is not of type int"),
        ({"steps": True}, "steps = True is not of type int"),
        ({"steps": 1.5}, "steps = 1.5 is not of type int"),
        ({"steps": 1, "is_causal": 1}, "is_causal = 1 is not of type bool"),
        ({"steps": 1, "optimizer": {"name": "sgd"}}, "optimizer.name = 'sgd' is not one of 'adamw', 'muon'"),
        ({"steps": 1, "optimizer": {"betas": [0.9]}}, "optimizer.betas needs 2 values, not 1"),
        (
            {"steps": 1, "optimizer": {"betas": [0.9, "x"]}},
            r"optimizer.betas\[1\] = 'x' is not of type float",
        ),
        ({"steps": 1, "optimizer": {"lr": -1.0}}, r"\[optimizer\] lr = -1.0 must be positive"),
        ({"steps": 1, "optimizer": 3}, "optimizer = 3 is not of type Optimizer"),
        ({"steps": 1, "shares": {"stage": "x"}}, "shares.stage = 'x' is not of type float"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_where(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Recipe, values)


@pytest.mark.parametrize("text", ["steps = ", "base = 3", "base = 'not-there.toml'"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    path = write(tmp_path / "broken.toml", text)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        read_toml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such recipe"):
        read_toml(tmp_path / "nothing.toml")


def test_files_that_name_each_other_as_base_are_an_error(tmp_path):
    write(tmp_path / "a.toml", "base = 'b.toml'")
    write(tmp_path / "b.toml", "base = 'a.toml'")
    with pytest.raises(ConfigError, match="base"):
        read_toml(tmp_path / "a.toml")


def test_fields_out_of_range_are_named():
    config = SimpleNamespace(share=1.5, batch=0)
    with pytest.raises(ConfigError, match=r"share = 1\.5 is out of range: use 0 to 1"):
        check_range(config, ("share",), 0, 1)
    with pytest.raises(ConfigError, match=r"batch = 0 is out of range: use 1 or more"):
        check_range(config, ("share", "batch"), 1)
