"""A sweep of small trainings: its runs, their continuation, and a forecast and its measurement."""

import json
import shutil
from pathlib import Path

import pytest

from kinema.cli.main import main
from kinema.errors import ConfigError, ScalingError
from kinema.scaling import sweep as sweeping
from kinema.scaling.ladder import Ladder, LadderData
from kinema.scaling.laws import Law
from kinema.training import checkpoint, load_task

RECIPE = Path(__file__).parents[2] / "recipes" / "dit_tiny.toml"
SETTINGS = ["optimizer.name=adamw", "model.patch=[1,1,1]", "run.precision=fp32"]
LADDER = Ladder(
    widths=(48, 64, 80),
    budgets=(3e9, 5e9),
    batch=8,
    clips=280,
    min_steps=3,
    seeds=1,
    held_out=8,
    lr_factors=(1.0,),
)
TRUTH = Law(0.4, 25.0, 13.0, 0.3, 0.5)


@pytest.fixture(scope="module")
def recipe():
    return load_task(RECIPE, assignments=SETTINGS).recipe


@pytest.fixture(scope="module")
def swept(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("scaling") / "sweep"
    assert sweeping.sweep(recipe, LADDER, out)
    return out


def test_every_size_is_measured_at_every_budget_in_equal_compute(swept):
    rows = sweeping.read_rows(swept).values()
    assert {(row["width"], row["budget"]) for row in rows} == {
        (w, c) for w in (48, 64, 80) for c in (3e9, 5e9)
    }
    for row in rows:
        assert 0.7 < row["flops"] / row["budget"] <= 1
        assert 0 < row["loss"] < 5
        assert row["0-0.3"] > 0
    by_width = {row["width"]: row["parameters"] for row in rows}
    assert by_width[48] < by_width[64] < by_width[80]


def test_a_finished_sweep_trains_nothing_again(recipe, swept, monkeypatch):
    monkeypatch.setattr(sweeping, "train", lambda *_: pytest.fail("a run was trained again"))
    assert sweeping.sweep(recipe, LADDER, swept)


def test_a_missing_run_gives_the_same_row_again(recipe, swept):
    rows = (swept / sweeping.ROWS).read_text().splitlines()
    (swept / sweeping.ROWS).write_text("\n".join([*rows[:-1], rows[-1][:20]]))
    assert sweeping.sweep(recipe, LADDER, swept)
    again = json.loads((swept / sweeping.ROWS).read_text().splitlines()[-1])
    assert again | {"seconds": 0} == json.loads(rows[-1]) | {"seconds": 0}


def test_another_ladder_needs_another_folder(recipe, swept):
    with pytest.raises(ConfigError, match="another recipe or ladder"):
        sweeping.sweep(recipe, Ladder(), swept)


def test_three_sizes_are_refused_and_reported(swept, capsys):
    assert main(["scaling", "fit", str(swept)]) == 2
    assert "3 sizes and 2 budgets" in capsys.readouterr().err
    assert main(["scaling", "report", str(swept)]) == 0
    assert "<svg" in (swept / "report.html").read_text()


def test_a_forecast_is_written_before_its_run_and_compared_with_it(recipe, tmp_path, swept, capsys):
    """The ladder's losses are those of a law, so that the fit is sound."""
    out = tmp_path / "law"
    ladder = Ladder(**{**vars(LADDER), "widths": (48, 64, 80, 96, 112), "budgets": (2e9, 4e9, 8e9)})
    shutil.copytree(swept / "cache", out / "cache")
    data = LadderData(recipe, ladder, out)
    sweeping.write_json(
        out / sweeping.SETTINGS, {"recipe": sweeping.to_dict(recipe), "ladder": sweeping.to_dict(ladder)}
    )
    lines = []
    for width in ladder.widths:
        rung = data.rung(width)
        for budget in (2e9, 4e9, 8e9, 16e9):
            tokens = budget / rung.flops_per_clip * rung.tokens_per_clip
            values = {"parameters": rung.parameters, "tokens": tokens, "flops": budget, "budget": budget}
            loss = TRUTH.loss(rung.parameters, tokens)
            bins = dict.fromkeys(("0-0.3", "0.3-0.7", "0.7-1"), loss)
            row = {"name": f"{width}-{budget}", "kind": "ladder", "width": width, "seed": 0, "seconds": 1.0}
            lines.append(json.dumps(row | values | bins | {"loss": loss, "clips": 1, "lr_factor": 1.0}))
    (out / sweeping.ROWS).write_text("\n".join(lines) + "\n")

    with pytest.raises(ScalingError, match="no forecast"):
        sweeping.sweep_held_out(out)
    assert main(["scaling", "predict", str(out), "--width", "128", "--flops", "1.2e10"]) == 0
    predicted = json.loads((out / sweeping.FORECAST).read_text())
    assert predicted["low"] < TRUTH.loss(predicted["parameters"], predicted["tokens"]) < predicted["high"]

    assert main(["scaling", "sweep", "-o", str(out), "--held-out"]) == 0
    with pytest.raises(ScalingError, match="trained already"):
        sweeping.predict(out, 128, 1.2e10)
    assert main(["scaling", "report", str(out)]) == 0
    assert "the interval holds the measurement" in (out / "report.html").read_text()


def test_a_branch_continues_its_checkpoint_under_another_recipe(recipe, swept, tmp_path):
    data = LadderData(recipe, LADDER, swept)
    rung = data.rung(48)
    sweeping.train(data.run(rung, 4, 1.0, 0, 0.0), tmp_path / "main")
    whole = data.run(rung, 5, 1.0, 0, 0.2)
    found = checkpoint.latest(tmp_path / "main")
    checkpoint.fork(found, tmp_path / "branch", sweeping.to_dict(whole.recipe))
    assert sweeping.train(whole, tmp_path / "branch")
    assert sweeping.train(data.run(rung, 5, 1.0, 0, 0.2), tmp_path / "direct")
    weights = [tmp_path / name / "export" / "weights.safetensors" for name in ("branch", "direct")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_width_below_twice_the_channels_of_a_token_is_refused(tmp_path, capsys):
    words = ["scaling", "sweep", str(RECIPE), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "twice the 96 channels of a token: use widths from 192 on" in capsys.readouterr().err


def test_the_learning_rate_is_a_power_of_the_width(tmp_path):
    (tmp_path / sweeping.SETTINGS).write_text("{}")
    trials = [(48, 1.0, 0.9), (48, 2.0, 0.8), (96, 1.0, 0.7), (96, 2.0, 0.75)]
    rows = [
        {"name": str(i), "kind": "lr", "width": w, "lr_factor": f, "loss": loss}
        for i, (w, f, loss) in enumerate(trials)
    ]
    (tmp_path / sweeping.ROWS).write_text("\n".join(map(json.dumps, rows)))
    assert sweeping.lr_factor(tmp_path, 48) == 2.0
    assert sweeping.lr_factor(tmp_path, 192) == pytest.approx(0.5)
