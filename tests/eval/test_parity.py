"""Parity sees a program that says something else, and judges each type by its bar."""

import json
import types

import numpy as np
import pytest
from flax import nnx

from eval import artifact, card, export, measured, parity, policy, report
from student_jax import config, presets
from student_jax.student import Student

CONTEXT = report.Context("random", "none", "tiny", 1, "cpu", "abc", "it")
KIT = artifact.Kit((1, 1, 32, 32, 3))

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def student():
    return Student(presets.make("tiny", config.Target(width=8, grid=4)), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def loaded(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "it"
    about = artifact.About(
        "tiny", True, "arc", {}, {"id": "t", "provenance": "random", "licence": "none", "digest": "d"}
    )
    export.write(folder, student, about, KIT, platforms=("cpu",))
    return policy.load(folder)


def altered(loaded, change):
    return types.SimpleNamespace(meta=loaded.meta, given=loaded.given, run=lambda given: change(loaded.run(given)))


def test_an_artifact_is_its_student(student, loaded):
    found = parity.compare(student, KIT, loaded)
    assert (found.agreed, found.decisions) == (1.0, 12)
    assert found.worst().max_abs <= 1e-5
    rows = {row.id: row for row in found.rows(CONTEXT)}
    assert rows["export.float32.worst_max_abs"].passed
    assert rows["export.float32.features_image_tokens_cosine"].value == pytest.approx(1.0)


def test_a_difference_is_found_where_it_is(student, loaded):
    def change(said):
        return said | {"confidence": said["confidence"] + np.float32(0.25)}

    found = parity.compare(student, KIT, altered(loaded, change))
    assert found.outputs["confidence"].max_abs == pytest.approx(0.25, abs=1e-5)
    assert found.outputs["atp"].max_abs == 0.0
    assert not {row.id: row for row in found.rows(CONTEXT)}["export.float32.worst_max_abs"].passed


def test_other_steps_count_against_agreement_alone(student, loaded):
    def change(said):
        other = said["steps"]["vision"].copy()
        other[0] += 1
        energy = said["energy"]["vision"].copy()
        energy[0] = 9.0
        return said | {"steps": {"vision": other}, "energy": {"vision": energy}}

    found = parity.compare(student, KIT, altered(loaded, change))
    assert found.agreed == pytest.approx(0.75)  # the first of four, at each of three budgets
    assert found.worst().max_abs <= 1e-5


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_a_fault_wherever_it_is(student, loaded, value, steps):
    """Also in a decision that took other steps, and behind outputs that are right."""

    def change(said):
        energy, other = said["energy"]["vision"].copy(), said["steps"]["vision"].copy()
        energy[0], other[0] = value, other[0] + steps
        return said | {"energy": {"vision": energy}, "steps": {"vision": other}}

    with np.errstate(invalid="ignore"):
        found = parity.compare(student, KIT, altered(loaded, change))
    assert "energy.vision has NaN" in found.fault()
    assert not np.isfinite(found.worst().max_abs)
    assert not {row.id: row for row in found.rows(CONTEXT)}["export.float32.worst_max_abs"].passed
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["outputs"]["energy.vision"]["max_abs"] is None
    assert "not finite" in card.text(loaded.meta | {"parity": record}, 1)


def test_nan_shows_whatever_comes_before_it():
    sound, broken = parity.Difference(0.0, 1.0, 1.0), parity.Difference(float("nan"), float("nan"), 1.0)
    for outputs in ({"a": sound, "b": broken}, {"a": broken, "b": sound}):
        worst = parity.Parity("float32", "float32", outputs, 1.0, 1).worst()
        assert np.isnan([worst.max_abs, worst.cosine]).all()


@pytest.mark.parametrize(
    ("dtype", "max_abs", "cosine", "said"),
    [
        ("float32", 1e-5, 0.9, ""), ("float32", 2e-5, 1.0, "max_abs"), ("bfloat16", 3.0, 0.9999, ""),
        ("bfloat16", 0.0, 0.9998, "cosine"), ("int8", 3.0, 0.9, ""), ("int8", float("nan"), 1.0, "NaN"),
    ],
)  # fmt: skip
def test_each_type_is_held_to_its_bar(dtype, max_abs, cosine, said):
    outputs = {"a": parity.Difference(max_abs, cosine, 1.0), "b": parity.Difference(0.0, 1.0, 1.0)}
    fault = parity.Parity(dtype, "float32", outputs, 1.0, 1).fault()
    assert said in fault
    assert bool(said) == bool(fault)


def test_the_same_seed_asks_the_same(loaded):
    one, two, other = (parity.asked(loaded, KIT, batch=2, shares=(0.5,), seed=seed)[0]["video"] for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_cosine_of_nothing_and_of_opposites():
    assert parity.difference(np.zeros(3), np.zeros(3)).cosine == 1.0
    assert parity.difference(np.zeros(3), np.ones(3)).cosine == 0.0
    assert parity.difference(np.ones(3), -np.ones(3)).cosine == pytest.approx(-1.0)


def test_a_step_of_each_module_is_timed(student, loaded):
    found = measured.measure(student, KIT, loaded)
    assert set(found["ms_per_step"]) == {"vision"}
    assert found["ms_base"] > 0
    assert found["ms_per_step"]["vision"] > 0
