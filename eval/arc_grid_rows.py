"""Rows of students on ARC's evaluation tasks: exact answers first, beside those who cannot think."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bridge import arc
from eval import arc_grids, report, statistics
from eval.arc_grids import Attempts, Query
from eval.statistics import Estimate

SHARE = 0.9
"""Of the probe's solved tasks: the user's bar."""
ENOUGH = 10
"""Tasks that the probe must solve for that bar to mean anything."""


@dataclasses.dataclass(frozen=True)
class Book:
    """One published set of tasks, and what every student (seed) of a name said of them."""

    dataset: str
    """As in row ids: arc1, arc2."""
    found: Sequence[Sequence[Attempts]]
    context: report.Context
    draws: int
    seed: int
    name: str = "student"
    note: str = ""
    """What a reader of its rows must know."""
    told_size: bool = False
    """Whether the true size was given."""

    def rows(self) -> list[report.Row]:
        """What these students reach; attempts beside the best of those who cannot think."""
        best = max(
            self._share(lambda one, s=said: right(s(one.query), one.query)) for said in arc_grids.TRIVIAL.values()
        )
        note = "; ".join(filter(None, (self.note, f"best trivial baseline: {best:.4f}")))
        made = [self._tasks(f"{self.name}.pass{tries}", lambda one, t=tries: one.solved(t), note) for tries in (1, 2)]
        if not self.told_size:
            made.append(self._tasks(f"{self.name}.size_accuracy", sized, self.note))
        return [*made, self._tasks(f"{self.name}.cell_accuracy", cells, self.note), *self.by_colour()]

    def trivial(self) -> list[report.Row]:
        """Those who cannot think, on the same queries."""
        made = []
        for name, said in arc_grids.TRIVIAL.items():
            made += [
                self._tasks(f"{name}.pass1", lambda one, s=said: right(s(one.query), one.query)),
                self._tasks(f"{name}.cell_accuracy", lambda one, s=said: overlap(s(one.query), one.query.answer)),
            ]
        return made

    def gain(self, other: "Book") -> list[report.Row]:
        """How much more of the same tasks these students solve than others, and of cells; intervals over tasks, and
        where both have as many seeds a t interval over those in the note."""
        scores = {"pass2": lambda one: one.solved(2), "cell_accuracy": cells}
        return [self._gain(other, what, score) for what, score in scores.items()]

    def _gain(self, other: "Book", what: str, score: Callable[[Attempts], float]) -> report.Row:
        mine, theirs = self.by_task(score), other.by_task(score)
        found = statistics.estimate(lambda w: w @ (mine - theirs) / w.sum(axis=1), self._weights(len(mine)))
        if not mine.any() and not theirs.any():
            found = Estimate(0.0, *nothing(len(mine)))
        seeds = "" if len(self.found) != len(other.found) or len(self.found) < 2 else self._by_seed(other, score)
        note = "; ".join(filter(None, (other.note, seeds)))
        name, unit = f"{self.name}_over_{other.name}.{what}", "of tasks, difference"
        return self._row(name, found, len(mine), unit=unit, note=note)

    def _by_seed(self, other: "Book", score: Callable[[Attempts], float]) -> str:
        """The difference of every seed, and Student's interval over them."""
        pairs = zip(self.found, other.found, strict=True)
        gaps = np.array(
            [float(np.mean(self.by_task(score, [mine]) - self.by_task(score, [theirs]))) for mine, theirs in pairs]
        )
        low, high = statistics.t_interval(gaps)
        return f"by seed: {', '.join(f'{gap:+.4f}' for gap in gaps)}; t over seeds {low:+.4f} .. {high:+.4f}"

    def share_of(self, probe: "Book") -> list[report.Row]:
        """What part of the probe's these students reach; empty where the probe solves nothing, or was not asked."""
        scores = {"pass2": (lambda one: one.solved(2), SHARE), "cell_accuracy": (cells, None)}
        return [self._share_of(probe, name, score, bar) for name, (score, bar) in scores.items()]

    def _share_of(self, probe: "Book", what: str, score: Callable[[Attempts], float], bar: float | None) -> report.Row:
        name, mine = f"{self.name}.share_of_probe_{what}", self.by_task(score)
        theirs = probe.by_task(score) if probe.found else np.zeros(0)
        note = f"the probe solves {(theirs > 0).sum()} of {len(theirs)}, these students {(mine > 0).sum()}"
        needs = "" if bar is None or (theirs > 0).sum() >= ENOUGH else f">= {ENOUGH} tasks that the probe solves"
        ratio = _ratio(mine, theirs, self._weights(len(mine))) if theirs.any() else None
        return report.Row(
            f"{self.dataset}.{name}.test", ratio and ratio.value, "of the probe's", self.context, n=len(mine),
            ci_low=ratio and ratio.low, ci_high=ratio and ratio.high, bar=bar, needs=needs,
            note=note if probe.found else probe.note,
        )  # fmt: skip

    def by_task(
        self, score: Callable[[Attempts], float], found: Sequence[Sequence[Attempts]] | None = None
    ) -> np.ndarray:
        """Mean over a task's queries and over students (all, or those given), [tasks] in the order of ids."""
        tasks = sorted({one.query.task.id for one in self.found[0]})
        place = {task: index for index, task in enumerate(tasks)}
        total, count = np.zeros(len(tasks)), np.zeros(len(tasks))
        for each in found or self.found:
            for one in each:
                total[place[one.query.task.id]] += float(score(one))
                count[place[one.query.task.id]] += 1
        return total / count

    def _tasks(self, name: str, score: Callable[[Attempts], float], note: str = "") -> report.Row:
        """Mean over tasks of the mean over a task's queries, its interval over tasks; students averaged."""
        values = self.by_task(score)
        found = statistics.estimate(lambda w: w @ values / w.sum(axis=1), self._weights(len(values)))
        if values.min() == values.max():
            found = Estimate(found.value, *statistics.wilson(found.value * len(values), len(values)))
        return self._row(name, found, len(values), note=note)

    def _weights(self, tasks: int) -> np.ndarray:
        return statistics.resamples(tasks, self.draws, np.random.default_rng(self.seed))

    def _row(self, name: str, found: Estimate, tasks: int, *, unit: str = "of tasks", note: str = "") -> report.Row:
        seeds = len(self.found) if len(self.found) > 1 else None
        return report.Row(
            f"{self.dataset}.{name}.test", found.value, unit, self.context, n=tasks, seeds=seeds, ci_low=found.low,
            ci_high=found.high, note=note,
        )  # fmt: skip

    def _share(self, score: Callable[[Attempts], float]) -> float:
        return float(np.mean([score(one) for one in self.found[0]]))

    def by_colour(self) -> list[report.Row]:
        """F1 of every colour over the cells of the right answers, where the first attempt has the right size."""
        hits, said, truth = np.zeros(10), np.zeros(10), np.zeros(10)
        for one in (one for each in self.found for one in each):
            answer = one.query.answer
            truth += np.bincount(answer.reshape(-1), minlength=10)
            if one.grids and one.grids[0].shape == answer.shape:
                said += np.bincount(one.grids[0].reshape(-1), minlength=10)
                hits += np.bincount(answer[one.grids[0] == answer], minlength=10)
        f1 = 2 * hits / np.maximum(said + truth, 1)
        return [
            report.Row(
                f"{self.dataset}.{self.name}.f1_colour_{colour}.test",
                float(value),
                "F1",
                self.context,
                n=int(truth[colour]),
                note="n: cells of that colour",
            )
            for colour, value in enumerate(f1)
        ]


