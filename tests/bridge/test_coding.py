"""Codes lose what lies beyond the basis and half a step within it, and nothing else."""

import numpy as np
import pytest

from bridge import blocks, coding
from bridge.manifest import StoreError

RNG = np.random.default_rng(0)


def correlated(rows: int, width: int) -> np.ndarray:
    turned = np.linalg.qr(RNG.normal(size=(width, width)))[0]
    return (RNG.normal(size=(rows, width)) * np.geomspace(10, 0.01, width) @ turned + 3).astype(np.float32)


def fitted(tokens: np.ndarray, *, grid: int = 1, **limits) -> coding.Coding:
    moments = coding.Moments(tokens.shape[1], grid)
    moments.add(tokens)
    return coding.fit(moments, **({"components": 512, "variance": 1.0} | limits))


def test_a_whole_basis_loses_half_a_step_at_most():
    tokens = correlated(500, 24)
    one = fitted(tokens)
    codes, scale = one.encode(tokens)
    assert codes.dtype == np.int8
    assert np.abs(codes).max(axis=1).min() >= 126, "every token uses the range that a code has"
    turned = (one.decode(codes, scale) - tokens) @ one.basis.T
    assert (np.abs(turned) <= 0.51 * scale.astype(np.float32)[:, None] + 1e-4).all()


def test_few_components_keep_the_leading_ones_and_vary_alike():
    tokens = correlated(4000, 24)
    one = fitted(tokens, components=6)
    assert one.basis.shape == (6, 24)
    np.testing.assert_allclose(one.basis @ one.basis.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(
        ((tokens - one.mean) @ one.basis.T).var(0), np.linalg.eigvalsh(np.cov(tokens.T))[-6:].mean(), rtol=1e-2
    )
    lost = np.square(one.decode(*one.encode(tokens)) - tokens).sum() / np.square(tokens - tokens.mean(0)).sum()
    assert lost == pytest.approx(1 - one.kept, abs=2e-4)


def test_as_few_components_as_the_variance_needs():
    tokens = correlated(2000, 24)
    one, fewer = fitted(tokens, variance=0.9), fitted(tokens, variance=0.9, components=2)
    assert one.kept >= 0.9 > fitted(tokens, components=one.components - 1).kept
    assert fewer.components == 2


def test_the_file_gives_the_coding_back():
    one = fitted(correlated(200, 8))
    back = coding.from_bytes(one.to_bytes(), one.kept, one.grid)
    assert back.digest == one.digest
    np.testing.assert_array_equal(back.basis, one.basis)


def test_a_constant_token_and_a_huge_one():
    one = fitted(correlated(200, 8))
    codes, scale = one.encode(one.mean[None])
    np.testing.assert_allclose(one.decode(codes, scale), one.mean[None], atol=1e-3)
    with pytest.raises(StoreError, match="too large to be coded"):
        one.encode(np.full((1, 8), 1e9, np.float32))


@pytest.mark.parametrize("tiles", [1, 3])
def test_blocks_stay_within_their_tile_and_come_back(tiles):
    tokens = RNG.normal(size=(2, tiles, 4, 4, 3)).astype(np.float32)
    flat = tokens.reshape(2, -1, 3)
    found = blocks.gathered(flat, 4)
    assert found.shape == (2, 4 * tiles, 12)
    np.testing.assert_array_equal(found[1, -3].reshape(2, 2, 3), tokens[1, -1, :2, 2:])
    np.testing.assert_array_equal(blocks.spread(found, 4), flat)
    with pytest.raises(ValueError, match="whole tiles, 4 each, got 3"):
        blocks.spread(found[:, :3], 4)


def test_an_odd_tile_is_coded_token_by_token():
    tokens = correlated(90, 8)
    one = fitted(tokens, grid=3)
    codes, scale = one.encode(tokens)
    assert codes.shape == (90, 8)
    np.testing.assert_allclose(one.decode(codes, scale), tokens, atol=float(scale.max()) * 3)


def test_the_haar_bands_are_orthonormal():
    for haar in blocks.HAAR.values():
        np.testing.assert_allclose(haar @ haar.T, np.eye(len(haar)))


def smooth(tiles: int, grid: int, width: int) -> np.ndarray:
    """Tokens [n, d] of tiles whose neighbours are alike."""
    coarse = RNG.normal(size=(tiles, grid // 2 + 1, grid // 2 + 1, width)) * np.geomspace(3, 0.3, width)
    at = np.arange(grid) / 2
    low, share = at.astype(int), (at % 1)[:, None]
    for axis in (1, 2):
        a, b = np.take(coarse, low, axis), np.take(coarse, low + 1, axis)
        weight = share.reshape([-1 if index == axis else 1 for index in range(4)])
        coarse = a * (1 - weight) + b * weight
    return coarse.reshape(-1, width).astype(np.float32)


def test_a_block_of_neighbours_is_kept_better_than_their_mean_or_each_alone_by_as_many_values():
    tokens = smooth(200, 8, 16)
    lost = lambda back: np.square(back - tokens).sum() / np.square(tokens - tokens.mean(0)).sum()  # noqa: E731
    together, alone = fitted(tokens, grid=8, components=16), fitted(tokens, components=4)
    means = blocks.gathered(tokens, 8).reshape(-1, 4, 16).mean(1, keepdims=True)
    averaged = blocks.spread(np.broadcast_to(means, (len(means), 4, 16)).reshape(-1, 64), 8)
    by_blocks = lost(together.decode(*together.encode(tokens)))
    assert by_blocks < 0.6 * lost(averaged), "16 values of the mean alone"
    assert by_blocks < 0.6 * lost(alone.decode(*alone.encode(tokens))), "4 values of every token"
    assert by_blocks == pytest.approx(1 - together.kept, abs=0.02)
