"""Codes lose what lies beyond the basis and half a step within it, and nothing else."""

import numpy as np
import pytest

from bridge import coding, pooling, standardise
from bridge import manifest as manifests
from bridge.manifest import StoreError

RNG = np.random.default_rng(0)


def correlated(rows: int, width: int) -> np.ndarray:
    turned = np.linalg.qr(RNG.normal(size=(width, width)))[0]
    return (RNG.normal(size=(rows, width)) * np.geomspace(10, 0.01, width) @ turned + 3).astype(np.float32)


def fitted(tokens: np.ndarray, **limits) -> coding.Coding:
    moments = standardise.Moments(tokens.shape[1])
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
    back = coding.from_bytes(one.to_bytes(), one.kept)
    assert back.digest == one.digest
    np.testing.assert_array_equal(back.basis, one.basis)


def test_a_constant_token_and_a_huge_one():
    one = fitted(correlated(200, 8))
    codes, scale = one.encode(one.mean[None])
    np.testing.assert_allclose(one.decode(codes, scale), one.mean[None], atol=1e-3)
    with pytest.raises(StoreError, match="too large to be coded"):
        one.encode(np.full((1, 8), 1e9, np.float32))


@pytest.mark.parametrize("tiles", [1, 3])
def test_neighbourhoods_stay_within_their_tile(tiles):
    teacher = manifests.Teacher("toy", "0", "random", "none", 28, 4, 2, tiles, tiles, 1, False, 1)
    tokens = RNG.normal(size=(tiles, 4, 4, 2)).astype(np.float32)
    found = pooling.image(tokens.reshape(-1, 2), teacher, 2).reshape(tiles, 2, 2, 2)
    np.testing.assert_allclose(found[:, 0, 1], tokens[:, :2, 2:].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 1, 0], tokens[:, 2:, :2].mean((1, 2)), rtol=1e-5)
