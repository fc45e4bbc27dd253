"""What a student must beat: the mean token of each position, and ridge regression from a token's own pixels."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from eval import statistics
from eval.layout import Layout

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]  # frames uint8 [b, h, w, 3] and their tokens [b, n, d]
STRENGTHS = np.logspace(-6, 2, 17)  # of the mean eigenvalue


class PositionMean:
    """The training split's mean token and mean attention at each position."""

    def __init__(self):
        self.frames = 0
        self._tokens: np.ndarray | float = 0.0
        self._attention: np.ndarray | float = 0.0

    def add(self, tokens: np.ndarray, attention: np.ndarray) -> None:
        """Take in training frames: tokens [b, n, d], attention [b, tiles, n / tiles]."""
        self.frames += len(tokens)
        self._tokens = self._tokens + tokens.sum(0, dtype=np.float64)
        self._attention = self._attention + attention.sum(0, dtype=np.float64)

    def predict(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [frames, n, d] and attention [frames, tiles, n / tiles]: the same for every frame."""
        means = (np.asarray(total) / self.frames for total in (self._tokens, self._attention))
        tokens, attention = (np.broadcast_to(mean, (frames, *mean.shape)) for mean in means)
        return tokens, attention


class Products:
    """Sums of x xᵀ, x yᵀ and y² about given position means, in float64, while frames stream by."""

    def __init__(self, mean_x: np.ndarray, mean_y: np.ndarray):
        self.mean_x, self.mean_y = mean_x, mean_y
        self.xx = np.zeros((mean_x.shape[-1],) * 2)
        self.xy = np.zeros((mean_x.shape[-1], mean_y.shape[-1]))
        self.y, self.yy, self.count = np.zeros(mean_y.shape[-1]), np.zeros(mean_y.shape[-1]), 0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in x [b, n, f] and y [b, n, d]."""
        x = (x - self.mean_x).astype(np.float32).reshape(-1, x.shape[-1])
        y = (y - self.mean_y).astype(np.float32).reshape(-1, y.shape[-1])
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.y += y.sum(0, dtype=np.float64)
        self.yy += np.einsum("nd,nd->d", y, y, dtype=np.float64)
        self.count += len(x)

    def r2_mean(self, weights: np.ndarray) -> float:
        """Mean over channels of the R² of these values under x @ weights, SST about the position means."""
        sse = self.yy - 2 * (weights * self.xy).sum(0) + (weights * (self.xx @ weights)).sum(0)
        return float(statistics.r_squared(np.maximum(sse, 0), np.zeros_like(self.y), self.yy, self.count).mean())


@dataclasses.dataclass(frozen=True)
class Ridge:
    """token = position mean + (pixels - position mean of the pixels) @ weights: no weight on which task it is."""

    layout: Layout
    mean_x: np.ndarray  # [n, f]
    mean_y: np.ndarray  # [n, d]
    weights: np.ndarray  # [f, d]
    strength: float

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [b, h, w, 3] -> tokens float32 [b, n, d]."""
        x = (self.layout.patches(frames) - self.mean_x).astype(np.float32)
        return np.einsum("bnf,fd->bnd", x, self.weights, optimize=True) + self.mean_y.astype(np.float32)


def fit_ridge(
    layout: Layout,
    train: Callable[[], Pairs],
    validation: Callable[[], Pairs],
) -> Ridge:
    """Fit on the training split, choose the strength on validation: each a function that starts reading it anew."""
    mean_x, mean_y = _means(layout, train())
    fitted, judged = (_products(layout, split(), mean_x, mean_y) for split in (train, validation))
    values, vectors = np.linalg.eigh(fitted.xx)
    projected = vectors.T @ fitted.xy
    scale = max(float(values.mean()), 1e-12)
    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        weights = vectors @ (projected / (np.maximum(values, 0) + strength * scale)[:, None])
        score = judged.r2_mean(weights)
        if best is None or score > best[0]:
            best = (score, weights, float(strength))
    return Ridge(layout, mean_x, mean_y, best[1].astype(np.float32), best[2])


def _means(layout: Layout, split: Pairs) -> tuple[np.ndarray, np.ndarray]:
    total_x, total_y, count = 0.0, 0.0, 0
    for frames, tokens in split:
        total_x = total_x + layout.patches(frames).sum(0, dtype=np.float64)
        total_y = total_y + tokens.sum(0, dtype=np.float64)
        count += len(frames)
    if count == 0:
        raise ValueError("the ridge baseline got no training frame: extract the store with --split train")
    return total_x / count, total_y / count


def _products(layout: Layout, split: Pairs, mean_x: np.ndarray, mean_y: np.ndarray) -> Products:
    products = Products(mean_x, mean_y)
    for frames, tokens in split:
        products.add(layout.patches(frames), tokens)
    return products
