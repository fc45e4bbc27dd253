"""Success of several policies on the same goals: means, ratios and differences with intervals that know the pairing."""

from collections.abc import Sequence

import numpy as np

from eval import statistics
from eval.statistics import Estimate

Success = np.ndarray  # bool [s, t, n]: student seeds, tasks, goals


class Pairing:
    """Bootstrap over goals within each task, the same for every policy, and over student seeds where there are several.

    Policies with equally many seeds are resampled alike: give them in one order.
    """

    def __init__(self, tasks: int, goals: int, *, draws: int, seed: int):
        rng = np.random.default_rng(seed)
        self.draws, self._seed = draws, seed
        self._goals = rng.multinomial(goals, np.full(goals, 1 / goals), size=(draws, tasks)) / goals

    def samples(self, success: Success) -> np.ndarray:
        """Mean success per task in every resample, [draws, t]."""
        count = len(success)
        rng = np.random.default_rng([self._seed, count])
        seeds = rng.multinomial(count, np.full(count, 1 / count), size=self.draws) / count
        return np.einsum("ds,dst->dt", seeds, np.einsum("stn,dtn->dst", success.astype(np.float64), self._goals))

    def mean(self, success: Success, chosen: Sequence[int]) -> Estimate:
        """Over the chosen tasks; Wilson's interval where the bootstrap has nothing to vary (all or none solved)."""
        part = success[:, chosen]
        if part.all() or not part.any():
            return Estimate(float(part.mean()), *statistics.wilson(int(part[0].sum()), part[0].size))
        return Estimate(float(part.mean()), *statistics.interval(self.samples(success)[:, chosen].mean(axis=1)))

    def ratio(self, over: Success, under: Success, chosen: Sequence[int]) -> Estimate | None:
        """Mean success over mean success; None where the lower one may be zero."""
        top, bottom = (self.samples(part)[:, chosen].mean(axis=1) for part in (over, under))
        if not bottom.all() or not under[:, chosen].any():
            return None
        value = over[:, chosen].mean() / under[:, chosen].mean()
        return Estimate(float(value), *statistics.interval(top / bottom))

    def difference(self, one: Success, other: Success, chosen: Sequence[int]) -> Estimate:
        """Mean success less mean success, in percentage points."""
        samples = (self.samples(one) - self.samples(other))[:, chosen].mean(axis=1)
        value = one[:, chosen].mean() - other[:, chosen].mean()
        low, high = statistics.interval(samples)
        return Estimate(100 * float(value), 100 * low, 100 * high)


def sign(one: Success, other: Success, chosen: Sequence[int]) -> tuple[float, int, int]:
    """(p, wins, losses) over (task, goal) pairs, each policy's success averaged over its seeds first."""
    gap = one[:, chosen].mean(axis=0) - other[:, chosen].mean(axis=0)
    wins, losses = int((gap > 1e-9).sum()), int((gap < -1e-9).sum())
    return statistics.sign_test(wins, losses), wins, losses
