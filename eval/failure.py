"""Whether a student knows when it will fail: from what it noted in an episode to a probability of success."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eval.notebook import Noted

SIGNALS = ("mean confidence", "least confidence", "mean energy of each module", "mean and least trust", "views lost")
FIRST = 5
"""Decisions that are looked at: early enough to act on, and as many in a solved episode as in a failed one."""


def signals(one: Noted) -> np.ndarray:
    """What an episode's first decisions say, [s]; nothing of how long it took or how it ended."""
    few = slice(0, FIRST)
    trust = one.trust[few]
    return np.concatenate([
        [one.confidence[few].mean(), one.confidence[few].min()],
        one.energy[few].mean(axis=0),
        trust.mean(axis=0),
        [trust.min(), 1.0 - one.views[few].mean()],
    ])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Judge:
    """Logistic regression on standardised signals."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray  # [s + 1], the last the bias

    def __call__(self, notes: Sequence[Noted]) -> np.ndarray:
        """Probability of success, [n]."""
        x = (np.stack([signals(one) for one in notes]) - self.mean) / self.scale
        return 1 / (1 + np.exp(-(x @ self.weights[:-1] + self.weights[-1])))


def fit(notes: Sequence[Noted], *, ridge: float = 1.0, rounds: int = 50) -> Judge:
    """Newton's method on episodes of validation, with a ridge on the weights."""
    x, y = np.stack([signals(one) for one in notes]), np.array([float(one.success) for one in notes])
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    z = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], axis=1)
    weights, penalty = np.zeros(z.shape[1]), ridge * np.diag([1.0] * x.shape[1] + [1e-6])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(z @ weights, -30, 30)))
        hessian = (z * (p * (1 - p))[:, None]).T @ z + penalty
        weights = weights + np.linalg.solve(hessian, z.T @ (y - p) - penalty @ weights)
    return Judge(mean, scale, weights)


def auroc(score: np.ndarray, good: np.ndarray) -> float:
    """Chance that a good one scores above a bad one, ties half; 0.5 where there is only one kind."""
    ranks = np.empty(len(score))
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[group.reshape(-1)]
    wins, losses = int(good.sum()), int((~good).sum())
    if not wins or not losses:
        return 0.5
    return float((ranks[good].sum() - wins * (wins + 1) / 2) / (wins * losses))


def cut(score: np.ndarray, good: np.ndarray, *, coverage: float = 0.8) -> float:
    """Share by which the failure rate falls where only the best-scored `coverage` is attempted."""
    kept = np.argsort(-score, kind="stable")[: max(1, round(coverage * len(score)))]
    whole, rest = (~good).mean(), (~good[kept]).mean()
    return float(1 - rest / whole) if whole > 0 else 0.0
