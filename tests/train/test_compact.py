"""Training on a compact store: the losses of the exact one, from codes that become tokens on the device."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import compact as conversion
from bridge import store
from student_jax.student import Student
from train import compact, config, losses, main, metrics, robot, sources, stages, state

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def packed(robot_stored, tmp_path_factory):
    """A compact store of the robot's, with all components."""
    folder = tmp_path_factory.mktemp("compact") / "store"
    assert conversion.main([str(robot_stored), "--out", str(folder), "--variance", "1"]) == 0
    shutil.copy(robot_stored / "embodiment.json", folder)  # whose digest this store's manifest does not have
    return folder


def opened(url, **launch):
    options = config.Config(stage="end-to-end", preset="tiny", launch=config.Launch(**launch))
    reader = store.open(url)
    stage = stages.select(options, "robot")
    return sources.open_material(reader, stage, options, None), compact.understood(stage, reader), reader


def test_codes_become_the_readers_tokens_on_the_device(packed):
    material, _, reader = opened(packed)
    at = np.array([3, 0])
    batch = material.sources.train.read(at)
    assert batch["image_tokens"].dtype == np.int8
    assert batch["noise"].dtype == batch["vision_attention"].dtype == np.float32
    found = compact.decoded(jax.tree.map(jnp.asarray, batch), reader.codings)
    assert "image_tokens.scale" not in found
    for name in ("image_tokens", "fused_tokens"):
        expected = reader.take(name, reader.records("train")[at]).reshape(2, 2, 16, 8)
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
        np.testing.assert_allclose(material.sources.train.fetch(name, at), expected, atol=1e-6)


def test_memory_and_disk_give_the_same_codes(packed):
    held, read = opened(packed)[0].sources.train, opened(packed, cache_gib=0.0)[0].sources.train
    assert held.cached
    assert not read.cached
    for name, value in held.read(np.array([2, 2, 5])).items():
        np.testing.assert_array_equal(read.read(np.array([2, 2, 5]))[name], value, err_msg=name)


def test_losses_are_those_against_the_exact_stores_tokens(robot_stored, packed):
    """One student, one batch: from codes, and from the exact tokens."""
    (exact, plain, _), (material, stage, _) = opened(robot_stored), opened(packed)
    made = Student(material.settings, rngs=nnx.Rngs(0))
    graph, params, frozen = state.partition(made, lambda path: True)
    statistics = jax.tree.map(jnp.asarray, robot.statistics(material.sources.train))
    student = state.merge(graph, params, state.replace_leaves(frozen, statistics))
    at = np.arange(4)
    codes, batch = (jax.tree.map(jnp.asarray, each.sources.train.read(at)) for each in (material, exact))
    (found, _), (expected, _) = (of.terms(student, given, KEY) for of, given in ((stage, codes), (plain, batch)))
    assert found.keys() == expected.keys()
    for name, term in expected.items():
        np.testing.assert_allclose(losses.mean(found[name]), losses.mean(term), rtol=2e-2, atol=2e-3, err_msg=name)
    sums = [of.measure(student, given, KEY) for of, given in ((stage, codes), (plain, batch))]
    np.testing.assert_allclose(sums[0]["vision_error"], sums[1]["vision_error"], rtol=2e-2)


def test_the_command_trains_on_it_and_refuses_a_mixture(robot_stored, packed, tmp_path, capsys):
    given = ["--stage", "end-to-end", "--store", str(packed), "--preset", "tiny", "--host-devices", "1"]
    given += ["--loss.objects", "0", "--eval-every", "1", "--out", str(tmp_path / "run")]
    assert main.main([*given, "--steps", "1"]) == 0
    rows = metrics.read(tmp_path / "run/metrics.jsonl")
    assert [row["kind"] for row in rows][-1] == "validation"
    assert main.main([*given, "--out", str(tmp_path / "x"), "--also", str(robot_stored)]) == 2
    assert f"python -m bridge.compact {robot_stored} --like" in capsys.readouterr().err


@pytest.mark.parametrize("component", ["vision", "language"])
def test_components_are_scored_on_every_token(packed, component):
    options = config.Config(stage="components", component=component, preset="tiny")
    reader = store.open(packed)
    stage = compact.understood(stages.select(options, "robot"), reader)
    material = sources.open_material(reader, stage, options, None)
    student = Student(material.settings, rngs=nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, material.sources.validation.read(np.arange(4)))
    sums = {name: np.asarray(value) for name, value in stage.measure(student, batch, KEY).items()}
    assert sums["count"] == 4 * 2 * 16
    assert np.isfinite(stage.summarise([sums])[stage.metric])
