"""The optimiser: schedule, decay mask, average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import config, optim

PARAMS = {
    "vision": {
        "blocks": {0: {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
        "queries": {"embedding": jnp.ones((3, 2))},
    }
}


def test_the_rate_rises_to_its_peak_and_falls_to_the_final_share():
    recipe = config.Recipe(lr=1e-3, warmup=0.1, final_lr=0.02)
    rate = optim.make_schedule(recipe, 100)
    assert rate(0) == 0
    np.testing.assert_allclose([rate(10), rate(100)], [1e-3, 2e-5], rtol=1e-5)
    assert rate(5) < rate(10) > rate(50) > rate(99)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_short_runs_have_a_schedule_too(steps):
    rate = optim.make_schedule(config.Recipe(warmup=0.5), steps)
    assert all(np.isfinite(rate(step)) for step in range(steps + 1))


def test_without_warm_up_the_first_rate_is_the_peak():
    np.testing.assert_allclose(optim.make_schedule(config.Recipe(warmup=0.0), 10)(0), config.Recipe().lr)


def test_only_kernels_decay():
    zero = {
        "vision": {
            "blocks": {0: {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}},
            "queries": {"embedding": jnp.zeros((3, 2))},
        }
    }
    optimiser = optim.make_optimiser(config.Recipe(weight_decay=0.5, warmup=0.0), 10)
    updates, _ = optimiser.update(zero, optimiser.init(PARAMS), PARAMS)
    assert jnp.abs(updates["vision"]["blocks"][0]["kernel"]).min() > 0
    assert jnp.abs(updates["vision"]["blocks"][0]["bias"]).max() == 0
    assert jnp.abs(updates["vision"]["queries"]["embedding"]).max() == 0


def test_muon_turns_matrices_orthogonally_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS)
    optimiser = optim.make_optimiser(config.Recipe(optimiser="muon", warmup=0.0, lr=1.0, weight_decay=0.0), 10)
    moved = optimiser.update(gradient, optimiser.init(PARAMS), PARAMS)[0]["vision"]
    turned = np.linalg.svd(moved["blocks"][0]["kernel"], compute_uv=False) / (optim.ADAM_RMS * np.sqrt(2))
    assert (abs(turned - 1) < 0.35).all(), "Newton and Schulz bring singular values near 1"
    for leaf in (moved["blocks"][0]["bias"], moved["queries"]["embedding"]):
        np.testing.assert_allclose(abs(leaf), abs(leaf).mean(), rtol=1e-4, err_msg="Adam's first step is a sign")


def test_adam_sees_gradients_clipped_to_the_global_norm():
    optimiser = optim.make_optimiser(config.Recipe(clip=0.5, b2=0.9), 10)
    gradient = {"a": jnp.full(2, 3.0), "b": jnp.full(2, 4.0)}
    _, state = optimiser.update(gradient, optimiser.init(gradient), gradient)
    seen = jax.tree.map(lambda nu: jnp.sqrt(nu / 0.1), state[1][0].nu)
    np.testing.assert_allclose(optax.tree.norm(seen), 0.5, rtol=1e-5)
    np.testing.assert_allclose(seen["a"] / seen["b"], 0.75, rtol=1e-5)


def test_the_average_follows_quickly_at_first_and_then_slowly():
    assert optim.ema_rate(jnp.int32(0), decay=0.99) == pytest.approx(0.9)
    assert optim.ema_rate(jnp.int32(10_000), decay=0.99) == pytest.approx(0.01)
    average = {"w": jnp.zeros(2)}
    for step in range(50):
        average = optim.average(average, {"w": jnp.full(2, 3.0)}, jnp.int32(step), decay=0.99)
    np.testing.assert_allclose(average["w"], 3.0, rtol=1e-4)
