import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from student_jax import config, conformance, irp

KEY = jax.random.key(0)
FALLING = [[0.8, 0.4, 0.2, 0.1], [0.7, 0.35, 0.3, 0.3]]


def replace(state, **changes):
    return dataclasses.replace(state, **changes)


def broken(scripted, energies=FALLING, **methods):
    """A scripted plugin with some methods replaced."""
    return type("Broken", (scripted,), methods)(energies)


def test_the_vision_plugin_conforms(make_vision, make_inputs, compiled_plugin):
    target = config.Target(width=8, grid=3, columns=2, thumbnail=True)
    conformance.check(compiled_plugin(make_vision(target, lively=False)), make_inputs(), KEY)


def test_a_plain_plugin_conforms(scripted, make_inputs):
    conformance.check(scripted(FALLING), make_inputs(), KEY)


def in_place_array(self, state, inputs):
    state.x[...] = state.x * 0.5
    return replace(state, step=state.step + 1)


def in_place_attribute(self, state, inputs):
    state.x *= 0.5
    return state


def in_place_container(self, state):
    state.meta["calls"] = state.meta["calls"] + 1
    return state


def numpy_start(self, inputs, key):
    return irp.State(np.ones((2, 1)), np.zeros(2, np.int32), np.ones(2), {"calls": np.zeros(2)})


def not_a_number(self, inputs, key):
    return irp.State(
        jnp.full((2, 1), jnp.nan), jnp.zeros(2, jnp.int32), jnp.ones(2), self.energies[inputs.tokens[:, 0]]
    )


def late_start(self, inputs, key):
    return irp.State(jnp.zeros((2, 1)), jnp.ones(2, jnp.int32), jnp.ones(2), self.energies[inputs.tokens[:, 0]])


def no_batch(self, inputs, key):
    return irp.State(jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32), jnp.ones(2), jnp.zeros(5))


def mixing(self, inputs, key):
    first = inputs.video[:1].astype(jnp.float32).mean()
    return irp.State(jnp.full((2, 1), first), jnp.zeros(2, jnp.int32), jnp.ones(2), self.energies[inputs.tokens[:, 0]])


@pytest.mark.parametrize(
    ("methods", "energies", "sentence"),
    [
        ({"step": in_place_array, "init_state": numpy_start}, FALLING, "step edits its argument in place"),
        ({"step": in_place_attribute, "init_state": numpy_start}, FALLING, "step edits its argument in place"),
        ({"project": in_place_container, "init_state": numpy_start}, FALLING, "project edits its argument in place"),
        ({}, [[0.8, 1.4], [0.7, 0.3]], "energy must lie in"),
        ({}, [[0.8, -0.4], [0.7, 0.3]], "energy must lie in"),
        ({}, [[0.8, np.nan], [0.7, 0.3]], "energy must lie in"),
        ({"energy": lambda self, state: state.meta}, FALLING, "energy must be"),
        ({}, [[0.4, 0.6, 0.4, 0.6], [0.8, 0.4, 0.2, 0.1]], "the energy oscillates"),
        ({"init_state": not_a_number}, FALLING, "initial state is invalid"),
        ({"init_state": late_start}, FALLING, "initial step must be 0"),
        ({"init_state": no_batch}, FALLING, "batch axis"),
        ({"init_state": mixing}, FALLING, "depends on the other samples"),
        ({"project": lambda self, state: replace(state, x=state.x * 0.9 + 1)}, FALLING, "not idempotent"),
        ({"project": lambda self, state: replace(state, step=state.step * 0)}, FALLING, "step index"),
        ({"step": lambda self, state, inputs: state}, FALLING, "raise the step index"),
        ({"output": lambda self, state: {"x": state.x / state.step[:, None]}}, FALLING, "output is not finite"),
    ],
)
def test_broken_plugins_are_caught(scripted, make_inputs, methods, energies, sentence):
    with pytest.raises(conformance.ConformanceError, match=sentence):
        conformance.check(broken(scripted, energies, **methods), make_inputs(), KEY)


def test_hidden_state_is_caught(scripted, make_inputs):
    seen = []

    def energy(self, state):
        seen.append(1)
        return jnp.full(2, 1 / len(seen))

    with pytest.raises(conformance.ConformanceError, match="energy is not pure"):
        conformance.check(broken(scripted, energy=energy), make_inputs(), KEY)


def test_missing_declarations_are_caught(scripted, make_inputs):
    silent = property(lambda self: irp.Description("toy", "", "none", "e", 3))
    with pytest.raises(conformance.ConformanceError, match="description field is empty"):
        conformance.check(broken(scripted, description=silent), make_inputs(), KEY)


def test_one_sample_is_not_enough(scripted, make_inputs):
    with pytest.raises(conformance.ConformanceError, match="at least two samples"):
        conformance.check(scripted(FALLING[:1]), make_inputs(b=1), KEY)
