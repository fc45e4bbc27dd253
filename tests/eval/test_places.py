"""Errors of places in pixels: what is out of sight counts for nothing, episodes count as often as their weight."""

import numpy as np
import pytest

from eval import places

NOWHERE = [np.nan, np.nan]


def made(truth, told, episode, size=(100, 200)):
    return places.Places(np.array(told, "f4"), np.array(truth, "f4"), np.array(episode), size)


def line(*columns, episode=(0, 0, 1, 1, 1)):
    """One view and one object at the middle, told so many pixels too far to the right."""
    truth = np.full((len(columns), 1, 1, 2), 0.5)
    return made(truth, truth + np.array(columns)[:, None, None, None] * [0, 1 / 200], episode[: len(columns)])


def test_errors_are_in_pixels_of_the_view():
    (error,) = made([[[[0.5, 0.5]]]], [[[[0.53, 0.52]]]], [0]).errors.reshape(-1)
    assert error == pytest.approx(5, abs=1e-4)  # 3 rows and 4 columns


def test_what_is_out_of_sight_counts_for_nothing():
    truth = [[[[0.5, 0.5], [0.5, 1.2]]], [[[0.5, 0.5], NOWHERE]]]
    found = made(truth, np.zeros((2, 1, 2, 2)), [0, 1])
    assert found.count(0) == 2
    assert found.by_object(0)[1] is None
    assert np.isnan(found.errors[:, :, 1]).all()


@pytest.mark.parametrize(
    ("weights", "median"),
    [([1, 1], 4), ([1, 0], 1.5), ([0, 1], 5), ([5, 1], 2)],
)
def test_the_median_counts_episodes_by_weight(weights, median):
    found = line(1, 2, 4, 5, 6)
    assert found.median(0, np.array([weights], float))[0] == pytest.approx(median, abs=1e-4)


def test_the_guess_is_the_mean_of_what_is_in_sight():
    truth = np.array([[[[0.2, 0.4], NOWHERE]], [[[0.4, 0.6], [1.1, 0.5]]], [[[0.9, -0.1], NOWHERE]]])
    np.testing.assert_allclose(places.mean_position(truth), [[[0.3, 0.5], [0.5, 0.5]]], atol=1e-6)
