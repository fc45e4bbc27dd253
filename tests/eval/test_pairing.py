"""Paired statistics of success against values known by hand or by definition."""

import numpy as np
import pytest

from eval import pairing, statistics

RNG = np.random.default_rng(0)


def drawn(share, seeds=1, tasks=3, goals=40):
    return RNG.random((seeds, tasks, goals)) < share


@pytest.fixture
def paired():
    return pairing.Pairing(3, 40, draws=2000, seed=0)


def test_the_mean_is_over_the_chosen_tasks_alone(paired):
    success = drawn(0.5)
    success[:, 2] = True
    assert paired.mean(success, [0, 1]).value == pytest.approx(success[:, :2].mean())
    assert paired.mean(success, [2]).value == 1


def test_the_interval_of_a_mean_is_about_two_standard_errors(paired):
    success = drawn(0.6)
    got = paired.mean(success, range(3))
    error = np.sqrt((success[0].mean(1) * (1 - success[0].mean(1))).mean() / 120)
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_all_solved_is_not_certainty(paired):
    got = paired.mean(np.ones((3, 3, 40), bool), range(3))
    assert (got.low, got.high) == statistics.wilson(120, 120)


def test_a_policy_against_itself_differs_by_nothing_at_all(paired):
    success = drawn(0.7, seeds=3)
    assert vars(paired.difference(success, success, range(3))) == {"value": 0, "low": 0, "high": 0}
    assert vars(paired.ratio(success, success, range(3))) == {"value": 1, "low": 1, "high": 1}


def test_pairing_narrows_the_difference_of_policies_that_fail_on_the_same_goals(paired):
    easy = drawn(0.6)
    other = easy.copy()
    other[0, 0, :4] = False
    shuffled = other[:, :, ::-1]
    close, wide = (paired.difference(easy, one, range(3)) for one in (other, shuffled))
    assert close.value == wide.value
    assert close.high - close.low < (wide.high - wide.low) / 2


def test_points_are_percentages(paired):
    one, other = np.ones((1, 3, 40), bool), np.zeros((1, 3, 40), bool)
    assert paired.difference(one, other, range(3)).value == 100


def test_seeds_that_differ_widen_the_interval(paired):
    alike = drawn(0.5, seeds=3)
    apart = alike.copy()
    apart[0], apart[2] = True, False
    near, far = (paired.mean(one, range(3)) for one in (alike, apart))
    assert far.high - far.low > 2 * (near.high - near.low)


def test_no_ratio_to_a_policy_that_may_solve_nothing(paired):
    assert paired.ratio(drawn(0.5), np.zeros((1, 3, 40), bool), range(3)) is None
    rare = np.zeros((1, 3, 40), bool)
    rare[0, 0, 0] = True
    assert paired.ratio(drawn(0.5), rare, range(3)) is None


def test_mcnemar_counts_goals_won_and_lost_and_leaves_ties_out():
    one, other = np.zeros((2, 1, 1, 12), bool)
    one[..., :8], other[..., 8:10] = True, True
    assert pairing.sign(one, other, [0]) == (pytest.approx(2 * (1 + 10 + 45) / 1024), 8, 2)


def test_seeds_are_averaged_before_a_goal_is_won():
    one, other = np.zeros((3, 1, 2), bool), np.zeros((1, 1, 2), bool)
    one[:2, 0, 0], one[0, 0, 1], other[0, 0, 1] = True, True, True
    assert pairing.sign(one, other, [0])[1:] == (1, 1)
