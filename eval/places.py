"""Where a student says that the task's objects are, against simulator truth: errors in pixels, and a guess to beat."""

import dataclasses

import numpy as np

TRUTH = "from simulator truth, never an input"


@dataclasses.dataclass(frozen=True)
class Places:
    """Row and column in [0, 1] of every object in every view; a label beyond that (or NaN) is out of sight."""

    told: np.ndarray  # float32 [n, v, o, 2]
    truth: np.ndarray  # float32 [n, v, o, 2]
    episode: np.ndarray  # int [n], as the weights count
    size: tuple[int, int]  # height and width of a view in pixels

    @property
    def errors(self) -> np.ndarray:
        """Distance in pixels [n, v, o], NaN where the object is out of sight."""
        miss = np.linalg.norm((self.told - self.truth).astype(np.float64) * self.size, axis=-1)
        return np.where(in_sight(self.truth), miss, np.nan)

    def count(self, view: int) -> int:
        """Labels in sight of a view."""
        return int(in_sight(self.truth[:, view]).sum())

    def median(self, view: int, weights: np.ndarray) -> np.ndarray:
        """Median error of a view in pixels, episodes counting as often as `weights` [draws, u] says: [draws]."""
        errors, episode = (
            self.errors[:, view],
            np.broadcast_to(self.episode[:, None], self.truth.shape[:1] + self.truth.shape[2:3]),
        )
        known = ~np.isnan(errors)
        order = np.argsort(errors[known], kind="stable")
        errors, episode = errors[known][order], episode[known][order]
        return np.array([_median(errors, row[episode]) for row in weights])

    def by_object(self, view: int) -> list[float | None]:
        """Median error of each object; None where it is never in sight."""
        parts = [one[~np.isnan(one)] for one in self.errors[:, view].T]
        return [float(np.median(part)) if part.size else None for part in parts]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, from which anyone can score again."""
        return {f"places_{name}": np.asarray(value) for name, value in vars(self).items()}


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """Of sorted values, each as often as it weighs."""
    mass = np.cumsum(weights)
    at = [np.searchsorted(mass, mass[-1] / 2, side) for side in ("left", "right")]
    return float(values[np.minimum(at, len(values) - 1)].mean())


def in_sight(truth: np.ndarray) -> np.ndarray:
    """Whether labels [..., 2] lie within their view: [...]."""
    return ((truth > 0) & (truth < 1)).all(axis=-1)


def mean_position(truth: np.ndarray) -> np.ndarray:
    """The mean of labels [n, v, o, 2] in sight, [v, o, 2]; the middle where an object never is."""
    seen = in_sight(truth)[..., None]
    total = np.where(seen, truth, 0).sum(axis=0, dtype=np.float64)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), 0.5).astype(np.float32)
