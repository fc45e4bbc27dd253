"""What a number is and how sure it is: R² from sums, weighted Spearman, bootstrap and Wilson intervals. Numpy only."""

import dataclasses
import math
import statistics
from collections.abc import Callable

import numpy as np
from scipy import special

Metric = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def r_squared(sse: np.ndarray, total: np.ndarray, square: np.ndarray, count: np.ndarray) -> np.ndarray:
    """1 - SSE / SST per channel, SST about the mean of the very values that are scored.

    Args: sums over the same values of the squared error, of the truth and of its square, each [..., c]; `count` [...].
    A channel on which the truth never moves scores 1 without any error and 0 with some (SST is 0 there).
    """
    count = np.asarray(count, np.float64)[..., None]
    sst = square - total**2 / count
    dead = sst <= 1e-12 * np.maximum(square, 1e-300)
    return np.where(dead, np.where(sse > 0, 0.0, 1.0), 1.0 - sse / np.where(dead, 1.0, sst))


def resamples(units: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each unit occurs in each bootstrap resample: float64 [draws, units], every row sums to `units`."""
    return rng.multinomial(units, np.full(units, 1.0 / units), size=draws).astype(np.float64)


def interval(samples: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap samples [draws]."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate(metric: Metric, weights: np.ndarray) -> Estimate:
    """`metric` maps unit weights [draws, units] to [draws]; the value counts every unit once."""
    value = float(metric(np.ones((1, weights.shape[1])))[0])
    return Estimate(value, *interval(metric(weights)))


def wilson(successes: float, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    share, scale = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


class Spearman:
    """Rank correlation of x and y [n] under any integer weights: sorted once, cheap for every bootstrap resample."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        if x.shape != y.shape or x.ndim != 1 or x.size < 2:
            raise ValueError(f"expected two vectors of one length >= 2, got {x.shape} and {y.shape}")
        self.groups = [np.unique(values, return_inverse=True)[1].reshape(-1) for values in (x, y)]

    def __call__(self, weights: np.ndarray | None = None) -> float:
        """Correlation of the mid-ranks, in [-1, 1]; 0 where one side never moves (no order to agree on)."""
        size = self.groups[0].size
        weights = np.ones(size) if weights is None else weights
        rank_x, rank_y = (self._ranks(group, weights) for group in self.groups)
        mean = (weights.sum() + 1) / 2
        rank_x, rank_y = rank_x - mean, rank_y - mean
        scale = math.sqrt(float(weights @ rank_x**2) * float(weights @ rank_y**2))
        return float(weights @ (rank_x * rank_y)) / scale if scale > 0 else 0.0

    @staticmethod
    def _ranks(group: np.ndarray, weights: np.ndarray) -> np.ndarray:
        mass = np.bincount(group, weights)
        return (np.cumsum(mass) - (mass - 1) / 2)[group]


def calibration(predicted: np.ndarray, true: np.ndarray, *, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean predicted and mean true value in `bins` groups of equal size by prediction: two arrays [<= bins]."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return np.array([predicted[part].mean() for part in parts]), np.array([true[part].mean() for part in parts])


def calibration_error(predicted: np.ndarray, true: np.ndarray, *, bins: int = 10) -> float:
    """Mean distance between predicted and true over groups of equal size (expected calibration error)."""
    means = calibration(predicted, true, bins=bins)
    return float(np.abs(means[0] - means[1]).mean())


def median_interval(samples: np.ndarray, rng: np.random.Generator, *, quantile: float = 0.5) -> Estimate:
    """A quantile of timings [n] with its bootstrap interval."""
    draws = rng.integers(0, samples.size, size=(1000, samples.size))
    return Estimate(float(np.quantile(samples, quantile)), *interval(np.quantile(samples[draws], quantile, axis=1)))


def ratio_interval(over: np.ndarray, under: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Ratio of two medians, each resampled on its own."""
    top, bottom = (
        np.median(values[rng.integers(0, values.size, size=(1000, values.size))], axis=1) for values in (over, under)
    )
    return Estimate(float(np.median(over) / np.median(under)), *interval(top / bottom))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of so many wins and losses if both were equally likely, ties left out: McNemar's exact test
    (doi:10.1007/BF02295996) where each pair is two yes-or-no outcomes."""
    if wins < 0 or losses < 0:
        raise ValueError(f"expected counts, got {wins} wins and {losses} losses")
    pairs = wins + losses
    tail = sum(math.comb(pairs, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**pairs)


def paired_t(differences: np.ndarray) -> float:
    """Two-sided p of a mean of differences [n >= 2] if there were none: Student's t over the pairs; NaN is no p, so
    differences that are all alike give 0, or 1 where they are nought."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"expected at least two differences, got {count}")
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if spread == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * special.stdtr(count - 1, -abs(mean) / spread * math.sqrt(count)))


def t_interval(differences: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of differences [n >= 2]: what a bootstrap over few of them is too narrow for."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"expected at least two differences, got {count}")
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = float(special.stdtrit(count - 1, 0.5 + level / 2)) * spread / math.sqrt(count)
    return mean - half, mean + half
