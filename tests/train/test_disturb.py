"""Disturbed scenes: clean frames are untouched, trust mostly falls where something is wrong, masks say what is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from student_jax import irp
from train import disturb

ROWS = 400


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return irp.Inputs(
        video=jnp.asarray(rng.integers(0, 256, (ROWS, 1, 2, 4, 4, 3), np.uint8)),
        state=jnp.asarray(rng.normal(size=(ROWS, 1, 3)), jnp.float32),
        tokens=jnp.asarray(rng.integers(0, 9, (ROWS, 5)), jnp.int32),
        token_mask=jnp.ones((ROWS, 5), bool),
        frame_mask=jnp.ones((ROWS, 1, 2), bool),
    )


@pytest.fixture(scope="module")
def scene(inputs):
    return disturb.disturb(inputs, jax.random.key(0))


def test_a_calm_scene_is_the_inputs_themselves(inputs):
    scene = disturb.calm(inputs, 3, trust=0.9)
    assert scene.inputs is inputs
    assert bool(scene.clean.all())
    np.testing.assert_allclose(scene.trust, 0.9)


def test_clean_frames_are_untouched_and_others_are_not(inputs, scene):
    same = np.asarray((scene.inputs.video == inputs.video).all(axis=(1, 3, 4, 5)))
    kept = np.asarray(scene.inputs.frame_mask).all(axis=1)
    np.testing.assert_array_equal(np.asarray(scene.clean), same & kept)
    assert 0.6 < np.asarray(scene.clean).mean() < 0.95


def test_every_kind_occurs_and_one_sample_has_one_at_most(inputs, scene):
    changed = np.stack([
        ~np.asarray(scene.clean).all(axis=1),
        (np.asarray(scene.inputs.tokens) != np.asarray(inputs.tokens)).any(axis=1),
        (np.asarray(scene.inputs.state) != np.asarray(inputs.state)).any(axis=(1, 2)),
    ])  # fmt: skip
    shares = changed.mean(axis=1)
    np.testing.assert_allclose(shares, disturb.CHANCES[1:], atol=0.06)
    assert changed.sum(axis=0).max() == 1


def test_trust_has_mostly_fallen_where_something_is_wrong(inputs, scene):
    wrong = (np.asarray(scene.inputs.state) != np.asarray(inputs.state)).any(axis=(1, 2))
    trust = np.asarray(scene.trust)[:, 2]
    assert trust[wrong].mean() < 0.6 < trust[~wrong].mean()
    assert trust.min() >= 0.05
    assert trust.max() <= 1


def test_a_lost_view_is_no_reason_for_distrust(inputs, scene):
    lost = ~np.asarray(scene.inputs.frame_mask).all(axis=(1, 2))
    assert lost.any()
    assert np.asarray(scene.trust)[lost, 0].mean() > 0.7


def test_the_same_key_gives_the_same_scene(inputs, scene):
    again = disturb.disturb(inputs, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again.inputs, scene.inputs)
