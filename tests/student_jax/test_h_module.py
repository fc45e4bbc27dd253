"""The H-module and the orchestrator: briefs are distributions, budgets hold, freed ATP arrives, gates follow trust."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import irp, presets
from student_jax.sage import budget, orchestrator
from student_jax.student import Student

KEY = jax.random.key(0)
MODULES = ("vision", "language", "control")
STATIC = irp.Inputs(np.zeros((1, 1, 2, 40, 40, 3), np.uint8), None, np.zeros((1, 6)), None, None)


@pytest.fixture(scope="module")
def model(make_robot):
    settings = presets.orchestrated(make_robot(), "tiny")
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


def test_a_brief_is_a_saliency_gates_and_foresight(run, given, model):
    inputs = given()
    mask = inputs.frame_mask.at[0, 0, 1].set(False)
    brief = run(dataclasses.replace(inputs, frame_mask=mask), jnp.full(8, 1e3), usual())[0].brief
    np.testing.assert_allclose(np.asarray(brief.saliency).sum((1, 2)), 1, rtol=1e-5)
    assert float(brief.saliency[0, 1].sum()) == 0
    assert np.all((np.asarray(brief.gates) > 0) & (np.asarray(brief.gates) < 1))
    assert brief.log_error.shape == (8, np.prod([m.description.max_steps + 1 for m in model.modules.values()]))


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
        assert np.all(exact <= atp.astype(np.float64))
        assert all(np.all(np.asarray(a.spent) <= np.asarray(a.granted)) for a in found.accounts.values())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_budget_that_pays_exactly_buys_every_step(model, given, depth):
    inputs = given()
    table, most = model.table(inputs), {name: m.description.max_steps for name, m in model.modules.items()}
    atp = sum(table[name].step_atp * min(depth, count) for name, count in most.items())
    for config_, asked in ((None, depth), (hungry(model), None)):
        found = orchestrator.run(config_ or model, inputs, jnp.full(8, atp), usual(), KEY, depth=asked)
        assert np.all(sum(np.asarray(one.spent) for one in found.accounts.values()) <= atp)
        if asked:
            steps = {name: np.asarray(one.steps).tolist() for name, one in found.accounts.items()}
            assert steps == {name: [min(depth, count)] * 8 for name, count in most.items()}


@pytest.mark.parametrize("odd", [np.nan, -1.0, np.inf])
def test_odd_budgets_and_odd_trust_still_give_an_answer(run, given, odd):
    for atp, trust in ((odd, 0.9), (1e3, odd)):
        found, out = run(given(), jnp.full(8, atp, jnp.float32), jnp.full((8, 3), trust, jnp.float32))
        assert np.isfinite(np.asarray(out.confidence)).all()
        assert np.isfinite(np.asarray(found.brief.saliency)).all()


def test_ample_budget_gives_every_module_the_steps_it_was_planned(run, given):
    found, _ = run(given(), jnp.full(8, 1e4), usual())
    for account in found.accounts.values():
        stopped = np.asarray(account.reason) == irp.Reason.BUDGET
        assert np.array_equal(np.asarray(account.steps)[stopped], np.asarray(account.planned)[stopped])


def hungry(model, gains=(2.0, 2.0, 2.0)):
    """The same student, whose H-module foresees that every step of a module gains so much."""
    other = nnx.clone(model)
    steps = orchestrator.choices(other, STATIC).steps
    other.h_module.foresee.kernel[...] = jnp.zeros_like(other.h_module.foresee.kernel[...])
    other.h_module.foresee.bias[...] = jnp.asarray(-steps @ np.asarray(gains), jnp.float32)
    return other


def test_atp_that_a_module_frees_by_halting_reaches_the_next(model, given):
    """The budget pays for all of vision and language, and nothing is left for the control: unless vision halts."""
    inputs, other = given(), hungry(model, (400.0, 40.0, 4.0))
    table, most = other.table(inputs), {name: m.description.max_steps for name, m in other.modules.items()}
    atp = jnp.full(8, sum(table[name].step_atp * most[name] for name in ("vision", "language")))
    still, stops = (dataclasses.replace(other.config, halt=irp.Halt(min_fall=fall)) for fall in (0.0, 0.99))
    taken = []
    for settings in (still, stops):
        other.config = settings
        accounts = orchestrator.run(other, inputs, atp, usual(), KEY).accounts
        taken.append({name: int(np.sum(one.steps)) for name, one in accounts.items()})
    assert taken[0]["vision"] == 8 * most["vision"]
    assert taken[0]["control"] == 0
    assert taken[1]["vision"] < taken[0]["vision"]
    assert taken[0]["language"] == 8 * most["language"]
    assert taken[1]["control"] > 0


def test_less_trust_leaves_less_to_spend(model, given):
    inputs, other = given(), hungry(model)
    full = orchestrator.choices(other, inputs).costs.sum(axis=1).max()
    steps = []
    for trust in (0.05, 0.9):
        found = orchestrator.run(other, inputs, jnp.full(8, 0.8 * full), usual().at[:, 0].set(trust), KEY)
        steps.append(int(found.accounts["vision"].planned.sum()))
    assert steps[0] < steps[1]


def test_gates_close_as_trust_falls(run, given):
    inputs, atp = given(), jnp.full(8, 1e4)
    gates = [np.asarray(run(inputs, atp, usual().at[:, 0].set(t))[0].brief.gates[:, 0]) for t in (0.1, 0.5, 0.9)]
    assert np.all(gates[0] < gates[1])
    assert np.all(gates[1] < gates[2])


CHOICES = budget.Choices.of([1.0, 2.0], [2, 1])
NOTHING = jnp.zeros((1, 0), jnp.int32)


def best(log_error, *, left=99.0, caps=(99.0, 99.0), taken=NOTHING, price=0.0):
    index = budget.choose(
        jnp.asarray([log_error]), CHOICES, left=jnp.array([left]), caps=jnp.array([caps]), taken=taken,
        price=price,
    )  # fmt: skip
    return CHOICES.steps[int(index[0])].tolist()


FALLING = [-float(a + b) for a in range(3) for b in range(2)]


def test_the_best_choice_within_what_is_left():
    assert best(FALLING) == [2, 1]
    assert best(FALLING, left=3.0) in ([2, 0], [1, 1])
    assert best(FALLING, left=0.5) == [0, 0]


def test_caps_and_what_was_taken_bind():
    assert best(FALLING, caps=(1.0, 99.0)) == [1, 1]
    assert best(FALLING, taken=jnp.array([[1]])) == [1, 1]
    assert best(FALLING, taken=jnp.array([[2]]), left=1.0) == [2, 0]


def test_a_dearer_step_is_not_taken():
    slightly = [-0.1 * (a + b) for a in range(3) for b in range(2)]
    assert best(slightly, price=0.01) == [2, 1]
    assert best(slightly, price=10.0) == [0, 0]
