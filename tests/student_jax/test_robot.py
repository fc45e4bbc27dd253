"""The whole student that sees, reads and acts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, irp, presets, sizes, student
from student_jax.sage import budget

KEY = jax.random.key(0)
LIMIT = 48_500_000
FEATURES = {"image_tokens", "vision_attention", "objects", "adapted_features", "text_features", "actions"}
BIG = config.Robot(sizes.ActionSpace(horizon=16, width=32, state=64), frames=3, objects=4)


@functools.cache
def made(make_robot):
    """(graph, weights) of a tiny student whose steps and energies differ."""

    def make():
        model = student.Student(make_robot(), rngs=nnx.Rngs(0))
        for head in (model.vision.error_out, model.language.judge.out, model.control.judge.out, model.control.out):
            head.kernel[...] = 0.3 * jax.random.normal(KEY, head.kernel.shape)
        return model

    graph = nnx.split(nnx.eval_shape(make))[0]
    return graph, jax.jit(lambda: nnx.split(make())[1])()


@pytest.fixture(scope="module")
def model(make_robot):
    return nnx.merge(*made(make_robot))


@pytest.fixture(scope="module")
def run(make_robot):
    graph, weights = made(make_robot)
    compiled = jax.jit(lambda weights, *arguments: nnx.merge(graph, weights)(*arguments))
    return functools.partial(compiled, weights)


def plenty(b):
    return jnp.full(b, 10.0, jnp.float32), jnp.ones((b, 3)), KEY


def test_modules_run_in_order_and_every_feature_is_returned_by_name(model, run, make_observation):
    out = run(make_observation(b=4, context=False), *plenty(4))
    assert list(model.modules) == ["vision", "language", "control"]
    assert set(out.features) == FEATURES
    assert out.features["objects"].shape == (4, 2, 2, 3)
    assert out.features["adapted_features"].shape == (4, 2, 16, 8)
    assert out.features["actions"].shape == (4, 4, 3)
    for accounts in (out.energies, out.steps, out.reasons):
        assert {name: value.shape for name, value in accounts.items()} == dict.fromkeys(model.modules, (4,))
    np.testing.assert_allclose(out.confidence, 1 - sum(out.energies.values()) / 3, atol=1e-6)


def test_no_budget_is_every_first_state_and_no_budget_is_overdrawn(model, run, make_observation):
    inputs = make_observation(b=4, context=False)
    atp = jnp.float32([0.0, 0.01, 0.03, 10.0])
    out = run(inputs, atp, jnp.ones((4, 3)), KEY)
    spent = sum(out.steps[name] * np.float32(row.step_atp) for name, row in model.table(inputs).items())
    np.testing.assert_allclose(out.atp, spent, rtol=1e-5)
    assert np.all(np.asarray(out.atp) <= np.asarray(atp))
    assert [int(steps[0]) for steps in out.steps.values()] == [0, 0, 0]
    assert np.asarray(out.atp)[3] > np.asarray(out.atp)[2]


def test_what_pays_for_every_step_buys_every_step_and_less_is_rationed_by_cost_and_trust(model, make_observation):
    model = nnx.clone(model)
    model.config = dataclasses.replace(model.config, halt=irp.NEVER)
    given = make_observation(b=3, context=False)
    steps = {name: module.description.max_steps for name, module in model.modules.items()}
    full = budget.full(model.table(given), steps)
    trust = jnp.ones((3, 3)).at[2, 0].set(0.05)
    graph, weights = nnx.split(model)
    run = jax.jit(lambda weights, given, atp: nnx.merge(graph, weights)(given, atp, trust, KEY))
    rich = run(weights, given, jnp.full(3, full, jnp.float32))
    assert {name: taken[:2].tolist() for name, taken in rich.steps.items()} == {n: [k, k] for n, k in steps.items()}
    assert int(rich.steps["vision"][2]) < steps["vision"]
    poor = run(weights, given, jnp.full(3, 0.67 * full, jnp.float32))
    assert all(0 < int(poor.steps[name][0]) < steps[name] for name in ("vision", "language"))
    assert float(poor.atp[0]) <= 0.67 * full


def test_samples_do_not_see_each_other(run, make_observation):
    inputs, order = make_observation(b=4, context=False), np.array([2, 0, 3, 1])
    straight, mixed = (run(case, *plenty(4)) for case in (inputs, jax.tree.map(lambda leaf: leaf[order], inputs)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[order], b, atol=1e-4), straight, mixed)


def test_a_lost_camera_has_no_influence_on_the_action(run, make_observation):
    inputs = make_observation(b=4, context=False)
    blind = dataclasses.replace(inputs, frame_mask=inputs.frame_mask.at[:, :, 1].set(False))
    changed = dataclasses.replace(blind, video=255 - blind.video.at[:, :, 0].set(255 - blind.video[:, :, 0]))
    seen, one, two = (run(case, *plenty(4)).features["actions"] for case in (inputs, blind, changed))
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.abs(seen - one).max() > 1e-4


def test_prepared_gives_what_the_modules_before_found(model, make_observation):
    inputs = make_observation(context=False)
    prepared = jax.jit(lambda inputs: model.prepared(inputs, KEY, name="control"))(inputs)
    assert set(prepared.context) == {"vision", "language"}
    assert prepared.context["language"]["tokens"].shape == (2, model.language.positions(inputs), 24)
    assert model.prepared(inputs, KEY, name="vision").context == {}
    with pytest.raises(ValueError, match="No module 'grid'"):
        jax.eval_shape(lambda inputs: model.prepared(inputs, KEY, name="grid"), inputs)


def test_another_control_leaves_vision_and_language_as_they_are(model, make_observation):
    actions = sizes.ActionSpace(horizon=2, width=7, state=5)
    other = model.with_control(dataclasses.replace(model.config.control, blocks=2), actions, rngs=nnx.Rngs(1))
    before, after = (nnx.to_pure_dict(nnx.state(each)) for each in (model, other))
    for name in ("vision", "language"):
        assert jax.tree.structure(before[name]) == jax.tree.structure(after[name])
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    built = nnx.eval_shape(lambda: student.Student(other.config, rngs=nnx.Rngs(0)))
    assert jax.tree.structure(nnx.to_pure_dict(nnx.state(built))) == jax.tree.structure(after)
    inputs = make_observation(context=False, noise=False)
    out = jax.eval_shape(lambda inputs: other(inputs, *plenty(2)), inputs)
    assert out.features["actions"].shape == (2, 2, 7)
    assert model.config.actions.width == 3


def test_the_same_seed_gives_the_same_vision_with_and_without_the_rest(model, make_robot):
    """So that a run that trains vision alone starts where the whole student would."""
    alone = make_robot(language=None, control=None, actions=None)
    other = jax.jit(lambda: nnx.to_pure_dict(nnx.state(student.Student(alone, rngs=nnx.Rngs(0)).vision.embed)))()
    mine = nnx.to_pure_dict(nnx.state(model.vision.embed))
    jax.tree.map(np.testing.assert_array_equal, other, mine)


def test_one_program_serves_every_batch_size_and_acts_alike_whatever_the_key(model, run, make_observation):
    """Folded, exported with a symbolic batch and the weights as arguments, for two platforms, reloaded from bytes."""
    graph, state = nnx.split(model.folded())
    weights, names = jax.tree.flatten(nnx.to_pure_dict(state))

    def apply(weights, inputs, atp, trust, seed):
        inputs = irp.Inputs(*inputs)
        out = nnx.merge(graph, jax.tree.unflatten(names, weights))(inputs, atp, trust, jax.random.key(seed))
        return out.features, out.energies

    def arguments(b):
        inputs = make_observation(b=2, context=False)
        parts = (inputs.video, inputs.state, inputs.tokens, inputs.token_mask, inputs.frame_mask)
        shapes = [jax.ShapeDtypeStruct((b, *part.shape[1:]), part.dtype) for part in parts]
        shape = jax.ShapeDtypeStruct
        return shapes, shape((b,), jnp.float32), shape((b, 3), jnp.float32), shape((), jnp.int32)

    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in weights]
    exported = jax.export.export(jax.jit(apply), platforms=["cpu", "cuda"])(shapes, *arguments(b))
    program = jax.export.deserialize(exported.serialize())
    for size in (4, 1):
        inputs = make_observation(b=size, context=False, noise=False)
        parts = [inputs.video, inputs.state, inputs.tokens, inputs.token_mask, inputs.frame_mask]
        atp, trust, _ = plenty(size)
        one, two = (program.call(weights, parts, atp, trust, seed)[0] for seed in (0, 1))
        assert one["actions"].shape == (size, 4, 3)
        jax.tree.map(np.testing.assert_array_equal, one, two)
        if size == 4:
            expected = run(inputs, atp, trust, KEY).features
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, {n: expected[n] for n in one})


@pytest.mark.parametrize("target", [config.Target(2048, 16), config.Target(2048, 16, 3, 3, thumbnail=True)])
def test_sage_48m_fits_with_what_is_still_reserved(target):
    settings = presets.make("sage_48m", target, task="robot", robot=BIG)
    model = nnx.eval_shape(lambda: student.Student(settings, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    values = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert values + settings.reserve.total <= LIMIT
    assert settings.reserve.h_module > 0
    shape = jax.ShapeDtypeStruct
    inputs = irp.Inputs(
        shape((2, 1, 3, 256, 320, 3), jnp.uint8),
        shape((2, 1, 64), jnp.float32),
        shape((2, 64), jnp.int32),
        shape((2, 64), jnp.bool_),
        shape((2, 1, 3), jnp.bool_),
    )
    out = jax.eval_shape(lambda state, inputs: nnx.merge(graph, state)(inputs, *plenty(2)), state, inputs)
    assert set(out.features) == FEATURES
    assert out.features["adapted_features"].shape == (2, 3, target.tokens, 2048)
    assert out.features["actions"].shape == (2, 16, 32)


def test_standin_has_a_third_of_its_teachers_values():
    robot = config.Robot(sizes.ActionSpace(horizon=16, width=4, state=4), objects=3)
    settings = presets.make("standin", config.Target(width=128, grid=8), task="robot", robot=robot)
    model = nnx.eval_shape(lambda: student.Student(settings, rngs=nnx.Rngs(0)))
    folded = nnx.eval_shape(lambda: student.Student(settings, rngs=nnx.Rngs(0)).folded())
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(folded))) <= 2_668_000 / 3
    assert model.vision.readout.identity
    assert model.language.readout.identity
