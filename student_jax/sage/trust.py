"""Trust, kept by the host: how often what a module implied came true. No labels, and never by the module's own word.

numpy alone: it runs beside the compiled program, between one decision and the next.
"""

import dataclasses

import numpy as np

FLOOR, STARVED = 0.05, 0.15
"""Trust never falls below the first; a module below the second is starved (SAGE_IRP.md, section 2)."""
DECAY = 0.9
LEAST = 1e-12
"""Of a limit of surprise: where validation held none at all, any is too much, and 0 over 0 is none."""
STRENGTH = 2.0
"""Decisions that the prior is worth: one surprise at the start of an episode is not yet a lost camera, two are."""


class Posterior:
    """The mean of a Beta posterior of "outcome acceptable" for each of m modules; counts decay by DECAY a decision."""

    def __init__(self, prior: np.ndarray):
        """prior: [m], the share of acceptable outcomes on validation episodes, kept with the student."""
        self.prior = np.asarray(prior, np.float64)
        self.good, self.bad = np.zeros_like(self.prior), np.zeros_like(self.prior)

    @property
    def trust(self) -> np.ndarray:
        """float32 [m] in [FLOOR, 1]; the prior before anything was observed, and again long after."""
        mean = (STRENGTH * self.prior + self.good) / (STRENGTH + self.good + self.bad)
        return np.maximum(mean, FLOOR).astype(np.float32)

    def observe(self, outcomes: np.ndarray) -> None:
        """One decision later. outcomes: [m], 1 acceptable, 0 not, NaN unknown; unknown ones count for neither."""
        known = np.isfinite(outcomes)
        won = np.where(known, outcomes, 0.0)
        self.good = DECAY * self.good + won
        self.bad = DECAY * self.bad + np.where(known, 1.0 - won, 0.0)


@dataclasses.dataclass(frozen=True)
class Posture:
    """What trust means for acting."""

    confidence: float
    """Mean trust."""
    asymmetry: float
    """Largest less smallest."""
    starved: tuple[str, ...]
    """Modules below STARVED: what rests on one of them alone is held back."""

    @classmethod
    def of(cls, trust: dict[str, float]) -> "Posture":
        values = list(trust.values())
        starved = tuple(name for name, value in trust.items() if value < STARVED)
        return cls(float(np.mean(values)), float(max(values) - min(values)), starved)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A ridge prediction y = [x, 1] W and the mean squared residual, in units of its own usual size."""

    weights: np.ndarray  # [i + 1, o]
    scale: np.ndarray  # [o], standard deviation of the residual
    limit: float
    """95th percentile of `surprise` on validation."""

    def surprise(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[n] for x [n, i] and y [n, o]."""
        miss = y - (x @ self.weights[:-1] + self.weights[-1])
        return np.square(miss / self.scale).mean(axis=-1)

    def excess(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`surprise` over its limit, [n]."""
        return self.surprise(x, y) / self.limit


def fit(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], *, ridge: float = 1e-3
) -> Linear:
    """Ridge regression on (x, y) of the training split, its limit from validation."""
    x, y = (np.asarray(part, np.float64) for part in train)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    z = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], axis=1)
    penalty = ridge * len(x) * np.diag([1.0] * x.shape[1] + [0.0])
    solved = np.linalg.solve(z.T @ z + penalty, z.T @ y)
    weights = np.concatenate([solved[:-1] / spread[:, None], solved[-1:] - (mean / spread) @ solved[:-1]])
    scale = (y - z @ solved).std(axis=0) + 1e-6
    made = Linear(weights, scale, np.inf)
    return dataclasses.replace(made, limit=max(float(np.quantile(made.surprise(*validation), 0.95)), LEAST))


@dataclasses.dataclass(frozen=True)
class Witness:
    """What tells without labels whether modules did well: fitted once, kept with the student."""

    cameras: tuple[Linear, ...]
    """Per view, the next decision's embedding from this one's and both states."""
    usual: tuple[Linear, ...]
    """Per view, the embedding from the state alone: whether it is like any that was seen there."""
    body: Linear
    """The change of the state from the state and the executed actions."""
    paraphrase: float
    """Largest acceptable mean squared distance between the actions for an instruction and for its paraphrase."""
    prior: np.ndarray
    """[m], share of acceptable outcomes on validation, per module."""
    margin: float = 1.0
    """95th percentile on validation of the largest `strangeness` of all views, so that one test among many that is a
    little over its own limit is no alarm."""

    def seen(self, before: np.ndarray, now: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Which views showed what was to be expected, bool [n, v]. before, now: [n, v, d]; states [n, 2, s] of both."""
        return self.strangeness(before, now, states) <= self.margin

    def strangeness(self, before: np.ndarray, now: np.ndarray, states: np.ndarray) -> np.ndarray:
        """[n, v]: how far a view is beyond what was likely from the last decision, or usual at all, whichever is
        more; 1 at the limit of either."""
        moved = states.reshape(len(states), -1)
        found = []
        for view, (camera, usual) in enumerate(zip(self.cameras, self.usual, strict=True)):
            ahead = camera.excess(np.concatenate([before[:, view], moved], axis=1), now[:, view])
            found.append(np.maximum(ahead, usual.excess(states[:, 1], now[:, view])))
        return np.stack(found, axis=1)

    def moved(self, states: np.ndarray, executed: np.ndarray) -> np.ndarray:
        """Whether the state changed as the executed actions [n, e, a] imply, bool [n]. states [n, 2, s]."""
        x = np.concatenate([states[:, 0], executed.reshape(len(executed), -1)], axis=1)
        return self.body.excess(x, states[:, 1] - states[:, 0]) <= 1.0
