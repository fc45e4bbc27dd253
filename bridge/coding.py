"""Compact tokens: a block's leading principal components, rotated by PHI-S so that all vary alike, scaled to int8.

y = basis (x - mean) in [k] of a block x in [side² d] (bridge/blocks.py); code = round(y / scale), scale = max |y| / 127
of that block. The components are those of the blocks' Haar bands, each band's own. The basis' rows are orthonormal, so
that x is mean + basisᵀ (code * scale), and what is lost is the variance beyond the k components, and the rounding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np

from bridge import blocks, standardise
from bridge.manifest import StoreError

LEVELS = 127
SMALLEST = np.float16(2.0**-14)  # of a scale: the least that float16 holds to its full precision


@dataclasses.dataclass(frozen=True)
class Coding:
    """How the tokens of one feature are coded; both arrays in the teacher's own basis."""

    mean: np.ndarray
    """float32 [side² d]."""
    basis: np.ndarray
    """float32 [k, side² d], orthonormal rows."""
    kept: float
    """Share of the training tokens' variance that lies in the basis."""
    grid: int
    """Tokens on a side of a tile."""

    @property
    def components(self) -> int:
        """Values of a code, k."""
        return len(self.basis)

    @property
    def width(self) -> int:
        """Channels of a token, d."""
        return len(self.mean) // blocks.side(self.grid) ** 2

    @property
    def digest(self) -> str:
        """sha256 of the file that holds it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def encode(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes int8 [n / side², k] and scales float16 [n / side²] of whole tiles' tokens, float-like [n, d]."""
        turned = (blocks.gathered(tokens.astype(np.float32), self.grid) - self.mean) @ self.basis.T
        scale = np.abs(turned).max(axis=1, initial=0.0) / LEVELS
        if not np.isfinite(scale).all() or scale.max(initial=0.0) > np.finfo(np.float16).max:
            raise StoreError("token features are not finite or too large to be coded: check them with bridge.validate")
        rounded = np.maximum(scale.astype(np.float16), SMALLEST)
        codes = np.rint(turned / rounded.astype(np.float32)[:, None])
        return np.clip(codes, -LEVELS, LEVELS).astype(np.int8), rounded

    def decode(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Tokens float32 [..., m side², d] of codes int8 [..., m, k] and scales [..., m], m blocks of whole tiles."""
        return blocks.spread((codes * scale.astype(np.float32)[..., None]) @ self.basis + self.mean, self.grid)

    def to_bytes(self) -> bytes:
        """The file: a .npy of float32 [1 + k, side² d], the mean and below it the basis."""
        held = io.BytesIO()
        np.save(held, np.concatenate([self.mean[None], self.basis]).astype("<f4"), allow_pickle=False)
        return held.getvalue()


def from_bytes(content: bytes, kept: float, grid: int) -> Coding:
    """Of a file as `to_bytes` makes it; ValueError where it is none."""
    both = np.load(io.BytesIO(content), allow_pickle=False)
    if both.ndim != 2 or both.dtype != np.float32 or len(both) < 2:
        raise ValueError(f"expected float32 [1 + k, side² d], got {both.dtype} {list(both.shape)}")
    return Coding(both[0], both[1:], kept, grid)


class Moments:
    """Streamed statistics of tokens in blocks, band by band (blocks.HAAR): exact but for what bands have in common."""

    def __init__(self, width: int, grid: int):
        self.width, self.grid = width, grid
        self.haar = blocks.HAAR[blocks.side(grid)]
        self.bands = [standardise.Moments(width) for _ in self.haar]

    def add(self, tokens: np.ndarray) -> None:
        """Adds whole tiles' tokens, float-like [n, d]."""
        cut = blocks.gathered(tokens.astype(np.float32), self.grid).reshape(-1, len(self.haar), self.width)
        for band, weights in zip(self.bands, self.haar, strict=True):
            band.add(np.tensordot(weights, cut, axes=(0, 1)))


def fit(moments: Moments, *, components: int, variance: float) -> Coding:
    """The fewest principal components of all bands that keep this share of the variance, at most so many, in PHI-S'
    rotation.

    Raises standardise.StatisticsError where the tokens do not vary or are not finite.
    """
    bands = enumerate(moments.bands)
    spectra = [standardise.spectrum(band.covariance(), constant=index > 0) for index, band in bands]
    values = np.maximum(np.concatenate([found for found, _ in spectra]), 0)
    leading = np.argsort(-values, kind="stable")
    share = np.cumsum(values[leading]) / values.sum()
    k = min(components, int(np.searchsorted(share, variance - 1e-12)) + 1, len(values))
    of, channels = np.divmod(leading[:k], moments.width)
    vectors = np.stack([spectra[band][1][:, channel] for band, channel in zip(of, channels, strict=True)])
    rows = np.einsum("kp,kd->kpd", moments.haar[of], vectors).reshape(k, -1)
    basis = standardise.equalise(values[leading[:k]]) @ rows
    mean = moments.haar.T @ np.stack([band.mean() for band in moments.bands])
    kept = round(float(share[k - 1]), 6)
    return Coding(mean.reshape(-1).astype(np.float32), basis.astype(np.float32), kept, moments.grid)
