"""Rows of students on ARC's evaluation tasks: exact answers first, beside those who cannot think."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bridge import arc
from eval import arc_grids, report, statistics
from eval.arc_grids import Attempts, Query
from eval.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Book:
    """One published set of tasks, and what every student (seed) said of them."""

    dataset: str
    """As in row ids: arc1, arc2."""
    found: Sequence[Sequence[Attempts]]
    context: report.Context
    draws: int
    seed: int

    def rows(self) -> list[report.Row]:
        """Every row."""
        made = [self._tasks(f"student.pass{tries}", lambda one, t=tries: one.solved(t)) for tries in (1, 2)]
        best = max(
            self._share(lambda one, s=said: right(s(one.query), one.query)) for said in arc_grids.TRIVIAL.values()
        )
        made = [dataclasses.replace(row, note=f"best trivial baseline: {best:.4f}") for row in made]
        made += [
            self._tasks(f"{name}.pass1", lambda one, s=said: right(s(one.query), one.query))
            for name, said in arc_grids.TRIVIAL.items()
        ]
        made += [
            self._tasks(
                "student.size_accuracy", lambda one: bool(one.grids) and one.grids[0].shape == one.query.answer.shape
            ),
            self._tasks("student.cell_accuracy", cells),
        ]
        return [*made, *self.by_colour()]

    def _tasks(self, name: str, score: Callable[[Attempts], float]) -> report.Row:
        """Mean over tasks of the mean over a task's queries, its interval over tasks; students averaged."""
        tasks = sorted({one.query.task.id for one in self.found[0]})
        place = {task: index for index, task in enumerate(tasks)}
        total, count = np.zeros(len(tasks)), np.zeros(len(tasks))
        for each in self.found:
            for one in each:
                total[place[one.query.task.id]] += float(score(one))
                count[place[one.query.task.id]] += 1
        values = total / count
        weights = statistics.resamples(len(tasks), self.draws, np.random.default_rng(self.seed))
        found = statistics.estimate(lambda w: w @ values / w.sum(axis=1), weights)
        if values.min() == values.max():
            found = Estimate(found.value, *statistics.wilson(found.value * len(tasks), len(tasks)))
        seeds = len(self.found) if len(self.found) > 1 else None
        return report.Row(
            f"{self.dataset}.{name}.test", found.value, "of tasks", self.context, n=len(tasks), seeds=seeds,
            ci_low=found.low, ci_high=found.high,
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
            report.Row(f"{self.dataset}.student.f1_colour_{colour}.test", float(value), "F1", self.context)
            for colour, value in enumerate(f1)
        ]


def right(grid: np.ndarray, query: Query) -> bool:
    """Exactly."""
    return np.array_equal(grid, query.answer)


def cells(one: Attempts) -> float:
    """Share of the answer's cells that the task as it is, unvoted, is told right; what lies beyond the canvas counts as
    wrong."""
    answer = one.query.answer
    canvas = np.full((arc.SIDE, arc.SIDE), arc.OUTSIDE, np.uint8)
    canvas[: one.plain.shape[0], : one.plain.shape[1]] = one.plain
    return float((canvas[: answer.shape[0], : answer.shape[1]] == answer).mean())
