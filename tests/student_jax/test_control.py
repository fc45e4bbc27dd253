import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eval import products
from student_jax import conformance, irp
from student_jax.irps import control

KEY, OTHER = jax.random.key(0), jax.random.key(1)


@functools.partial(jax.jit, static_argnums=0)  # compiled once per shape of the inputs
def compiled(graph, weights, inputs, key):
    module = nnx.merge(graph, weights)
    states = irp.unroll(module, inputs, key, 2)
    return [state.x["actions"] for state in states], states[0]


def actions(module, inputs, key=KEY):
    """float32 [steps + 1, b, h, a]."""
    return np.stack(compiled(*nnx.split(module), inputs, key)[0])


def start(module, inputs):
    return compiled(*nnx.split(module), inputs, KEY)[1]


def test_it_conforms(make_control, make_observation, compiled_plugin):
    conformance.check(compiled_plugin(make_control(lively=False)), make_observation(noise=True), KEY)


def test_every_state_is_a_valid_chunk_and_steps_change_it(make_control, make_observation):
    chunks = actions(make_control(), make_observation())
    assert chunks.shape == (3, 2, 4, 3)
    assert np.abs(chunks).max() <= 1.0
    assert np.abs(np.diff(chunks, axis=0)).max(axis=(1, 2, 3)).min() > 1e-3


def test_a_fresh_module_starts_small_and_its_steps_add_nothing_yet(make_control, make_observation):
    inputs = make_observation()
    chunks = actions(make_control(lively=False), inputs)
    assert np.abs(np.diff(chunks, axis=0)).max() == 0
    quiet = actions(make_control(lively=False), dataclasses.replace(inputs, noise=jnp.zeros_like(inputs.noise)))
    np.testing.assert_allclose(chunks - quiet, 0.1 * np.asarray(inputs.noise)[None].repeat(3, 0), atol=1e-5)


def test_given_noise_decides_and_the_key_does_not(make_control, make_observation):
    module, inputs = make_control(), make_observation()
    np.testing.assert_array_equal(actions(module, inputs, KEY), actions(module, inputs, OTHER))
    other = dataclasses.replace(inputs, noise=-inputs.noise)
    assert np.abs(actions(module, inputs) - actions(module, other))[1:].max() > 1e-3


def test_without_noise_it_starts_from_zero_whatever_the_key(make_control, make_observation):
    module, inputs = make_control(), make_observation(noise=False)
    np.testing.assert_array_equal(actions(module, inputs, KEY), actions(module, inputs, OTHER))
    given = dataclasses.replace(inputs, noise=jnp.zeros((2, 4, 3)))
    np.testing.assert_allclose(actions(module, inputs), actions(module, given), atol=1e-6)


def test_draws_of_one_observation_are_as_if_it_were_repeated(make_control, make_observation):
    module, inputs = make_control(), make_observation()
    noise = jax.random.normal(KEY, (6, *inputs.noise.shape[1:]))
    together = actions(module, dataclasses.replace(inputs, noise=noise))
    alone = [actions(module, dataclasses.replace(inputs, noise=noise[at::3])) for at in range(3)]
    for at, chunk in enumerate(alone):
        np.testing.assert_allclose(together[:, at::3], chunk, atol=1e-5)


def test_masked_context_has_no_influence_and_the_rest_has(make_control, make_observation):
    module, inputs = make_control(), make_observation()
    found = inputs.context["language"]

    def told(row):
        tokens = found["tokens"].at[:, row].multiply(-2.0)
        return dataclasses.replace(inputs, context={"language": {"tokens": tokens, "mask": found["mask"]}})

    straight = actions(module, inputs)
    np.testing.assert_allclose(actions(module, told(8)), straight, atol=1e-5)
    assert np.abs(actions(module, told(0)) - straight).max() > 1e-3
    nothing = {"language": {"tokens": found["tokens"], "mask": jnp.zeros_like(found["mask"])}}
    assert np.isfinite(actions(module, dataclasses.replace(inputs, context=nothing))).all()


