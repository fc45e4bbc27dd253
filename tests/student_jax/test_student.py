import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, irp, presets, student

KEY = jax.random.key(0)
TARGET = config.Target(width=8, grid=4)
LIMIT = 48_500_000


@pytest.fixture(scope="module")
def model():
    """A tiny student whose energies differ from state to state."""
    made = student.Student(presets.make("tiny", TARGET), rngs=nnx.Rngs(0))
    kernel = made.vision.error_out.kernel
    kernel[...] = jnp.asarray(np.random.default_rng(3).normal(size=kernel.shape), jnp.float32)
    return made


@pytest.fixture(scope="module")
def run(model):
    graph, state = nnx.split(model)

    @functools.partial(jax.jit, static_argnames="mode")
    def call(inputs, atp, trust, mode="while"):
        return nnx.merge(graph, state)(inputs, atp, trust, KEY, mode=mode)

    return call


def test_every_feature_and_account_is_returned_by_name(run, make_inputs):
    out = run(make_inputs(b=8), jnp.ones(8), jnp.ones((8, 1)))
    assert set(out.features) == {"image_tokens", "vision_attention"}
    for accounts in (out.energies, out.steps, out.reasons):
        assert {name: value.shape for name, value in accounts.items()} == {"vision": (8,)}
    np.testing.assert_allclose(out.confidence, 1 - out.energies["vision"])


def test_random_budgets_are_never_overdrawn(model, run, make_inputs):
    rng, inputs = np.random.default_rng(0), make_inputs(b=8)
    price = model.table(inputs)["vision"].step_atp
    for scale in 2.0 ** np.arange(-2, 5):
        atp = np.float32(rng.uniform(0, scale * price, 8))
        out = run(inputs, jnp.asarray(atp), jnp.asarray(rng.uniform(0, 1, (8, 1)), jnp.float32))
        assert np.all(np.asarray(out.atp) <= atp)
        np.testing.assert_allclose(out.atp, out.steps["vision"] * np.float32(price))


def test_no_budget_is_the_initial_state(model, run, make_inputs):
    inputs = make_inputs(b=8)
    out = run(inputs, jnp.zeros(8), jnp.ones((8, 1)))
    start = jax.jit(lambda inputs: model.vision.output(irp.start(model.vision, inputs, KEY)))(inputs)
    np.testing.assert_allclose(out.features["image_tokens"], start["image_tokens"], atol=1e-5)
    assert out.steps["vision"].tolist() == [0] * 8
    assert out.reasons["vision"].tolist() == [irp.Reason.BUDGET] * 8


def test_scan_equals_while(run, make_inputs):
    arguments = make_inputs(b=8), jnp.linspace(0, 0.1, 8), jnp.ones((8, 1))
    scan, loop = run(*arguments, mode="scan"), run(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), scan, loop)
    assert len(set(loop.steps["vision"].tolist())) > 1


def test_samples_do_not_see_each_other(run, make_inputs):
    inputs, atp = make_inputs(b=8), jnp.linspace(0, 0.1, 8)
    order = np.random.default_rng(0).permutation(8)
    straight = run(inputs, atp, jnp.ones((8, 1)))
    mixed = run(jax.tree.map(lambda leaf: leaf[order], inputs), atp[order], jnp.ones((8, 1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[order], b, atol=1e-5), straight, mixed)


def test_trust_names_its_modules(model, make_inputs):
    with pytest.raises(ValueError, match=r"trust must be \[b, 1\] for modules \['vision'\]"):
        model(make_inputs(), jnp.ones(2), jnp.ones((2, 3)), KEY)


def test_weights_pass_through_pure_dicts_and_files(model, run, make_inputs):
    """The way to a checkpoint and back: numpy leaves by name, parameters and statistics apart."""
    graph, *parts = nnx.split(model, nnx.Param, ...)
    params, statistics = (jax.tree.map(np.asarray, nnx.to_pure_dict(part)) for part in parts)
    assert set(statistics["vision"]) == {"mean", "basis", "error_scale"}

    @jax.jit
    def restored(params, statistics, inputs, atp, trust):
        return nnx.merge(graph, params, statistics)(inputs, atp, trust, KEY)

    arguments = make_inputs(b=8), jnp.linspace(0, 0.1, 8), jnp.ones((8, 1))
    one, two = restored(params, statistics, *arguments), run(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


def test_folding_keeps_the_function_and_drops_values_and_products(model, run, make_inputs):
    rng, whole = np.random.default_rng(0), nnx.clone(model)
    whole.vision.basis[...] = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)
    whole.vision.mean[...] = jnp.asarray(rng.normal(size=8), jnp.float32)
    folded = whole.folded()
    arguments = make_inputs(b=8), jnp.linspace(0, 0.1, 8), jnp.ones((8, 1)), KEY
    one, two = (jax.jit(lambda *a, m=m: m(*a).features)(*arguments) for m in (whole, folded))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, two)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made))) for made in (whole, folded)]
    assert sizes[0] - sizes[1] == 8 * 8 + 8
    tables = [made.table(arguments[0])["vision"] for made in (whole, folded)]
    assert tables[0].base_atp > tables[1].base_atp
    assert tables[0].step == tables[1].step
    with pytest.raises(ValueError, match="folded student"):
        folded.vision.standardised(irp.start(folded.vision, make_inputs(), KEY))


