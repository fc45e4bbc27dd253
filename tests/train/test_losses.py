"""Losses: zero at equality, blind to padding, gradient only to the student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import losses

RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32)
OTHER = jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32)
ATTENTION = jax.nn.softmax(TOKENS[..., 0], axis=-1)
OTHER_ATTENTION = jax.nn.softmax(OTHER[..., 0], axis=-1)


def kl(predicted, target, mask, *, tiles=1):
    return losses.attention_kl(jnp.log(predicted), target, mask, tiles=tiles)


ALL = jnp.ones((3, 2), bool)
SOME = jnp.asarray([[True, False], [True, True], [False, False]])
CASES = [
    (losses.token_mse, TOKENS, OTHER),
    (losses.token_cosine, TOKENS, OTHER),
    (kl, ATTENTION, OTHER_ATTENTION),
]
IDS = ["mse", "cosine", "kl"]


@pytest.mark.parametrize(("loss", "target", "other"), CASES, ids=IDS)
def test_a_loss_is_zero_at_equality_and_positive_elsewhere(loss, target, other):
    assert abs(losses.mean(loss(target, target, ALL))) < 1e-6
    assert losses.mean(loss(other, target, ALL)) > 0.01


@pytest.mark.parametrize(("loss", "target", "other"), CASES, ids=IDS)
def test_a_loss_ignores_masked_frames(loss, target, other):
    changed = jnp.where(SOME[(...,) + (None,) * (other.ndim - 2)], other, 7.0)
    np.testing.assert_array_equal(loss(other, target, SOME), loss(changed, target, SOME))
    assert loss(other, target, SOME)[1] == 3


@pytest.mark.parametrize(("loss", "target", "other"), CASES, ids=IDS)
def test_a_loss_adds_up_over_shards_of_the_batch(loss, target, other):
    parts = [loss(other[i : i + 1], target[i : i + 1], SOME[i : i + 1]) for i in range(3)]
    total, count = (sum(column) for column in zip(*parts, strict=True))
    np.testing.assert_allclose(total / count, losses.mean(loss(other, target, SOME)), rtol=1e-6)


@pytest.mark.parametrize(("loss", "target", "other"), CASES, ids=IDS)
def test_gradient_reaches_the_student_and_not_the_teacher(loss, target, other):
    student, teacher = jax.grad(lambda a, b: losses.mean(loss(a, b, ALL)), argnums=(0, 1))(other, target)
    assert jnp.abs(student).max() > 0
    assert jnp.abs(teacher).max() == 0


def test_nothing_counted_is_zero_with_a_finite_gradient():
    gradient = jax.grad(lambda x: losses.mean(losses.token_mse(x, TOKENS, jnp.zeros((3, 2), bool))))(OTHER)
    assert jnp.abs(gradient).max() == 0


def test_mse_of_unit_noise_is_one_whatever_the_width():
    noise = jnp.asarray(RNG.normal(size=(8, 1, 64, 128)), jnp.float32)
    value = losses.mean(losses.token_mse(noise, jnp.zeros_like(noise), jnp.ones((8, 1), bool)))
    assert abs(value - 1) < 0.02


def test_cosine_of_a_zero_vector_is_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: losses.cosine(x, jnp.ones((1, 3))).sum())(jnp.zeros((1, 3)))
    assert value == 0
    assert jnp.isfinite(gradient).all()


def test_attention_kl_is_taken_per_tile():
    halves = [jax.nn.softmax(x[..., 0].reshape(3, 4, 2), axis=-1) for x in (OTHER, TOKENS)]
    by_hand = losses.mean(kl(*halves, jnp.ones((3, 4), bool)))
    tiled = losses.mean(kl(halves[0].reshape(3, 2, 4), halves[1].reshape(3, 2, 4) / 2, ALL, tiles=2))
    np.testing.assert_allclose(tiled, by_hand, rtol=1e-5)


def test_token_error_is_the_mean_over_tokens_and_channels_of_each_frame():
    squared = np.square(np.asarray(OTHER) - np.asarray(TOKENS)).mean(axis=(2, 3))
    np.testing.assert_allclose(losses.token_error(OTHER, TOKENS), squared, rtol=1e-5)


def test_the_energy_head_learns_the_error_without_moving_it():
    def loss(predicted, error):
        return losses.mean(losses.log_error(predicted, error, jnp.ones((2, 1), bool)))

    error = jnp.asarray([[0.5], [2.0]])
    to_head, to_error = jax.grad(loss, argnums=(0, 1))(jnp.zeros((2, 1)), error)
    assert loss(jnp.log(error), error) == 0
    assert jnp.abs(to_head).min() > 0
    assert jnp.abs(to_error).max() == 0


def test_a_step_that_does_not_improve_is_pulled_down_and_never_the_one_before_up():
    def rise(first, second):
        return losses.mean(losses.step_rise([first, second], jnp.ones((2, 1), bool), fall=0.1))

    first, second = jnp.asarray([[1.0], [2.0]]), jnp.asarray([[0.9], [2.2]])
    earlier, later = jax.grad(rise, argnums=(0, 1))(first, second)
    np.testing.assert_allclose(rise(first, second), (0.0 + 0.2) / 2, rtol=1e-5)
    assert earlier.tolist() == [[0.0], [0.0]]
    np.testing.assert_allclose(later, [[0.0], [0.25]], rtol=1e-5)


def test_step_weights_rise_and_sum_to_one():
    weights = losses.rising(3)
    assert weights.shape == (4,)
    assert (jnp.diff(weights) > 0).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
