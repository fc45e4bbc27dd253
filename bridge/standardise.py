"""PHI-S (arXiv 2410.01680): one orthogonal rotation and one scalar that give every channel variance 1.

Statistics are streamed in float64 over the training split; the rotation is the Schur-Horn one, for any width.
"""

import dataclasses

import numpy as np

UNFIT = "the training features are not finite: check the store with `python -m bridge.validate`"


class StatisticsError(ValueError):
    """The features cannot be standardised."""


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """`tokens = standardised @ basis + mean`, with `basis = phi * rotation` and an orthogonal rotation."""

    mean: np.ndarray
    """float32 [d], the teacher's own basis."""
    basis: np.ndarray
    """float32 [d, d]: rows are the standardised channels' directions, all of length phi."""


class Moments:
    """Count, sum and sum of outer products in float64, shifted by the first batch's mean against cancellation."""

    def __init__(self, width: int):
        self.count = 0
        self._shift = np.zeros(width)
        self._sum = np.zeros(width)
        self._outer = np.zeros((width, width))

    def add(self, tokens: np.ndarray) -> None:
        """Adds float-like tokens [n, d]."""
        values = np.asarray(tokens, dtype=np.float64)
        if self.count == 0 and len(values):
            self._shift = values.mean(axis=0)
        values = values - self._shift
        self.count += len(values)
        self._sum += values.sum(axis=0)
        self._outer += values.T @ values

    def mean(self) -> np.ndarray:
        """float64 [d]."""
        return self._shift + self._sum / max(self.count, 1)

    def covariance(self) -> np.ndarray:
        """float64 [d, d], divided by the count."""
        centre = self._sum / max(self.count, 1)
        return self._outer / max(self.count, 1) - np.outer(centre, centre)


def phi_s(mean: np.ndarray, covariance: np.ndarray) -> Standardiser:
    """The standardiser of features with this mean [d] and covariance [d, d].

    phi² is the mean eigenvalue. Raises StatisticsError where the features do not vary at all or are not finite.
    """
    if not np.isfinite(mean).all():
        raise StatisticsError(UNFIT)
    values, vectors = spectrum(covariance)
    rotation = equalise(np.maximum(values, 0)) @ vectors.T
    return Standardiser(mean.astype(np.float32), (np.sqrt(values.mean()) * rotation).astype(np.float32))


def spectrum(covariance: np.ndarray, *, constant: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [d], rising, and eigenvectors [d, d] by column; StatisticsError as `phi_s`. constant: whether what
    does not vary is no error."""
    if not np.isfinite(covariance).all():
        raise StatisticsError(UNFIT)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values.mean() <= 0 and not constant:
        raise StatisticsError("the training features are constant: nothing to learn (was the teacher loaded?)")
    return values, vectors


def equalise(values: np.ndarray) -> np.ndarray:
    """An orthogonal Q [d, d] with diag(Q diag(values) Qᵀ) constant, by d - 1 Givens rotations (Schur-Horn).

    Each rotation takes the smallest and the largest of the open diagonal entries and sets the smallest to the mean;
    the open entries stay uncorrelated, so their 2 x 2 blocks are diagonal throughout.
    """
    target, diagonal = values.mean(), np.asarray(values, dtype=np.float64).copy()
    rotation, open_entries = np.eye(len(diagonal)), list(range(len(diagonal)))
    while len(open_entries) > 1:
        low = min(open_entries, key=diagonal.__getitem__)
        high = max(open_entries, key=diagonal.__getitem__)
        spread = diagonal[high] - diagonal[low]
        sine = np.sqrt(np.clip((target - diagonal[low]) / spread, 0, 1)) if spread > 0 else 0.0
        pair = np.array([[np.sqrt(1 - sine**2), sine], [-sine, np.sqrt(1 - sine**2)]])
        rotation[[low, high]] = pair @ rotation[[low, high]]
        diagonal[high] += diagonal[low] - target
        diagonal[low] = target
        open_entries.remove(low)
    return rotation
