import jax.numpy as jnp
import numpy as np
import pytest

from student_jax import cost
from student_jax.sage import budget


def test_one_atp_is_ten_megaflop():
    flops = cost.Flops(init=2e7, step=5e6, output=1e7)
    assert flops.step_atp == 0.5
    assert flops.base_atp == 3.0


def test_prices_add_up_exactly_in_float32():
    prices = [cost.Flops(init=0.0, step=step, output=0.0).step_atp for step in (20852736.0, 40378368.0, 5e11 / 3)]
    assert 2.0852736 <= prices[0] < 2.0852736 + cost.GRAIN
    left = np.float32(sum(3 * price for price in prices))
    for price in 3 * prices:
        left = left - np.float32(price)
    assert left == 0.0


@pytest.mark.parametrize(
    ("atp", "usable"), [(np.nan, 0), (-3, 0), (np.inf, 9), (20, 9), (9, 9), (1.51, 1.5), (1 / 65, 0)]
)
def test_what_of_a_budget_can_be_spent(atp, usable):
    assert float(budget.usable(jnp.float32([atp]), 9.0)[0]) == usable


def test_affordable_steps_never_overdraw():
    rng = np.random.default_rng(0)
    for price in (0.1, 0.3, 5.2703233, 1 / 3):
        exact = np.arange(1, 10, dtype=np.float32) * np.float32(price)
        atp = np.concatenate([rng.uniform(0, 50, 5000).astype(np.float32), exact, np.nextafter(exact, np.float32(0))])
        steps = budget.affordable(jnp.asarray(atp), price, max_steps=8)
        assert np.all(np.float32(steps) * np.float32(price) <= atp)
        assert np.all((np.asarray(steps) == 8) | ((np.asarray(steps) + 1.01) * price > atp))


@pytest.mark.parametrize(("atp", "steps"), [(0, 0), (-3, 0), (np.nan, 0), (np.inf, 4), (0.999, 0), (1, 1), (2.5, 2)])
def test_affordable_of_odd_budgets(atp, steps):
    assert int(budget.affordable(jnp.float32([atp]), 1.0, max_steps=4)[0]) == steps


def test_shares_follow_trust_with_a_floor_and_never_exceed_the_budget():
    rng = np.random.default_rng(0)
    atp, trust = rng.uniform(0, 100, 500).astype(np.float32), rng.uniform(0, 1, (500, 4)).astype(np.float32) ** 4
    shares = np.asarray(budget.shares(jnp.asarray(atp), jnp.asarray(trust)))
    assert np.all(shares.sum(1) <= atp * (1 + 1e-6))
    raw = np.maximum(0.05, trust / trust.sum(1, keepdims=True))
    np.testing.assert_allclose(shares, atp[:, None] * raw / np.maximum(raw.sum(1, keepdims=True), 1), rtol=1e-5)


def test_one_module_gets_everything_and_no_trust_splits_evenly():
    assert budget.shares(jnp.float32([7.3]), jnp.float32([[0.2]])).tolist() == np.float32([[7.3]]).tolist()
    assert budget.shares(jnp.float32([8, np.nan]), jnp.zeros((2, 2))).tolist() == [[4, 4], [0, 0]]