def test_one_program_serves_every_batch_size(model, run, make_inputs):
    """Exported with a symbolic batch and the weights as arguments, for two platforms, and reloaded from bytes."""
    graph, state = nnx.split(model)
    weights, names = jax.tree.flatten(nnx.to_pure_dict(state))  # module lists have integer keys, which do not serialise

    def apply(weights, video, frame_mask, atp, trust, seed):
        unused = jnp.zeros((video.shape[0], 1), jnp.int32)
        inputs = irp.Inputs(video, jnp.zeros((video.shape[0], 1, 16)), unused, unused > 0, frame_mask)
        student = nnx.merge(graph, jax.tree.unflatten(names, weights))
        out = student(inputs, atp, trust, jax.random.key(seed))
        return out.features, out.steps, out.atp

    def arguments(b, shape):
        video, mask = shape((b, 1, 1, 40, 40, 3), jnp.uint8), shape((b, 1, 1), jnp.bool_)
        return video, mask, shape((b,), jnp.float32), shape((b, 1), jnp.float32), shape((), jnp.int32)

    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in weights]
    export = jax.export.export(jax.jit(apply), platforms=["cpu", "cuda"])
    program = jax.export.deserialize(export(shapes, *arguments(b, jax.ShapeDtypeStruct)).serialize())
    for size in (8, 1):
        _, _, atp, trust, seed = arguments(size, jnp.ones)
        inputs = make_inputs(b=size)
        features, steps, _ = program.call(weights, inputs.video, inputs.frame_mask, 0.02 * atp, trust, seed)
        out = run(inputs, 0.02 * atp, trust)
        np.testing.assert_allclose(features["image_tokens"], out.features["image_tokens"], atol=1e-4)
        assert steps["vision"].tolist() == out.steps["vision"].tolist()


@pytest.mark.parametrize("target", [config.Target(2048, 16), config.Target(2048, 16, 3, 3, thumbnail=True)])
def test_sage_48m_fits_with_its_reserve_and_has_the_real_shapes(target, make_inputs):
    settings = presets.make("sage_48m", target)
    model = nnx.eval_shape(lambda: student.Student(settings, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    values = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert min(vars(settings.reserve).values()) > 0
    assert values + settings.reserve.total <= LIMIT

    def call(state, inputs):
        return nnx.merge(graph, state)(inputs, jnp.ones(2), jnp.ones((2, 1)), KEY)

    out = jax.eval_shape(call, state, make_inputs(b=2, t=2, h=900, w=900))
    assert out.features["image_tokens"].shape == (2, 2, target.tokens, 2048)
    assert out.features["vision_attention"].shape == (2, 2, target.tokens)


def test_standin_stays_within_its_compute():
    target = config.Target(width=128, grid=8)
    model = nnx.eval_shape(lambda: student.Student(presets.make("standin", target), rngs=nnx.Rngs(0)))
    inputs = irp.Inputs(jax.ShapeDtypeStruct((1, 1, 1, 450, 450, 3), jnp.uint8), None, None, None, None)
    flops, vision = model.table(inputs)["vision"], model.config.vision
    assert flops.init + vision.max_steps * flops.step + flops.output <= 0.35e9
    assert model.vision.readout.identity
