"""Each statistic against values computed by hand or by definition."""

import numpy as np
import pytest

from eval import statistics


def sums(truth, prediction):
    return ((prediction - truth) ** 2).sum(0), truth.sum(0), (truth**2).sum(0), len(truth)


def test_r_squared_by_hand():
    truth, prediction = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [4.0]])
    assert statistics.r_squared(*sums(truth, prediction)) == pytest.approx([1 - 1 / 2])


def test_r_squared_of_the_mean_is_zero_despite_a_large_offset():
    truth = 100 + 0.01 * np.random.default_rng(0).normal(size=(500, 4))
    assert statistics.r_squared(*sums(truth, truth.mean(0))) == pytest.approx(np.zeros(4), abs=1e-6)


def test_r_squared_of_a_dead_channel():
    truth = np.full((4, 2), 0.1)
    prediction = truth + np.array([0.0, 0.5])
    assert statistics.r_squared(*sums(truth, prediction)).tolist() == [1.0, 0.0]


def test_resamples_keep_the_number_of_units_and_the_seed():
    weights = statistics.resamples(7, 50, np.random.default_rng(3))
    assert weights.shape == (50, 7)
    assert (weights.sum(1) == 7).all()
    assert np.array_equal(weights, statistics.resamples(7, 50, np.random.default_rng(3)))


def test_bootstrap_interval_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(0).normal(size=400)
    weights = statistics.resamples(400, 2000, np.random.default_rng(1))
    got = statistics.estimate(lambda w: w @ values / w.sum(1), weights)
    assert got.value == pytest.approx(values.mean())
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_wilson_matches_the_published_formula():
    assert statistics.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert statistics.wilson(0, 20)[0] == 0.0
    assert statistics.wilson(0, 20)[1] == pytest.approx(0.1611251, abs=1e-6)


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses_impossible_counts(arguments):
    with pytest.raises(ValueError, match="successes"):
        statistics.wilson(*arguments)


def test_spearman_by_hand():
    # d = (1, -1, 1, -1, 0): rho = 1 - 6 * 4 / (5 * 24)
    assert statistics.Spearman(np.array([1.0, 2, 3, 4, 5]), np.array([20.0, 10, 40, 30, 50]))() == pytest.approx(0.8)


def test_spearman_is_blind_to_monotone_maps_and_handles_ties():
    x = np.array([1.0, 1.0, 2.0, 3.0])
    assert statistics.Spearman(x, np.exp(x))() == pytest.approx(1.0)
    assert statistics.Spearman(x, -x)() == pytest.approx(-1.0)
    assert statistics.Spearman(x, np.zeros(4))() == 0.0


def test_spearman_weights_equal_repetition():
    rng = np.random.default_rng(0)
    x, y, weights = rng.integers(0, 9, 60).astype(float), rng.normal(size=60), rng.integers(0, 4, 60)
    repeated = statistics.Spearman(np.repeat(x, weights), np.repeat(y, weights))()
    assert statistics.Spearman(x, y)(weights.astype(float)) == pytest.approx(repeated)


def test_calibration_error_of_a_constant_shift():
    true = np.linspace(0, 0.5, 100)
    assert statistics.calibration_error(true + 0.25, true) == pytest.approx(0.25)
    assert statistics.calibration_error(true, true) == 0.0


def test_ratio_of_medians():
    got = statistics.ratio_interval(np.full(5, 6.0), np.full(5, 2.0), np.random.default_rng(0))
    assert (got.value, got.low, got.high) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(8, 2, 0.109375), (2, 8, 0.109375), (5, 5, 1.0), (10, 0, 2 / 1024), (0, 0, 1.0)]
)
def test_sign_test_by_hand(wins, losses, p):
    assert statistics.sign_test(wins, losses) == pytest.approx(p)


def test_sign_test_of_many_pairs_neither_overflows_nor_errs():
    assert statistics.sign_test(700, 800) == pytest.approx(0.0105, abs=2e-4)  # normal with continuity correction
    with pytest.raises(ValueError, match="counts"):
        statistics.sign_test(-1, 2)


def test_a_paired_t_test_is_students():
    assert statistics.paired_t(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(0.0132356, abs=1e-6)
    assert statistics.paired_t(np.array([-1.0, 1.0])) == pytest.approx(1)
    assert statistics.paired_t(np.ones(3)) == 0
    with pytest.raises(ValueError, match="at least two"):
        statistics.paired_t(np.ones(1))


def test_a_t_interval_covers_what_its_test_cannot_reject():
    gains = np.array([9.3, 22.0, 26.9])
    low, high = statistics.t_interval(gains)
    assert (low, high) == (pytest.approx(-3.2, abs=0.2), pytest.approx(42.0, abs=0.2))
    for edge in (low, high):
        assert statistics.paired_t(gains - edge) == pytest.approx(0.05, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        statistics.t_interval(gains[:1])
