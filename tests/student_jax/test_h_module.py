"""The H-module and the orchestrator: briefs are distributions, budgets hold, freed ATP arrives, gates follow trust."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, irp
from student_jax.sage import budget, orchestrator
from student_jax.student import Student

KEY = jax.random.key(0)
MODULES = ("vision", "language", "control")


@pytest.fixture(scope="module")
def model(make_robot):
    settings = config.orchestrated(make_robot(), "tiny")
    made = Student(settings, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    heads = [made.vision.error_out, made.language.judge.out, made.control.judge.out, made.control.out]
    heads += [made.h_module.open, made.h_module.tell, made.h_module.sure]
    for head in heads:
        head.kernel[...] = jnp.asarray(0.3 * rng.normal(size=head.kernel.shape), jnp.float32)
    made.h_module.point[...] = jnp.asarray(rng.normal(size=made.h_module.point.shape), jnp.float32)
    return made


@pytest.fixture(scope="module")
def run(model):
    graph, state = nnx.split(model)

    @jax.jit
    def call(inputs, atp, trust):
        student = nnx.merge(graph, state)
        return orchestrator.run(student, inputs, atp, trust, KEY), student(inputs, atp, trust, KEY)

    return call


@pytest.fixture
def given(make_observation):
    return lambda b=8, **changes: dataclasses.replace(make_observation(b=b, context=False), **changes)


def usual(b=8):
    return jnp.full((b, 3), 0.9)


def test_a_brief_is_a_saliency_gates_and_halting_distributions(run, given, model):
    inputs = given()
    mask = inputs.frame_mask.at[0, 0, 1].set(False)
    brief = run(dataclasses.replace(inputs, frame_mask=mask), jnp.full(8, 1e3), usual())[0].brief
    np.testing.assert_allclose(np.asarray(brief.saliency).sum((1, 2)), 1, rtol=1e-5)
    assert float(brief.saliency[0, 1].sum()) == 0
    assert np.all((np.asarray(brief.gates) > 0) & (np.asarray(brief.gates) < 1))
    for name in MODULES:
        np.testing.assert_allclose(np.exp(brief.log_worth[name]).sum(1), 1, rtol=1e-5)
        assert brief.log_worth[name].shape[1] == model.modules[name].description.max_steps + 1


def test_the_students_output_has_saliency_and_confidence(run, given):
    out = run(given(), jnp.full(8, 1e3), usual())[1]
    assert out.features["saliency"].shape == (8, 2, 16)
    assert np.all((np.asarray(out.confidence) > 0) & (np.asarray(out.confidence) < 1))
    assert set(out.accounts) == set(MODULES)


def test_no_budget_is_ever_overdrawn(run, given, model):
    """10,000 budgets, from none to more than all steps cost."""
    rng, inputs = np.random.default_rng(0), given(b=250)
    table = model.table(inputs)
    full = budget.full(table, {name: m.description.max_steps for name, m in model.modules.items()})
    for _ in range(40):
        atp = np.float32(full * rng.uniform(0, 1.3, 250) ** 2)
        found, out = run(inputs, jnp.asarray(atp), jnp.asarray(rng.uniform(0, 1, (250, 3)), jnp.float32))
        exact = sum(np.float64(out.steps[name]) * table[name].step_atp for name in MODULES)
        assert np.all(exact <= atp * (1 + 1e-7))
        assert all(np.all(np.asarray(a.spent) <= np.asarray(a.granted)) for a in found.accounts.values())


def test_ample_budget_gives_every_module_the_steps_it_was_planned(run, given):
    found, _ = run(given(), jnp.full(8, 1e4), usual())
    for account in found.accounts.values():
        stopped = np.asarray(account.reason) == irp.Reason.BUDGET
        assert np.array_equal(np.asarray(account.steps)[stopped], np.asarray(account.planned)[stopped])


def test_atp_that_one_module_frees_reaches_the_next(model, given):
    """The same budgets; a vision that asks for nothing leaves its share to language and control."""
    inputs = given()
    table = model.table(inputs)
    most = {name: m.description.max_steps for name, m in model.modules.items()}
    rows, atp = jnp.ones(50, jnp.int32), jnp.linspace(0, 1, 50) * budget.full(table, most)
    all_want = {name: most[name] * rows for name in most}
    plans = (all_want, all_want | {"vision": 0 * rows})
    before, after = (orchestrator.bought(table, most, plan, usual(50), atp) for plan in plans)
    gain = sum(np.asarray(after[name] - before[name]) for name in ("language", "control"))
    assert np.all(gain >= 0)
    assert np.any(gain > 0)


def test_gates_close_as_trust_falls(run, given):
    inputs, atp = given(), jnp.full(8, 1e4)
    gates = [np.asarray(run(inputs, atp, usual().at[:, 0].set(t))[0].brief.gates[:, 0]) for t in (0.1, 0.5, 0.9)]
    assert np.all(gates[0] < gates[1])
    assert np.all(gates[1] < gates[2])


def test_a_tighter_budget_makes_steps_dearer():
    worth = jax.nn.log_softmax(jnp.array([[0.0, 1.0, 1.5, 1.6]]))
    steps = [int(budget.wanted(worth, jnp.array([thrift]), price=0.2)[0]) for thrift in (1.0, 3.0, 10.0)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


def test_the_target_asks_for_steps_that_pay():
    errors = jnp.array([[1.0, 0.2, 0.2, 0.2], [1.0, 0.8, 0.5, 0.1], [0.3, 0.3, 0.3, 0.3]])
    assert np.argmax(budget.target(errors, tau=0.05, price=0.2), axis=1).tolist() == [1, 3, 0]
