"""Checks that any plugin, ours or a third party's, keeps the IRP contract; `check` runs them all."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from student_jax import irp


class ConformanceError(AssertionError):
    """A plugin breaks the IRP contract; the message says which rule and how."""


def check(plugin: irp.Irp, inputs: irp.Inputs, key: Array) -> None:
    """Raise `ConformanceError` at the first broken rule. `inputs` holds at least two different samples.

    A plugin that reads earlier modules needs their `context` in it (`Student.prepared` makes one); one that draws noise
    is held to more when its `noise` is given.
    """
    _require(inputs.video.shape[0] >= 2, "give the suite inputs of at least two samples")
    check_description(plugin, inputs)
    check_start(plugin, inputs, key)
    check_immutable(plugin, inputs, key)
    unroll = jax.jit(lambda inputs: irp.unroll(plugin, inputs, key, plugin.description.max_steps))
    states = unroll(inputs)
    check_steps(plugin, states)
    check_energy(plugin, states)
    check_project(plugin, states)
    check_settles(states)
    if plugin.description.noise == "none" or inputs.noise is not None:
        check_rows(states, unroll(jax.tree.map(lambda leaf: leaf[::-1], inputs)))
    check_refine(plugin, inputs, key)


def check_description(plugin: irp.Irp, inputs: irp.Inputs) -> None:
    """Every declaration is made: names, at least one step, a positive cost."""
    description = plugin.description
    texts = {name: value for name, value in dataclasses.asdict(description).items() if isinstance(value, str)}
    _require(all(texts.values()), f"a description field is empty: {description}")
    _require(description.max_steps >= 1, f"max_steps is {description.max_steps}; a plugin that needs one pass says 1")
    flops = plugin.flops(inputs)
    _require(flops.step > 0 and flops.init >= 0 and flops.output >= 0, f"flops must be declared, got {flops}")


def check_immutable(plugin: irp.Irp, inputs: irp.Inputs, key: Array) -> None:
    """No method changes a state or the inputs it was given, and each gives the same answer twice."""
    state = plugin.init_state(inputs, key)
    calls = {
        "init_state": lambda: plugin.init_state(inputs, key),
        "step": lambda: plugin.step(state, inputs),
        "project": lambda: plugin.project(state),
        "energy": lambda: plugin.energy(state),
        "output": lambda: plugin.output(state),
    }
    for name, call in calls.items():
        before = _copy((state, inputs))
        try:
            first, second = _copy(call()), _copy(call())
        except dataclasses.FrozenInstanceError as error:
            raise ConformanceError(f"{name} edits its argument in place: {error}; return a new state") from error
        _require(_equal(before, (state, inputs)), f"{name} edits its argument in place; return a new state")
        _require(_equal(first, second), f"{name} is not pure: the same argument gave two results")


def check_start(plugin: irp.Irp, inputs: irp.Inputs, key: Array) -> None:
    """The initial state is already valid: batch first, step 0, finite state and output."""
    state, batch = plugin.init_state(inputs, key), inputs.video.shape[0]
    _require(isinstance(state, irp.State), f"init_state must return an irp.State, got {type(state).__name__}")
    leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(state)}
    _require(leading == {(batch,)}, f"every leaf of a state has the batch axis ({batch}) first, got {leading}")
    _require(bool(np.all(np.asarray(state.step) == 0)), f"the initial step must be 0, got {state.step}")
    _require(_finite(state.x), "the initial state is invalid: it holds a value that is not finite")
    _require(_finite(plugin.output(state)), "the initial state is invalid: its output is not finite")


def check_steps(plugin: irp.Irp, states: list[irp.State]) -> None:
    """Every later state is valid too: same structure, shapes and dtypes, step one higher, finite output."""
    expected = _layout((states[0], plugin.output(states[0])))
    for before, after in itertools.pairwise(states):
        counted = np.array_equal(np.asarray(after.step), np.asarray(before.step) + 1)
        _require(counted, f"step must raise the step index by one: {before.step} became {after.step}")
        output = plugin.output(after)
        _require(_layout((after, output)) == expected, "step or output changes a structure, shape or dtype")
        _require(_finite(after.x) and _finite(output), f"the state after step {after.step} is not finite")


def check_energy(plugin: irp.Irp, states: list[irp.State]) -> None:
    """Energies are one number per sample in [0, 1]."""
    for state in states:
        energy = np.asarray(plugin.energy(state))
        _require(energy.shape == np.shape(state.step), f"energy must be [b], got shape {energy.shape}")
        inside = np.all((energy >= 0) & (energy <= 1))
        _require(bool(inside), f"energy must lie in [0, 1], got {energy} after step {state.step}")


def check_project(plugin: irp.Irp, states: list[irp.State]) -> None:
    """A projected state stays as it is when projected again, from inside the constraints and from far outside."""
    for state in states:
        far = dataclasses.replace(state, x=jax.tree.map(lambda leaf: leaf * 1000, state.x))
        for start in (state, far):
            once = plugin.project(start)
            _require(_equal(once, plugin.project(once)), "project is not idempotent: a second call changes the state")
            _require(_equal(once.step, start.step), "project must not change the step index")


def check_settles(states: list[irp.State], slack: float = 0.01) -> None:
    """The energy never rises and falls again by more than `slack` of the first one: that would be oscillation."""
    energy = np.stack([np.asarray(state.energy) for state in states], axis=1)
    change = np.diff(energy, axis=1) / np.maximum(energy[:, :1], 1e-6)
    rose = np.cumsum(change > slack, axis=1) > 0
    turned = np.any(rose & (change < -slack), axis=1)
    _require(not turned.any(), f"the energy oscillates: {energy[turned].round(4).tolist()}")


def check_rows(states: list[irp.State], flipped: list[irp.State], tolerance: float = 1e-3) -> None:
    """A sample's states do not depend on its neighbours in the batch: `flipped` has the samples in reverse order.

    Asked of plugins that declare no noise or were given theirs.
    """
    pairs = zip(jax.tree.leaves(states), jax.tree.leaves(flipped), strict=True)
    same = all(_near(a, np.asarray(b)[::-1], tolerance) for a, b in pairs)
    _require(
        same,
        "a sample's state depends on the other samples of its batch, or on the key although noise is none or given",
    )


def check_refine(plugin: irp.Irp, inputs: irp.Inputs, key: Array) -> None:
    """`refine` traces, scan equals while, no budget is exceeded, 0 gives the initial state, the best is returned."""
    batch, most = inputs.video.shape[0], plugin.description.max_steps
    budget = jnp.arange(batch, dtype=jnp.int32) % (most + 1)
    halt = irp.Halt(min_fall=0.0)
    scan, loop = (
        jax.jit(lambda inputs, mode=mode: irp.refine(plugin, inputs, key, budget, halt, mode=mode))(inputs)
        for mode in ("scan", "while")
    )
    pairs = zip(jax.tree.leaves(scan), jax.tree.leaves(loop), strict=True)
    _require(all(_near(a, b, 1e-3) for a, b in pairs), "refine: scan and while differ")
    state, trace = loop
    _require(bool(jnp.all(trace.steps <= budget)), f"refine ran {trace.steps} steps on a budget of {budget}")
    _require(bool(jnp.all(state.energy == jnp.min(trace.energy, axis=1))), "refine did not return the best state")
    _require(int(state.step[0]) == 0, "a budget of 0 must return the initial state")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ConformanceError(sentence)


def _near(one: object, other: object, tolerance: float) -> bool:
    return np.allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=tolerance, atol=tolerance)


def _copy(tree: object) -> object:
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def _equal(one: object, other: object) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=np.issubdtype(np.asarray(a).dtype, np.inexact)) for a, b in pairs)


def _layout(tree: object) -> tuple:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _finite(tree: object) -> bool:
    return all(bool(np.all(np.isfinite(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(tree))