def test_the_robots_state_is_read(make_control, make_observation):
    module, inputs = make_control(), make_observation()
    moved = dataclasses.replace(inputs, state=-inputs.state)
    assert np.abs(actions(module, inputs) - actions(module, moved)).max(axis=(1, 2, 3)).min() > 1e-3


def test_limits_are_the_embodiments_and_a_nan_stays_one(make_control, make_observation):
    module = make_control()
    module.low[...], module.high[...] = jnp.float32([-1, 0, 0]), jnp.float32([1, 0.1, 0])
    chunks = actions(module, make_observation())
    assert chunks[..., 2].tolist() == np.zeros((3, 2, 4)).tolist()
    assert chunks[..., 1].min() >= 0
    assert chunks[..., 1].max() <= np.float32(0.1)
    state = start(module, make_observation())
    bad = dataclasses.replace(state, x=state.x | {"actions": state.x["actions"].at[0, 0, 0].set(jnp.nan)})
    assert np.isnan(module.project(bad).x["actions"][0, 0, 0])


@pytest.mark.parametrize(
    ("x", "aim", "moves"), [(3.0, 0.5, -1), (3.0, 2.0, 0), (-3.0, 0.5, 1), (-3.0, -2.0, 0), (0, 1.0, 1)]
)
def test_a_value_outside_its_limits_can_come_back_but_not_go_further(x, aim, moves):
    one = jnp.ones((1, 1, 1))

    def loss(x):
        return jnp.sum((control.clip_inwards(x, -one, one) - aim) ** 2)

    assert float(jnp.sign(-jax.grad(loss)(x * one))[0, 0, 0]) == moves


def test_budgets_buy_steps_and_the_best_state_is_returned(make_control, make_observation):
    module, inputs = make_control(), make_observation(b=4)
    budget = jnp.int32([0, 1, 2, 9])
    state, trace = jax.jit(lambda inputs: irp.refine(module, inputs, KEY, budget, irp.Halt(min_fall=0.0)))(inputs)
    assert trace.steps.tolist() == [0, 1, 2, 2]
    chunks, best = actions(module, inputs), np.argmin(np.asarray(trace.energy), axis=1)
    np.testing.assert_allclose(state.x["actions"], chunks[best, np.arange(4)], atol=1e-5)


def test_energy_is_e_over_e_plus_its_scale(make_control, make_observation):
    module = make_control()
    state = start(module, make_observation())
    error = np.exp(module.log_error(state))
    module.error_scale[...] = jnp.float32(0.3)
    np.testing.assert_allclose(module.energy(state), error / (error + 0.3), rtol=1e-4)


def test_every_parameter_gets_a_gradient(make_control, make_observation):
    graph, params, rest = nnx.split(make_control(), nnx.Param, ...)
    inputs = make_observation()

    def loss(params):
        states = irp.unroll(nnx.merge(graph, params, rest), inputs, KEY, 2)
        weight = jnp.cos(jnp.arange(12.0)).reshape(1, 4, 3)
        return sum(jnp.sum(s.x["actions"] * weight) + jnp.sum(s.energy) for s in states)

    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))):
        assert np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)


def test_declared_flops_are_exactly_those_of_the_products(make_control, make_observation):
    module, inputs = make_control(), make_observation(b=1)
    state = jax.eval_shape(lambda i: irp.start(module, i, KEY), inputs)
    flops = module.flops(inputs)
    assert flops.init == products.flops(jax.make_jaxpr(lambda i: irp.start(module, i, KEY))(inputs))
    assert flops.step == products.flops(jax.make_jaxpr(lambda s, i: irp.advance(module, s, i))(state, inputs))
    assert flops.output == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"context": {}}, "no 'language'"),
        ({"state": jnp.zeros((2, 1, 9))}, r"state must be float32 \[b, 1, 5\]"),
        ({"noise": jnp.zeros((2, 4, 32))}, r"noise must be float32 \[b, 4, 3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make_control, make_observation, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_control().init_state(dataclasses.replace(make_observation(), **change), KEY)
