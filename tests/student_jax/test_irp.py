import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from student_jax import irp

KEY = jax.random.key(0)
PATIENT = irp.Halt(min_fall=0.0)


@functools.partial(jax.jit, static_argnames=("kind", "halt", "mode"))  # compiled once per shape, halt and mode
def compiled(kind, energies, budget, halt, mode):
    return irp.refine(kind(energies), rows(kind(energies)), KEY, budget, halt, mode=mode)


def rows(plugin):
    tokens = jnp.arange(len(plugin.energies), dtype=jnp.int32)[:, None]
    return irp.Inputs(None, None, tokens, None, None)


def refine(plugin, budget, halt=PATIENT, mode="while"):
    return compiled(type(plugin), plugin.energies, jnp.asarray(budget, jnp.int32), halt, mode)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("energies", "halt", "reason", "steps"),
    [
        ([0.8, 0.4, 0.2, 0.1], irp.Halt(), irp.Reason.MAX_STEPS, 3),
        ([0.8, 0.4, 0.399, 0.1], irp.Halt(), irp.Reason.CONVERGED, 2),
        ([0.8, 0.4, 0.399, 0.1], irp.Halt(patience=2), irp.Reason.MAX_STEPS, 3),
        ([0.8, 0.4, 0.2, 0.1], irp.Halt(feasible=0.4), irp.Reason.FEASIBLE, 1),
        ([0.3, 0.4, 0.2, 0.1], irp.Halt(feasible=0.5), irp.Reason.FEASIBLE, 0),
        ([0.4, 0.6, 0.4, 0.6], irp.Halt(patience=2), irp.Reason.OSCILLATING, 2),
        ([0.4, 0.5, 0.6, 0.7], irp.Halt(patience=2), irp.Reason.DIVERGING, 2),
        ([0.4, 1.5, 0.2, 0.1], irp.Halt(), irp.Reason.INVALID, 1),
        ([0.4, np.nan, 0.2, 0.1], irp.Halt(), irp.Reason.INVALID, 1),
        ([0.4, -0.1, 0.2, 0.1], irp.Halt(), irp.Reason.INVALID, 1),
        ([np.nan, 0.3, 0.2, 0.1], irp.Halt(), irp.Reason.INVALID, 0),
        ([0.4, 0.4, 0.4, 0.4], irp.Halt(min_fall=0.0), irp.Reason.MAX_STEPS, 3),
        ([0.0, 0.4, 0.4, 0.4], irp.Halt(), irp.Reason.FEASIBLE, 0),
    ],
)
@pytest.mark.parametrize("mode", ["scan", "while"])
def test_reason_and_steps(scripted, energies, halt, reason, steps, mode):
    state, trace = refine(scripted([energies]), [9], halt, mode)
    assert irp.Reason(int(trace.reason[0])) is reason
    assert int(trace.steps[0]) == steps
    seen = np.asarray(energies[: steps + 1], np.float32)
    np.testing.assert_array_equal(trace.energy[0], np.pad(seen, (0, 3 - steps), mode="edge"))
    valid = np.where((seen >= 0) & (seen <= 1), seen, np.inf)
    assert int(state.step[0]) == int(np.argmin(valid))


def test_an_oscillation_around_the_best_is_never_called_converged(scripted):
    swing = np.random.default_rng(0).uniform(0.05, 0.4, (100, 1))
    energies = 0.5 + swing * (-1.0) ** np.arange(7)
    reason = refine(scripted(energies), [6] * 100, irp.Halt(patience=3))[1].reason
    assert set(reason.tolist()) == {irp.Reason.OSCILLATING}


def test_budget_below_one_step_returns_the_initial_state(scripted):
    plugin = scripted([[0.8, 0.4], [0.8, 0.4], [0.8, 0.4]])
    state, trace = refine(plugin, [0, -3, 1])
    assert state.x[:, 0].tolist() == [0, 0, 1]
    assert trace.steps.tolist() == [0, 0, 1]
    assert trace.reason.tolist() == [irp.Reason.BUDGET, irp.Reason.BUDGET, irp.Reason.MAX_STEPS]


def test_samples_halt_on_their_own(scripted):
    energies = [[0.8, 0.4, 0.2, 0.1], [0.8, 0.8, 0.2, 0.1], [0.8, 0.4, 0.2, 0.1]]
    state, trace = refine(scripted(energies), [9, 9, 2], irp.Halt())
    assert trace.steps.tolist() == [3, 1, 2]
    assert state.x[:, 0].tolist() == [3, 0, 2]


def test_the_best_state_is_returned_not_the_last_and_ties_go_to_the_earlier(scripted):
    state, trace = refine(scripted([[0.5, 0.2, 0.4, 0.3], [0.5, 0.3, 0.3, 0.3]]), [3, 3])
    assert state.step.tolist() == [1, 1]
    np.testing.assert_array_equal(state.energy, np.float32([0.2, 0.3]))
    assert trace.steps.tolist() == [3, 3]


def test_scan_equals_while_on_random_energies(scripted):
    rng = np.random.default_rng(1)
    plugin, budget = scripted(rng.uniform(size=(64, 6))), rng.integers(0, 7, 64)
    halt = irp.Halt(min_fall=0.2, patience=2, feasible=0.05)
    same(refine(plugin, budget, halt, "scan"), refine(plugin, budget, halt, "while"))


@pytest.mark.parametrize(("mode", "ran"), [("while", 2), ("scan", 5)])
def test_while_stops_computing_once_all_have_halted(scripted, mode, ran):
    calls = []

    class Counting(scripted):
        def step(self, state, inputs):
            jax.debug.callback(lambda: calls.append(1))
            return super().step(state, inputs)

    plugin = Counting([[0.8, 0.4, 0.4, 0.4, 0.4, 0.4], [0.8, 0.8, 0.4, 0.4, 0.4, 0.4]])
    jax.block_until_ready(refine(plugin, [5, 5], irp.Halt(), mode))
    jax.effects_barrier()
    assert len(calls) == ran


def test_scan_has_a_gradient_and_halted_steps_get_none(scripted):
    def best(energies, budget):
        return jnp.sum(refine(scripted(energies), [budget], mode="scan")[0].energy)

    energies = jnp.float32([[0.8, 0.4, 0.2, 0.1]])
    assert jax.grad(best)(energies, 2).tolist() == [[0, 0, 1, 0]]


def test_unroll_gives_every_state_with_its_energy(scripted):
    plugin = scripted([[0.8, 0.4, 0.2]])
    states = irp.unroll(plugin, rows(plugin), KEY, 2)
    np.testing.assert_array_equal([state.energy[0] for state in states], np.float32([0.8, 0.4, 0.2]))


def test_states_are_frozen(scripted):
    plugin = scripted([[0.8, 0.4]])
    state = irp.start(plugin, rows(plugin), KEY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.x = 0


@pytest.mark.parametrize("fields", [{"patience": 0}, {"min_fall": -0.1}, {"feasible": 1.5}])
def test_halt_refuses_nonsense(fields):
    with pytest.raises(ValueError, match="Halt needs"):
        irp.Halt(**fields)


def test_unknown_mode(scripted):
    with pytest.raises(Exception, match="scan"):
        refine(scripted([[0.8, 0.4]]), [1], mode="loop")
