"""The table of stages: what is built, what is not, and that only a stage's leaves can move."""

import functools

import jax
import pytest
from flax import nnx

from student_jax import config as student_config
from student_jax import layers, presets
from student_jax.student import Student
from train import config, stages, state


@functools.cache
def tiny() -> Student:
    return Student(presets.make("tiny", student_config.Target(width=8, grid=3)), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("stage", ["orchestration", "beyond"])
def test_a_stage_not_built_yet_says_so_and_lists_what_is(stage):
    with pytest.raises(config.ConfigError, match=rf"--stage {stage} is not built yet.*--component vision"):
        stages.select(config.Config(stage=stage), "arc")


@pytest.mark.parametrize("component", ["language", "attention", "control", "grid"])
def test_a_component_not_built_yet_says_so(component):
    with pytest.raises(config.ConfigError, match=f"--component {component} is not built yet"):
        stages.select(config.Config(component=component), "arc")


def test_statistics_are_never_parameters():
    _, params, frozen = state.partition(tiny(), stages.select(config.Config(), "arc").trains)
    statistics = nnx.to_pure_dict(nnx.state(tiny(), layers.Statistic))
    assert jax.tree.structure(frozen) == jax.tree.structure(statistics)
    assert set(frozen["vision"]) == {"mean", "basis", "error_scale"}
    assert not set(params["vision"]) & set(frozen["vision"])


def test_a_stage_of_another_module_freezes_every_vision_leaf():
    _, params, frozen = state.partition(tiny(), lambda path: path[0] == "language")
    assert params == {}
    assert len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(nnx.to_pure_dict(nnx.state(tiny()))))


def test_a_student_survives_being_taken_apart():
    graph, params, frozen = state.partition(tiny(), stages.select(config.Config(), "arc").trains)
    whole = nnx.to_pure_dict(nnx.state(state.merge(graph, params, frozen)))
    before = nnx.to_pure_dict(nnx.state(tiny()))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole, before))


def test_leaves_are_replaced_in_a_copy():
    tree = {"vision": {"mean": 1, "basis": 2}}
    assert state.replace_leaves(tree, {("vision", "mean"): 5}) == {"vision": {"mean": 5, "basis": 2}}
    assert tree["vision"]["mean"] == 1
    with pytest.raises(KeyError, match="no leaf 'scale'"):
        state.replace_leaves(tree, {("vision", "scale"): 5})
