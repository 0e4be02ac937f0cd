from pathlib import Path

import pytest

import kinema.training
from kinema.cli.main import main

RECIPE = str(Path(__file__).parents[2] / "recipes" / "vae_tiny.toml")
TINY = [
    "--set",
    "data.size=32",
    "--set",
    "data.stats_clips=2",
    "--set",
    "model.base_dim=4",
    "--set",
    "model.z_dim=4",
]


def test_plan_measures_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", RECIPE, "--plan", "--steps", "3", *TINY]) == 0
    assert "parameters, 3 steps" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_run_goes_into_runs_and_the_recipes_name(monkeypatch):
    seen = []
    monkeypatch.setattr(kinema.training, "load_task", lambda recipe, **options: (recipe, options))
    monkeypatch.setattr(kinema.training, "train", lambda part, out: seen.append((part, out)) or True)
    assert main(["train", "a/b.toml"]) == 0
    assert (
        main(
            [
                "train",
                "a/b.toml",
                "--out",
                "elsewhere",
                "--steps",
                "2",
                "--set",
                "x=1",
                "--init-from",
                "weights",
            ]
        )
        == 0
    )
    nothing = {"steps": None, "assignments": [], "init_from": None}
    options = {"steps": 2, "assignments": ["x=1"], "init_from": Path("weights")}
    assert seen == [
        ((Path("a/b.toml"), nothing), Path("runs/b")),
        ((Path("a/b.toml"), options), Path("elsewhere")),
    ]


def test_a_run_that_was_stopped_ends_as_a_stopped_command_does(monkeypatch):
    monkeypatch.setattr(kinema.training, "load_task", lambda recipe, **options: None)
    monkeypatch.setattr(kinema.training, "train", lambda part, out: False)
    assert main(["train", "a.toml"]) == 130


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["none.toml"], "no such recipe: none.toml"),
        ([RECIPE, "--set", "run.step=3"], "unknown key in [run] 'step'; did you mean 'steps'?"),
        ([RECIPE, "--set", "task=upscaler"], "unknown training task 'upscaler'"),
    ],
)
def test_a_wrong_recipe_is_one_line(words, line, capsys):
    assert main(["train", *words]) == 2
    assert line in capsys.readouterr().err
