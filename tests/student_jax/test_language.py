import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eval import products
from student_jax import conformance, irp

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=0)  # compiled once per shape of the inputs
def compiled(graph, weights, inputs):
    module = nnx.merge(graph, weights)
    states = irp.unroll(module, inputs, KEY, 1)
    return [(module.output(s), s.energy, module.standardised(s), module.standardised_text(s), s) for s in states]


def run(module, inputs):
    """(features, energy, standardised tokens, standardised text, state) after 0 and 1 steps."""
    return compiled(*nnx.split(module), inputs)


def same(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, **tolerance), one, other)


def test_it_conforms(make_language, make_observation, compiled_plugin):
    conformance.check(compiled_plugin(make_language(lively=False)), make_observation(noise=False), KEY)


def test_every_state_gives_the_teachers_shapes(make_language, make_observation):
    for features, energy, tokens, text, _ in run(make_language(), make_observation(b=2)):
        assert features["adapted_features"].shape == tokens.shape == (2, 2, 16, 8)
        assert features["text_features"].shape == text.shape == (2, 8)
        assert energy.shape == (2,)


def test_padding_of_the_text_changes_nothing(make_language, make_observation):
    inputs = make_observation(length=6)  # tokens 4 and 5 are padding
    other = dataclasses.replace(inputs, tokens=inputs.tokens.at[:, 4:].set(7))
    short = dataclasses.replace(inputs, tokens=inputs.tokens[:, :4], token_mask=inputs.token_mask[:, :4])
    module = make_language()
    for case in (other, short):
        same([each[:4] for each in run(module, inputs)], [each[:4] for each in run(module, case)])


def test_a_lost_frame_has_no_influence(make_language, make_observation):
    module, inputs = make_language(), make_observation()
    blind = dataclasses.replace(inputs, frame_mask=inputs.frame_mask.at[:, :, 1].set(False))
    changed = dataclasses.replace(blind, context={"vision": inputs.context["vision"].at[:, 1].multiply(-3.0)})

    def kept(inputs):
        return [
            (features["adapted_features"][:, 0], features["text_features"], energy)
            for features, energy, *_ in run(module, inputs)
        ]

    same(kept(blind), kept(changed))
    assert np.abs(kept(inputs)[-1][0] - kept(blind)[-1][0]).max() > 1e-3


def test_views_and_words_are_told_apart_and_read(make_language, make_observation):
    module, inputs = make_language(), make_observation()
    swapped = dataclasses.replace(inputs, context={"vision": inputs.context["vision"][:, ::-1]})
    reworded = dataclasses.replace(inputs, tokens=inputs.tokens[:, ::-1], token_mask=inputs.token_mask[:, ::-1])
    tokens = run(module, inputs)[-1][2]
    assert np.abs(tokens - run(module, swapped)[-1][2][:, ::-1]).max() > 1e-3
    assert np.abs(tokens - run(module, reworded)[-1][2]).max() > 1e-3


def test_nothing_to_read_is_finite_and_the_worst_energy(make_language, make_observation):
    inputs = make_observation()
    nothing = dataclasses.replace(
        inputs, token_mask=jnp.zeros_like(inputs.token_mask), frame_mask=jnp.zeros_like(inputs.frame_mask)
    )
    for features, energy, *_ in run(make_language(), nothing):
        assert all(np.isfinite(value).all() for value in features.values())
        assert energy.tolist() == [1.0, 1.0]


def test_output_is_the_standardised_in_the_teachers_basis_and_folds(make_language, make_observation):
    module, rng, inputs = make_language(), np.random.default_rng(0), make_observation()
    for statistic in (module.basis, module.mean, module.text_mean, module.text_scale):
        statistic[...] = jnp.asarray(rng.normal(size=statistic.shape), jnp.float32)
    features, _, tokens, text, state = run(module, inputs)[-1]
    adapted = np.asarray(tokens) @ np.asarray(module.basis[...]) + np.asarray(module.mean[...])
    np.testing.assert_allclose(features["adapted_features"], adapted, atol=1e-4)
    expected = np.asarray(text) * np.asarray(module.text_scale[...]) + np.asarray(module.text_mean[...])
    np.testing.assert_allclose(features["text_features"], expected, atol=1e-4)
    folded = module.folded()
    same(folded.output(state), features, rtol=1e-4)
    with pytest.raises(ValueError, match="folded student"):
        folded.standardised_text(state)


def test_text_features_are_the_mean_over_the_valid_text(make_language, make_observation):
    module, inputs = make_language(), make_observation()
    state = run(module, inputs)[0][-1]
    text = module.text_norm(state.x["text"])[:, :4].mean(axis=1)
    np.testing.assert_allclose(module.standardised_text(state), module.text(text), atol=1e-5)


def test_fused_tokens_are_text_then_frames_with_their_mask(make_language, make_observation):
    module, inputs = make_language(), make_observation()
    inputs = dataclasses.replace(inputs, frame_mask=inputs.frame_mask.at[1, 0, 0].set(False))
    state = run(module, inputs)[0][-1]
    tokens, mask = module.fused(state)
    assert tokens.shape == (2, module.positions(inputs), 24) == (2, 6 + 32, 24)
    np.testing.assert_array_equal(tokens[:, 6 + 16 :], state.x["image"][:, 1])
    assert mask[1].tolist() == [True] * 4 + [False] * 18 + [True] * 16


def test_every_parameter_gets_a_gradient(make_language, make_observation):
    graph, params, rest = nnx.split(make_language(), nnx.Param, ...)
    inputs = make_observation()

    def loss(params):
        module = nnx.merge(graph, params, rest)
        weight = jnp.cos(jnp.arange(2 * 16 * 8.0)).reshape(1, 2, 16, 8)
        return sum(
            jnp.sum(module.standardised(s) * weight) + jnp.sum(module.standardised_text(s)) + jnp.sum(s.energy)
            for s in irp.unroll(module, inputs, KEY, 2)
        )

    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))):
        assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


def test_declared_flops_are_exactly_those_of_the_products(make_language, make_observation):
    module, inputs = make_language(), make_observation(b=1)
    state = jax.eval_shape(lambda i: irp.start(module, i, KEY), inputs)
    flops = module.flops(inputs)
    assert flops.init == products.flops(jax.make_jaxpr(lambda i: irp.start(module, i, KEY))(inputs))
    assert flops.step == products.flops(jax.make_jaxpr(lambda s, i: irp.advance(module, s, i))(state, inputs))
    assert flops.output == products.flops(jax.make_jaxpr(module.output)(state))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"context": {}}, "no 'vision'"),
        ({"tokens": jnp.ones((2, 13), jnp.int32)}, "At most 12 text tokens, got 13"),
        ({"context": {"vision": jnp.zeros((2, 3, 16, 16))}}, "At most 2 frames, got 3"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make_language, make_observation, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_language().init_state(dataclasses.replace(make_observation(), **change), KEY)
