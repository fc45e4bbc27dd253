"""Baselines that find exactly what they can find."""

import numpy as np
import pytest

from eval import baselines
from eval.layout import Layout

RNG = np.random.default_rng(0)


def test_position_mean_is_the_mean_over_all_batches():
    tokens, attention = RNG.normal(size=(7, 4, 3)), RNG.random((7, 1, 4))
    baseline = baselines.PositionMean()
    baseline.add(tokens[:5], attention[:5])
    baseline.add(tokens[5:], attention[5:])
    predicted, predicted_attention = baseline.predict(2)
    assert predicted == pytest.approx(np.stack([tokens.mean(0)] * 2))
    assert predicted_attention == pytest.approx(np.stack([attention.mean(0)] * 2))


def linear_split(frames, weights, bias, noise=0.0):
    layout = Layout(grid=2)
    images = RNG.integers(0, 256, (frames, 28, 28, 3), dtype=np.uint8)
    tokens = layout.patches(images) @ weights + bias
    return images, tokens + noise * RNG.normal(size=tokens.shape)


def test_ridge_recovers_a_linear_teacher_with_a_bias_per_position():
    weights, bias = RNG.normal(size=(588, 2)), RNG.normal(size=(4, 2))
    train, validation = linear_split(400, weights, bias), linear_split(20, weights, bias)
    ridge = baselines.fit_ridge(Layout(grid=2), lambda: [train], lambda: [validation])
    images, tokens = linear_split(5, weights, bias)
    assert ridge.predict(images) == pytest.approx(tokens, abs=0.05)


def test_ridge_picks_strong_shrinkage_when_pixels_say_nothing():
    nothing = np.zeros((588, 2))
    train, validation = linear_split(50, nothing, 1.0, noise=1.0), linear_split(50, nothing, 1.0, noise=1.0)
    weak = baselines.fit_ridge(Layout(grid=2), lambda: [train], lambda: [validation])
    assert weak.strength >= 10


def test_ridge_names_the_missing_split():
    with pytest.raises(ValueError, match="--split train"):
        baselines.fit_ridge(Layout(grid=2), list, list)
