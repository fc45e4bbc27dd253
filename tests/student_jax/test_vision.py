import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, irp, layers
from student_jax.irps import readout

KEY = jax.random.key(0)
TILED = config.Target(width=8, grid=3, columns=3, rows=2, thumbnail=True)


@functools.partial(jax.jit, static_argnums=0)  # compiled once per target and input shape
def compiled(graph, weights, inputs):
    module = nnx.merge(graph, weights)
    start = irp.start(module, inputs, KEY)
    after = irp.advance(module, start, inputs)
    return start, module.output(after), after.energy, module.standardised(after), module.log_attention(after)


def outputs(module, inputs):
    """The initial state, and (output, energy, standardised tokens, log attention) after one step."""
    return compiled(*nnx.split(module), inputs)


@pytest.mark.parametrize("target", [config.Target(width=8, grid=4), TILED])
def test_output_shapes_and_attention_sums(make_vision, make_inputs, target):
    _, features, energy, standardised, log_attention = outputs(make_vision(target), make_inputs(b=2, t=2, v=1))
    assert features["image_tokens"].shape == standardised.shape == (2, 2, target.tokens, target.width)
    attention = features["vision_attention"].reshape(2, 2, target.tiles, -1)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_attention), features["vision_attention"], rtol=1e-5)
    assert energy.shape == (2,)


def test_frames_are_seen_one_by_one(make_vision, make_inputs):
    module, inputs = make_vision(), make_inputs(b=2, t=2, v=1)
    together = outputs(module, inputs)[1]["image_tokens"]
    alone = dataclasses.replace(inputs, video=inputs.video[:, 1:], frame_mask=inputs.frame_mask[:, 1:])
    np.testing.assert_allclose(together[:, 1:], outputs(module, alone)[1]["image_tokens"], atol=1e-5)


@pytest.mark.parametrize("size", [(20, 77), (64, 32)])
def test_any_frame_size_works(make_vision, make_inputs, size):
    _, features, *_ = outputs(make_vision(), make_inputs(h=size[0], w=size[1]))
    assert np.isfinite(features["image_tokens"]).all()


def test_masked_frames_do_not_touch_the_energy(make_vision, make_inputs):
    module, inputs = make_vision(), make_inputs(b=2, t=2, v=1)
    first = dataclasses.replace(inputs, video=inputs.video[:, :1], frame_mask=inputs.frame_mask[:, :1])
    masked = dataclasses.replace(inputs, frame_mask=inputs.frame_mask.at[:, 1].set(False))
    energies = [np.asarray(outputs(module, case)[2]) for case in (inputs, masked, first)]
    np.testing.assert_allclose(energies[1], energies[2], rtol=1e-5)
    assert np.abs(energies[0] - energies[1]).min() > 1e-5


def test_energy_without_any_frame_is_the_worst_and_has_a_finite_gradient(make_vision, make_inputs):
    module, inputs = make_vision(), make_inputs()
    blind = dataclasses.replace(inputs, frame_mask=jnp.zeros_like(inputs.frame_mask))
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def energy(params):
        return jnp.sum(irp.start(nnx.merge(graph, params, rest), blind, KEY).energy)

    total, gradient = jax.jit(jax.value_and_grad(energy))(params)
    assert float(total) == 2.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_energy_is_e_over_e_plus_its_scale(make_vision, make_inputs):
    module, inputs = make_vision(), make_inputs()
    state = outputs(module, inputs)[0]
    error = np.exp(module.log_error(state))[:, 0]
    for scale in (0.1, 1.0, 7.0):
        module.error_scale[...] = jnp.float32(scale)
        np.testing.assert_allclose(module.energy(state), error / (error + scale), rtol=1e-4)


def test_image_tokens_are_the_standardised_ones_in_the_teachers_basis(make_vision, make_inputs):
    module, rng = make_vision(), np.random.default_rng(0)
    module.basis[...] = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)
    module.mean[...] = jnp.asarray(rng.normal(size=8), jnp.float32)
    _, features, _, standardised, _ = outputs(module, make_inputs())
    basis, mean = np.asarray(module.basis[...]), np.asarray(module.mean[...])
    np.testing.assert_allclose(features["image_tokens"], np.asarray(standardised) @ basis + mean, atol=1e-4)


def test_statistics_are_not_trainable_and_everything_else_is(make_vision):
    _, params, rest = nnx.split(make_vision(), nnx.Param, ...)
    assert set(nnx.to_pure_dict(rest)) == {"mean", "basis", "error_scale"}
    assert all(
        isinstance(leaf, layers.Statistic)
        for leaf in jax.tree.leaves(rest, is_leaf=lambda v: isinstance(v, nnx.Variable))
    )
    assert len(jax.tree.leaves(params)) > 20


