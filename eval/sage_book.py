"""What the sage suite found, and how its rows are written: means over students, intervals over episodes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eval import economy, pairing, report, statistics, wall
from eval.notebook import Noted
from eval.pairing import Success
from eval.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """All successes bool [s, t, n] and all noted decisions by (policy, condition, split)."""

    tasks: tuple[str, ...]
    episodes: int
    split: str
    """That is reported."""
    found: Mapping[tuple[str, str, str], Success | None]
    notes: Mapping[tuple[str, str, str], Sequence[Noted]]


@dataclasses.dataclass(frozen=True)
class Offline:
    """One student against the store."""

    spent: economy.Economy
    prior: np.ndarray
    """[1, f, k], the teacher's mean map on the training split."""
    chance: float
    """Overlap of an untrained H-module."""
    violations: int
    budgets: int
    """Random budgets that were tried for those."""
    before: Mapping[int, economy.Spent]
    """The student that it was built on, without an H-module, by steps of every module."""
    prices: dict[str, float]
    """ATP of a step of each module."""


class Book:
    """Writes the rows; everything is averaged over the students, intervals are over episodes."""

    def __init__(
        self,
        outcomes: Outcomes,
        offline: Sequence[Offline],
        timed: Sequence[wall.Wall],
        context: report.Context,
        *,
        draws: int,
        seed: int,
    ):
        self.outcomes, self.offline, self.timed, self.context, self.seed = outcomes, offline, timed, context, seed
        self.pairing = pairing.Pairing(len(outcomes.tasks), outcomes.episodes, draws=draws, seed=seed)
        episode = offline[0].spent.episode
        self.episode, units = episode, int(episode.max()) + 1
        self.weights = statistics.resamples(units, draws, np.random.default_rng(seed))
        self.draws = draws
        few = len(outcomes.tasks) < 8 or outcomes.episodes < 50
        self.enough = ">= 50 episodes a task over >= 8 tasks" if few else ""

    def row(self, name: str, found: Estimate | None, unit: str, *, n: int | None = None, **fields) -> report.Row:
        """One row."""
        span = {} if found is None else {"ci_low": found.low, "ci_high": found.high}
        seeds = len(self.offline) if len(self.offline) > 1 else None
        value = None if found is None else found.value
        return report.Row(
            f"sage.{name}.{self.outcomes.split}", value, unit, self.context, n=n, seeds=seeds, **span, **fields
        )

    def plain(self, name: str, value: float, unit: str, **fields) -> report.Row:
        """A row whose value has no interval."""
        row = self.row(name, Estimate(value, value, value), unit, **fields)
        return dataclasses.replace(row, ci_low=None, ci_high=None)

    def success(self, policy: str, condition: str = "normal") -> Success | None:
        return self.outcomes.found.get((policy, condition, self.outcomes.split))

    def notes(self, policy: str, condition: str = "normal", split: str = "") -> Sequence[Noted]:
        """split: that is reported, unless it is another."""
        return self.outcomes.notes.get((policy, condition, split or self.outcomes.split), ())

    def mean(self, values: np.ndarray) -> Estimate:
        """Mean of [n] over observations, its interval over episodes."""
        units = self.weights.shape[1]
        total = np.bincount(self.episode, values, minlength=units)
        count = np.bincount(self.episode, minlength=units)
        return statistics.estimate(lambda w: (w @ total) / (w @ count), self.weights)

    def over(self, units: int, metric: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """An estimate over so many noted episodes."""
        return statistics.estimate(metric, statistics.resamples(units, self.draws, np.random.default_rng(self.seed)))
