"""Trust rises with good outcomes, falls with bad ones and forgets; a witness tells the usual from the odd."""

import dataclasses

import numpy as np
import pytest

from student_jax.sage import trust

PRIOR = np.array([0.95, 0.9])


def test_before_anything_is_known_it_is_the_prior():
    np.testing.assert_allclose(trust.Posterior(PRIOR).trust, PRIOR, rtol=1e-6)


def test_five_failures_show_and_five_good_outcomes_heal():
    found = trust.Posterior(PRIOR)
    for _ in range(5):
        found.observe(np.array([1.0, 1.0]))
    before = found.trust
    for _ in range(5):
        found.observe(np.array([0.0, 1.0]))
    after = found.trust
    assert after[0] < before[0] - 0.3
    assert after[1] >= before[1] - 1e-6
    for _ in range(15):
        found.observe(np.array([1.0, 1.0]))
    assert found.trust[0] > 0.85


def test_one_surprise_at_the_start_is_half_forgiven_and_two_are_not():
    found = trust.Posterior(PRIOR)
    found.observe(np.zeros(2))
    assert (found.trust > 0.5).all()
    found.observe(np.zeros(2))
    assert (found.trust < 0.5).all()


def test_where_nothing_ever_surprised_anything_does():
    still = np.ones((20, 2)), np.zeros((20, 3))
    found = trust.fit(still, still)
    assert (found.excess(*still) == 0).all()
    assert (found.excess(still[0], still[1] + 0.1) > 1).all()


def test_what_is_unknown_counts_for_neither_and_idle_returns_to_the_prior():
    found = trust.Posterior(PRIOR)
    for _ in range(8):
        found.observe(np.array([0.0, np.nan]))
    np.testing.assert_allclose(found.trust[1], PRIOR[1], rtol=1e-6)
    low = found.trust[0]
    for _ in range(60):
        found.observe(np.full(2, np.nan))
    assert low < 0.3
    np.testing.assert_allclose(found.trust, PRIOR, atol=0.01)


def test_trust_has_a_floor():
    found = trust.Posterior(np.array([0.2]))
    for _ in range(200):
        found.observe(np.zeros(1))
    assert found.trust == np.float32(trust.FLOOR)


def test_posture_names_who_is_starved():
    found = trust.Posture.of({"vision": 0.1, "language": 0.9, "control": 0.8})
    assert found.starved == ("vision",)
    assert found.confidence == pytest.approx(0.6)
    assert found.asymmetry == pytest.approx(0.8)


def linear(rng, n):
    x = rng.normal(size=(n, 5))
    return x, x @ np.arange(10).reshape(5, 2) + 3 + 0.1 * rng.normal(size=(n, 2))


def test_a_fitted_prediction_accepts_nineteen_of_twenty_and_no_other_world():
    rng = np.random.default_rng(0)
    found = trust.fit(linear(rng, 2000), linear(rng, 500))
    x, y = linear(rng, 2000)
    assert (found.excess(x, y) <= 1).mean() == pytest.approx(0.95, abs=0.03)
    assert (found.excess(x, y + 5) > 1).all()


def test_a_witness_is_surprised_by_the_view_that_changed():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(400, 2, 3))
    embedding = np.concatenate([state, 2 * state], axis=2)[:, :, None].repeat(2, axis=2)
    embedding = embedding + 0.01 * rng.normal(size=embedding.shape)

    def ahead(view):
        x = np.concatenate([embedding[:, 0, view], state.reshape(400, -1)], axis=1)
        return trust.fit((x, embedding[:, 1, view]), (x, embedding[:, 1, view]))

    usual = tuple(trust.fit(*2 * ((state[:, 1], embedding[:, 1, view]),)) for view in (0, 1))
    body = trust.fit(*2 * ((np.zeros((400, 4)), state[:, 1] - state[:, 0]),))
    witness = trust.Witness((ahead(0), ahead(1)), usual, body, 0.0, np.ones(3))
    covered = embedding.copy()
    covered[:, 1, 1] = 0
    seen = witness.seen(covered[:, 0], covered[:, 1], state)
    assert seen[:, 0].mean() > 0.85
    assert seen[:, 1].mean() < 0.05
    strange = witness.strangeness(embedding[:, 0], embedding[:, 1], state).max(axis=1)
    wide = dataclasses.replace(witness, margin=float(np.quantile(strange, 0.95)))
    calm, alarmed = (wide.seen(now[:, 0], now[:, 1], state) for now in (embedding, covered))
    assert calm.all(axis=1).mean() == pytest.approx(0.95, abs=0.01)
    assert alarmed[:, 1].mean() < 0.05