def test_every_parameter_gets_a_gradient(make_vision, make_inputs):
    module, inputs = make_vision(TILED), make_inputs()
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params):
        module = nnx.merge(graph, params, rest)
        states = irp.unroll(module, inputs, KEY, 1)
        weight = jnp.cos(jnp.arange(TILED.tokens * 8.0)).reshape(1, 1, TILED.tokens, 8)
        return sum(
            jnp.sum(module.standardised(s) * weight) + jnp.sum(module.log_attention(s)[..., ::2]) + s.energy.sum()
            for s in states
        )

    gradient = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))
    silent = [
        jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if np.abs(leaf).max() < 1e-4
    ]
    assert silent == ["['readout']['attention']['bias']"]  # softmax ignores a constant


def test_the_energy_can_be_trained_without_touching_the_tokens(make_vision, make_inputs):
    module, inputs = make_vision(), make_inputs()
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params):
        module = nnx.merge(graph, params, rest)
        return jnp.sum(module.log_error(jax.lax.stop_gradient(irp.start(module, inputs, KEY))))

    gradient = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))
    assert {name for name, tree in gradient.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))} == {
        "error_norm",
        "error_up",
        "error_out",
    }


def test_projection_clips(make_vision, make_inputs):
    module = make_vision()
    state = outputs(module, make_inputs())[0]
    far = dataclasses.replace(state, x=state.x * 1e6)
    assert float(jnp.abs(module.project(far).x).max()) == 256.0


@pytest.mark.parametrize(
    ("change", "came"),
    [(lambda video: video[:, 0], "uint8"), (lambda video: video.astype(jnp.float32), "float32")],
)
def test_a_video_of_the_wrong_form_is_refused(make_vision, make_inputs, change, came):
    inputs = make_inputs()
    with pytest.raises(ValueError, match=rf"must be uint8 \[b, t, v, h, w, 3\]; got {came}"):
        make_vision().init_state(dataclasses.replace(inputs, video=change(inputs.video)), KEY)


def test_declared_flops_are_those_of_the_products(make_vision, make_inputs):
    module, inputs = make_vision(config.Target(width=64, grid=4)), make_inputs(b=1, h=32, w=32)
    state = outputs(module, inputs)[0]

    def counted(function, *arguments):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    flops = module.flops(inputs)
    for declared, measured in (
        (flops.init, counted(lambda i: irp.start(module, i, KEY), inputs)),
        (flops.step, counted(lambda s, i: irp.advance(module, s, i), state, inputs)),
        (flops.output, counted(module.output, state)),
    ):
        assert declared <= measured <= 2.0 * declared  # element-wise work is a large part at this size


def test_readout_identity_reads_the_token_at_its_own_place():
    target = config.Target(width=8, grid=4)
    assert readout.Readout(16, 4, target=target, dtype="float32", rngs=nnx.Rngs(0)).identity
    x = jax.random.normal(KEY, (2, 16, 16))
    np.testing.assert_allclose(readout.sample(x, target, 4), x, atol=1e-6)


def test_readout_order_is_tiles_row_major_then_thumbnail():
    """A map that holds its own coordinates is read at the centres of the teacher's tokens."""
    source = 12
    centre = (np.arange(source) + 0.5) / source
    grid_map = np.stack(np.meshgrid(centre, centre, indexing="ij"), -1).reshape(1, -1, 2).astype(np.float32)
    got = np.asarray(readout.sample(jnp.asarray(grid_map), TILED, source))[0].reshape(TILED.tiles, 3, 3, 2)
    for tile in range(6):
        row, column = divmod(tile, 3)
        for i, j in np.ndindex(3, 3):
            expected = ((row + (i + 0.5) / 3) / 2, (column + (j + 0.5) / 3) / 3)
            np.testing.assert_allclose(got[tile, i, j], expected, atol=1e-6)
    np.testing.assert_allclose(got[6, 2, 0], ((2 + 0.5) / 3, 0.5 / 3), atol=1e-6)


def test_places_tell_tile_from_thumbnail_and_phase():
    places = readout.places(TILED, source=6)
    assert places.shape == (TILED.tokens, 5)
    assert places[:, 4].tolist() == [0.0] * 54 + [1.0] * 9
    np.testing.assert_allclose(places[:, 0] ** 2 + places[:, 2] ** 2, 1, atol=1e-6)
