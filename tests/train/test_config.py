"""The command line: presets, early errors, the JSON form."""

import dataclasses
import pathlib

import pytest

from train import config, plain, recipes


def test_the_preset_sets_the_defaults_and_flags_override_them():
    chosen = recipes.parse(["--preset", "seed", "--batch", "4"])
    assert (chosen.recipe.batch, chosen.recipe.epochs, chosen.recipe.lr) == (4, 100, 1e-4)
    assert recipes.parse(["--preset=tiny"]).recipe == recipes.PRESETS["tiny"].recipe


@pytest.mark.parametrize(
    ("argv", "known"),
    [
        (["--stage", "component"], "end-to-end"),
        (["--component", "sight"], "vision"),
        (["--preset", "huge"], "sage_48m"),
    ],
)
def test_an_unknown_choice_lists_the_known_ones(argv, known, capsys):
    with pytest.raises(SystemExit) as raised:
        recipes.parse(argv)
    assert raised.value.code == 2
    assert known in capsys.readouterr().err


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        recipes.parse(["--help"])
    shown = capsys.readouterr().out
    for group in (config.Recipe, config.Loop, config.Launch):
        assert all("--" + field.name.replace("_", "-") in shown for field in dataclasses.fields(group))


@pytest.mark.parametrize("flag", ["--batch", "--lr", "--clip", "--steps", "--eval-every", "--log-every"])
def test_numbers_out_of_range_are_refused_by_name(flag):
    with pytest.raises(config.ConfigError, match=flag):
        recipes.parse([flag, "0"])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_negative_or_no_number_is_refused_by_name(value, capsys):
    with pytest.raises(config.ConfigError, match=r"--loss\.fused-cosine"):
        config.LossWeights(fused_cosine=value)
    with pytest.raises(SystemExit):
        recipes.parse(["--loss.fused-cosine", str(value)])
    assert "--loss.fused-cosine" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), [("--threads", "0"), ("--prefetch", "0"), ("--cache-gib", "-1")])
def test_a_launch_that_cannot_run_is_refused_by_name(flag, value, capsys):
    with pytest.raises((SystemExit, config.ConfigError)) as refused:
        recipes.parse([flag, value])
    assert flag in capsys.readouterr().err + str(refused.value)


def test_a_negative_seed_is_refused():
    with pytest.raises(config.ConfigError, match="--seed"):
        config.Config(seed=-1)


def test_a_config_survives_json():
    chosen = recipes.parse(["--out", "runs/x", "--steps", "5", "--loss.energy", "0.25"])
    assert plain.from_json(config.Config, plain.to_json(chosen)) == chosen
    assert chosen.launch.out == pathlib.Path("runs/x")


def test_json_of_another_version_is_refused():
    data = plain.to_json(config.Config())
    data["recipe"]["momentum"] = 0.9
    with pytest.raises(config.ConfigError, match=r"unknown fields \['momentum'\]"):
        plain.from_json(config.Config, data)
    with pytest.raises(config.ConfigError, match=r"missing fields \['student'\]"):
        plain.from_json(recipes.Preset, {"recipe": {}, "loop": {}})


def test_a_field_that_came_later_has_its_default():
    data = plain.to_json(config.Config(seed=3))
    del data["init"], data["loss"]["objects"]
    assert plain.from_json(config.Config, data) == config.Config(seed=3)


def test_differences_are_named_with_both_values():
    old, new = plain.to_json(config.Config()), plain.to_json(config.Config(seed=4))
    new["recipe"]["lr"] = 0.5
    assert plain.differences(old, new) == ["recipe.lr: 0.002 -> 0.5", "seed: 0 -> 4"]


def test_epochs_replace_the_presets_steps():
    assert recipes.parse(["--epochs", "3"]).recipe.steps is None
    assert recipes.parse(["--epochs=3", "--steps", "7"]).recipe.steps == 7
    assert recipes.parse([]).recipe.steps == recipes.PRESETS["standin"].recipe.steps
