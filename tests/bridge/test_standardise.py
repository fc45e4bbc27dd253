"""PHI-S: every channel gets variance one, and the way back is exact."""

import numpy as np
import pytest

from bridge import standardise

RNG = np.random.default_rng(0)


def correlated(width: int, rows: int = 4000) -> np.ndarray:
    """Features with a steep spectrum and an offset, as a network's are."""
    spectrum = np.geomspace(10, 1e-3, width)
    return RNG.normal(size=(rows, width)) * spectrum @ RNG.normal(size=(width, width)) + 5


@pytest.mark.parametrize("width", [1, 3, 16, 96])
def test_standardised_channels_have_unit_variance(width):
    tokens = correlated(width)
    fit = standardise.phi_s(tokens.mean(0), np.cov(tokens.T, bias=True).reshape(width, width))
    standardised = np.linalg.solve(fit.basis.T.astype(np.float64), (tokens - fit.mean).T).T
    np.testing.assert_allclose(standardised.var(axis=0), 1, rtol=1e-3)


def test_the_basis_is_one_scalar_times_a_rotation():
    tokens = correlated(12)
    basis = standardise.phi_s(tokens.mean(0), np.cov(tokens.T, bias=True)).basis
    gram = basis @ basis.T
    np.testing.assert_allclose(gram, np.eye(12) * gram[0, 0], atol=1e-4 * gram[0, 0])


def test_a_rank_deficient_covariance_is_spread_over_all_channels():
    rotation = standardise.equalise(np.array([0.0, 0.0, 0.0, 8.0, 1.0]))
    np.testing.assert_allclose(np.diag(rotation * [0, 0, 0, 8, 1] @ rotation.T), 1.8, rtol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(5), atol=1e-12)


def test_streamed_moments_equal_those_of_the_whole():
    tokens = correlated(6) * 1e-3 + 1e4
    moments = standardise.Moments(6)
    for part in np.array_split(tokens, 7):
        moments.add(part)
    np.testing.assert_allclose(moments.mean(), tokens.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(tokens.T, bias=True), rtol=1e-6)


def test_constant_and_broken_features_are_refused():
    with pytest.raises(standardise.StatisticsError, match="constant"):
        standardise.phi_s(np.zeros(4), np.zeros((4, 4)))
    with pytest.raises(standardise.StatisticsError, match=r"bridge\.validate"):
        standardise.phi_s(np.full(4, np.nan), np.eye(4))
