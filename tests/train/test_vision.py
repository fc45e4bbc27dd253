"""The vision stage: targets in PHI-S units, scores by their definition."""

import jax.numpy as jnp
import numpy as np

from bridge import standardise
from train import vision

RNG = np.random.default_rng(0)


def test_standardising_a_target_inverts_the_basis():
    tokens = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6)) + 3
    fit = standardise.phi_s(tokens.mean(0), np.cov(tokens.T, bias=True))
    standardised = vision.standardised(*(jnp.asarray(x, jnp.float32) for x in (tokens, fit.mean, fit.basis)))
    np.testing.assert_allclose(np.asarray(standardised) @ fit.basis + fit.mean, tokens, atol=1e-4)
    np.testing.assert_allclose(np.var(standardised, axis=0), 1, rtol=1e-3)


def test_r_squared_by_its_definition():
    truth, predicted = RNG.normal(size=(50, 4)) + 2, RNG.normal(size=(50, 4)) + 2
    sse = np.square(truth - predicted).sum(0)
    expected = 1 - sse / np.square(truth - truth.mean(0)).sum(0)
    np.testing.assert_allclose(vision.r_squared(sse, truth.sum(0), np.square(truth).sum(0), 50.0), expected)


def test_a_channel_that_never_moves_scores_one_without_error_and_zero_with():
    scores = vision.r_squared(np.array([0.0, 0.1]), np.array([30.0, 30.0]), np.array([90.0, 90.0]), 10.0)
    assert scores.tolist() == [1.0, 0.0]


def sums(frames: int, error: np.ndarray, energy: np.ndarray, valid: np.ndarray) -> dict:
    """One batch's sums, steps x channels chosen so that R² is 0.5 and then 0.75."""
    truth = np.tile([1.0, -1.0], frames)[:, None] * np.ones(2)
    return {
        "sse": np.array([[frames, frames], [frames / 2, frames / 2]]),
        "total": truth.sum(0), "square": np.square(truth).sum(0), "count": np.float32(2 * frames),
        "cosine": np.array([frames * 0.5, frames * 0.25]), "attention_kl": np.array([frames * 2.0, frames * 1.0]),
        "frames": np.int32(frames), "error": error, "energy": energy, "valid": valid,
    }  # fmt: skip


def test_a_summary_of_two_batches_counts_only_valid_samples():
    first = sums(2, np.array([[4.0, 1.0], [4.0, 3.0]]), np.array([[0.5, 0.2], [0.5, 0.6]]), np.array([True, True]))
    second = sums(1, np.array([[4.0, 2.0], [9.0, 99.0]]), np.array([[0.5, 0.4], [0.5, 0.0]]), np.array([True, False]))
    summary = vision.summarise([first, second])
    assert summary["r2_mean/step_0"] == 0.5
    assert summary["r2_mean"] == summary["r2_p10"] == 0.75
    assert summary["cosine"] == 0.75
    assert summary["attention_kl"] == 1.0
    assert summary["median_error"] == summary["error/step_1"] == 2.0
    assert summary["energy_rank_correlation"] == 1.0
