"""A compact token: its leading principal components, rotated by PHI-S so that all vary alike, as int8 with a scale.

y = basis (x - mean) in [k] of x in [d]; code = round(y / scale), scale = max |y| / 127 of that token. The basis' rows
are orthonormal, so that x is mean + basisᵀ (code * scale), and what is lost is the variance beyond the k components.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np

from bridge import standardise
from bridge.manifest import StoreError

LEVELS = 127
SMALLEST = np.float16(2.0**-14)  # of a scale: the least that float16 holds to its full precision


@dataclasses.dataclass(frozen=True)
class Coding:
    """How the tokens of one feature are coded; both arrays in the teacher's own basis."""

    mean: np.ndarray
    """float32 [d]."""
    basis: np.ndarray
    """float32 [k, d], orthonormal rows."""
    kept: float
    """Share of the training tokens' variance that lies in the basis."""

    @property
    def components(self) -> int:
        """Values of a code, k."""
        return len(self.basis)

    @property
    def digest(self) -> str:
        """sha256 of the file that holds it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def encode(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes int8 [n, k] and scales float16 [n] of float-like tokens [n, d]."""
        turned = (tokens.astype(np.float32) - self.mean) @ self.basis.T
        scale = np.abs(turned).max(axis=1, initial=0.0) / LEVELS
        if not np.isfinite(scale).all() or scale.max(initial=0.0) > np.finfo(np.float16).max:
            raise StoreError("token features are not finite or too large to be coded: check them with bridge.validate")
        rounded = np.maximum(scale.astype(np.float16), SMALLEST)
        codes = np.rint(turned / rounded.astype(np.float32)[:, None])
        return np.clip(codes, -LEVELS, LEVELS).astype(np.int8), rounded

    def decode(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Tokens float32 [..., d] of codes int8 [..., k] and scales [...]."""
        return (codes * scale.astype(np.float32)[..., None]) @ self.basis + self.mean

    def to_bytes(self) -> bytes:
        """The file: a .npy of float32 [1 + k, d], the mean and below it the basis."""
        held = io.BytesIO()
        np.save(held, np.concatenate([self.mean[None], self.basis]).astype("<f4"), allow_pickle=False)
        return held.getvalue()


def from_bytes(content: bytes, kept: float) -> Coding:
    """Of a file as `to_bytes` makes it; ValueError where it is none."""
    both = np.load(io.BytesIO(content), allow_pickle=False)
    if both.ndim != 2 or both.dtype != np.float32 or len(both) < 2:
        raise ValueError(f"expected float32 [1 + k, d], got {both.dtype} {list(both.shape)}")
    return Coding(both[0], both[1:], kept)


def fit(moments: standardise.Moments, *, components: int, variance: float) -> Coding:
    """The fewest principal components that keep this share of the variance, at most so many, in PHI-S' rotation.

    Raises standardise.StatisticsError where the tokens do not vary or are not finite.
    """
    values, vectors = standardise.spectrum(moments.covariance())
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    share = np.cumsum(values) / values.sum()
    k = min(components, int(np.searchsorted(share, variance - 1e-12)) + 1, len(values))
    basis = standardise.equalise(values[:k]) @ vectors[:, :k].T
    return Coding(moments.mean().astype(np.float32), basis.astype(np.float32), round(float(share[k - 1]), 6))