def _ratio(mine: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> Estimate | None:
    """Of sums over tasks, its interval over resamples; None where some resample leaves nothing to divide by."""
    under = weights @ theirs
    if (under <= 0).any():
        return None
    return Estimate(float(mine.sum() / theirs.sum()), *statistics.interval(weights @ mine / under))


def nothing(tasks: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares of which both were nought (Newcombe's, from Wilson's)."""
    high = statistics.wilson(0, tasks)[1]
    return -high, high


def right(grid: np.ndarray, query: Query) -> bool:
    """Exactly."""
    return np.array_equal(grid, query.answer)


def sized(one: Attempts) -> bool:
    """Whether the first attempt has the right size."""
    return bool(one.grids) and one.grids[0].shape == one.query.answer.shape


def cells(one: Attempts) -> float:
    """Share of the answer's cells that the task as it is, unvoted, is told right."""
    return overlap(one.plain, one.query.answer)


def overlap(said: np.ndarray, answer: np.ndarray) -> float:
    """Share of the answer's cells that are right; those that are not told count as wrong."""
    canvas = np.full((arc.SIDE, arc.SIDE), arc.OUTSIDE, np.uint8)
    canvas[: said.shape[0], : said.shape[1]] = said
    return float((canvas[: answer.shape[0], : answer.shape[1]] == answer).mean())
