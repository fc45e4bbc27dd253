"""Rows of the families suite: exact answers, by family, with wrong demonstrations, of rules never met, of the
trivial."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bridge import families
from eval import puzzles, report, statistics
from eval.puzzles import Outcome
from eval.statistics import Estimate

BARS = {"families": 10, "family": 0.90, "other_family": 0.05, "other_episode": 0.25}
STRETCH = 12
ENOUGH = 200
"""Queries of a family that bars are defined on."""


@dataclasses.dataclass(frozen=True)
class Results:
    """Outcomes of every student (seeds) by condition; `held_out` of families never trained."""

    found: Mapping[str, Sequence[Sequence[Outcome]]]
    """Condition -> per student, per family."""
    held_out: Sequence[Sequence[Outcome]]
    dial: Sequence[Sequence[puzzles.Spent]] = ()
    """Per student, per budget."""
    most: int = families.MOST
    """Cells of a side at most; bars are defined on the smallest puzzles alone."""


def suite(most: int) -> str:
    """As in row ids: puzzles of another size are another suite."""
    return "families" if most == families.MOST else f"families_{most}"


def rows(results: Results, context: report.Context) -> list[report.Row]:
    """Every row, those with a bar first."""
    book = _Book(results, context)
    return [*book.headline(), *book.controls(), *book.by_family(), *book.steps(), *book.dial(), *book.trivial()]


class _Book:
    def __init__(self, results: Results, context: report.Context):
        self.results, self.context = results, context
        self.normal = results.found["normal"]
        self.count = len(self.normal[0][0].asked.frames)
        self.needs = "" if self.count >= ENOUGH else f">= {ENOUGH} queries of a family"

    def row(self, name: str, value: Estimate | float, unit: str, **fields) -> report.Row:
        span = {"ci_low": value.low, "ci_high": value.high} if isinstance(value, Estimate) else {}
        seeds = len(self.normal) if len(self.normal) > 1 else None
        number = value.value if isinstance(value, Estimate) else float(value)
        fields.setdefault("n", self.count)
        if self.results.most != families.MOST:
            fields |= {"bar": None, "stretch": None}
        if fields.get("bar") is not None:
            fields.setdefault("needs", self.needs)
        return report.Row(
            f"{suite(self.results.most)}.{name}.test", number, unit, self.context, seeds=seeds, **span, **fields
        )

    def headline(self) -> list[report.Row]:
        """How many of the sixteen are learned."""
        rates = np.array([[one.exact[-1].mean() for one in each] for each in self.normal])  # [s, f]
        learned = (rates >= BARS["family"]).sum(axis=1)
        note = f"of {rates.shape[1]}; by student: {', '.join(map(str, learned))}; learned: >= 90 % exact"
        singles = {"seed_low": float(learned.min()), "seed_high": float(learned.max())} if len(learned) > 1 else {}
        return [
            self.row("student.learned", float(learned.mean()), "families", bar=BARS["families"], stretch=STRETCH,
                     note=note, **singles),
            self.row("student.exact", share(self.normal), "of queries", n=self.count * rates.shape[1]),
            self.row("student.exact_held_out", share(self.results.held_out), "of queries",
                     n=self.count * len(self.results.held_out[0]), note="families never trained"),
        ]  # fmt: skip

    def controls(self) -> list[report.Row]:
        """With demonstrations that belong to something else: right answers would mean that they were not read."""
        other = self.results.found["other_episode"]
        parametric = [[one for one in each if families.find(one.asked.family).parametric] for each in other]
        others = self.results.found["other_family"]
        worst = max(rate(each) for each in zip(*parametric, strict=True))
        return [
            self.row("student.exact_other_family", share(others), "of queries", better="lower",
                     bar=BARS["other_family"], n=self.count * len(others[0]), note="another family's demonstrations"),
            self.row("student.exact_other_episode", worst, "of queries", better="lower", bar=BARS["other_episode"],
                     note="another episode's demonstrations, the worst parametric family"),
            self.row("student.exact_other_episode_mean", share(parametric), "of queries", better="lower",
                     n=self.count * len(parametric[0])),
        ]  # fmt: skip

    def by_family(self) -> list[report.Row]:
        """Each family, with Wilson's interval over its queries."""
        made = []
        for part, kind in ((self.normal, ""), (self.results.held_out, "never trained")):
            for each in zip(*part, strict=True):
                note = kind or ("rule drawn anew" if families.find(each[0].asked.family).parametric else "")
                found = share([[one] for one in each])
                made.append(self.row(f"student.exact.{each[0].asked.family}", found, "of queries", note=note))
        return made

    def steps(self) -> list[report.Row]:
        """Whether refinement pays; sizes and cells."""
        steps = len(self.normal[0][0].exact)
        n = self.count * len(self.normal[0])
        made = [
            self.row(f"student.exact_step_{k}", share(self.normal, step=k), "of queries", n=n) for k in range(steps)
        ]
        size, cells = (
            float(np.mean([getattr(one, name).mean() for each in self.normal for one in each]))
            for name in ("size", "cells")
        )
        return [
            *made,
            self.row("student.size_accuracy", size, "of queries", n=n),
            self.row("student.cell_accuracy", cells, "of cells", n=n, note="inside the true grid"),
        ]

    def dial(self) -> list[report.Row]:
        """Exact answers by budget."""
        made = []
        for each in zip(*self.results.dial, strict=True):
            found, n = float(np.mean([one.exact.mean() for one in each])), len(each[0].exact)
            name, spent = f"student.exact_atp_{100 * each[0].share:.0f}", np.mean([one.atp.mean() for one in each])
            note = f"{spent:.2f} ATP spent of {each[0].share:.0%} of all steps'"
            estimate = Estimate(found, *statistics.wilson(found * n, n))
            made.append(self.row(name, estimate, "of queries", n=n, note=note))
        return made

    def trivial(self) -> list[report.Row]:
        """Copy, nearest demonstration, nothing."""
        made = []
        for name, said in puzzles.TRIVIAL.items():
            found = [puzzles.judge(one.asked, said(one.asked)[None], np.zeros(1)) for one in self.normal[0]]
            made.append(self.row(f"{name}.exact", share([found]), "of queries", n=self.count * len(found)))
        return made


def share(found: Sequence[Sequence[Outcome]], *, step: int = -1) -> Estimate:
    """Exact answers of all, with Wilson's interval over queries: a query counts once however many students met it."""
    mean = float(np.mean([one.exact[step].mean() for each in found for one in each]))
    queries = sum(one.exact.shape[1] for one in found[0])
    return Estimate(mean, *statistics.wilson(mean * queries, queries))


def rate(each: Sequence[Outcome]) -> float:
    """Mean over the students of one family."""
    return float(np.mean([one.exact[-1].mean() for one in each]))
