"""Plans of training runs: counted sizes, the formulas of published runs, and layouts on GPUs."""

from dataclasses import replace

import pytest

from kinema.cli.main import main
from kinema.errors import ConfigError, UnknownName
from kinema.generation.cost.counting import backbone_flops, training_bytes
from kinema.models.dit import DiTConfig
from kinema.scaling.planner import (
    Cluster,
    StepKind,
    Training,
    alternatives,
    cluster_of,
    fits,
    plan_training,
)
from kinema.scaling.published import TransformerShape, checks, claims

SMALL = DiTConfig(d=128, num_layers=3, num_heads=4, ffn_dim=512, text_dim=64)
GRID = (5, 8, 8)
RUN = Training("small", SMALL, (StepKind(100, 16, GRID),))


def test_the_formula_counts_the_flops_of_the_network():
    shape = TransformerShape(128, 3, 512)
    keys_values = 3 * 4 * 128 * 128**2  # of the text, which are counted apart
    assert shape.forward_flops(80, 128) - keys_values == pytest.approx(backbone_flops(SMALL, GRID), rel=0.03)


def test_checkpointing_keeps_one_matrix_a_block():
    deep = replace(SMALL, num_layers=4)
    grid = (17, 32, 32)
    more = training_bytes(deep, grid, activation_checkpointing=True) - training_bytes(
        SMALL, grid, activation_checkpointing=True
    )
    tokens = 17 * 16 * 16
    assert more == pytest.approx(4 * tokens * 128, rel=0.1)
    assert training_bytes(deep, grid, activation_checkpointing=True) < 0.5 * training_bytes(
        deep, grid, activation_checkpointing=False
    )


def test_sharding_divides_the_states_and_sequences_divide_the_activations():
    one, eight = (plan_training(RUN, replace(cluster_of("8xH100"), shard=size)) for size in (1, 8))
    assert one.memory["optimizer"] == pytest.approx(8 * RUN.parameters)
    assert eight.memory["optimizer"] == pytest.approx(RUN.parameters)
    split = plan_training(RUN, replace(cluster_of("8xH100"), sequence=2))
    assert split.memory["activations"] == pytest.approx(
        eight.memory["activations"]
    )  # twice the clips, half each
    assert split.traffic["tokens"] > 0 == eight.traffic["tokens"]


def test_time_energy_and_cost_follow_from_the_flops():
    plan = plan_training(RUN, Cluster("H100", 1, cluster_of("1xH100").gpu), utilisation=0.5)
    assert plan.flops == pytest.approx(3 * 1600 * backbone_flops(SMALL, GRID))
    assert plan.seconds == pytest.approx(plan.flops / (0.5 * 989e12))
    assert plan.cost == pytest.approx(2.5 * plan.gpu_hours)
    assert plan.kwh == pytest.approx(0.7 * 1.5 * 1.2 * plan.gpu_hours)


def test_what_does_not_fit_is_answered_by_what_does():
    small = replace(cluster_of("2xH100"), gpu=replace(cluster_of("2xH100").gpu, memory_gib=0.038))
    assert not fits(plan_training(RUN, small).peak_bytes, small)
    lines = alternatives(RUN, small)
    assert any(line.startswith("--activation-checkpointing needs") for line in lines)
    assert any(line.startswith("--batch 8 ") for line in lines)


@pytest.mark.parametrize(
    ("text", "error"), [("H100", ConfigError), ("0xH100", ConfigError), ("8xH10", UnknownName)]
)
def test_wrong_gpus_are_refused(text, error):
    with pytest.raises(error):
        cluster_of(text)


def test_a_batch_that_leaves_gpus_idle_is_refused():
    with pytest.raises(ConfigError, match="--batch 32"):
        plan_training(RUN, cluster_of("32xH100"))
    with pytest.raises(ConfigError, match="groups of shard = 3"):
        replace(cluster_of("8xH100"), shard=3)


def test_published_runs_are_within_their_limits():
    found = checks()
    assert len(found) >= 12
    assert [check for check in found if not check.is_within] == []
    assert "9.7 billion" in claims()[0]


def test_the_command_plans_a_recipe(capsys):
    assert main(["plan", "--train", "recipes/dit_tiny.toml", "--gpus", "8xH100"]) == 0
    assert "8 H100, shard 8" in capsys.readouterr().out


def test_the_command_refuses_what_does_not_fit(capsys):
    words = "plan --train recipes/dit_tiny.toml --gpus 8xH100 --model wan-2.1-14b --size 832x480 --frames 81"
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert "GiB on each H100 of 80 GiB: --activation-checkpointing needs" in error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("plan --shard 2", "--shard needs --train RECIPE"),
        ("plan --train recipes/dit_tiny.toml --offload text", "--offload does not apply to --train"),
        ("plan --train recipes/vae_tiny.toml", "task = 'vae'"),
        ("plan --train recipes/dit_tiny.toml --size 100x64", "do not fit the VAE"),
    ],
)
def test_options_that_do_not_apply_are_refused(words, reason, capsys):
    assert main(words.split()) == 2
    assert reason in capsys.readouterr().err
