"""Rows of the sage suite about compute: what thinking less costs and saves, the dial, what each part is good for."""

import itertools
from collections.abc import Callable

import numpy as np

from bridge import conditions
from eval import economy, report, wall
from eval.sage_book import Book
from eval.statistics import Estimate

BARS = {"steps": 0.40, "wall": 0.25, "lost_low": -3.0, "lost": -0.5}
ENOUGH = 1200
"""Episodes that non-inferiority is defined on."""


def rows(book: Book) -> list[report.Row]:
    """Every row about compute."""
    return [row for part in (thrift, dial, ablations) for row in part(book)]


def thrift(book: Book) -> list[report.Row]:
    """Refinement compute and wall time saved, and the success that it costs."""
    notes, full = book.notes("sage"), book.offline[0].spent.full
    spent = np.array([one.atp.sum() for one in notes])
    count = np.array([len(one.atp) for one in notes])
    saved = book.over(len(notes), lambda w: 1 - (w @ spent) / (w @ count) / full)
    seconds = {lane: np.concatenate([one.seconds[lane] for one in book.timed]) for lane in book.timed[0].seconds}
    clock = wall.Wall(seconds)
    note = f"of {full:.2f} ATP that all refinement steps cost; decisions in the simulator"
    milliseconds = ", ".join(f"{lane} {1000 * np.median(part):.2f} ms" for lane, part in seconds.items())
    return [
        book.row("student.steps_saved", saved, "of refinement ATP", n=len(notes), bar=BARS["steps"], note=note),
        book.row("student.wall_saved", clock.saved("own", "full", book.seed), "of a decision",
                 n=len(seconds["own"]), bar=BARS["wall"], note=f"batch 1, p50: {milliseconds}"),
        *_lost(book),
        *_steps(book),
    ]  # fmt: skip


def _steps(book: Book) -> list[report.Row]:
    """Milliseconds of a refinement step of each module, beside its price."""
    prices = book.offline[0].prices
    found = {name: np.mean([one.step[name] for one in book.timed]) for name in book.timed[0].step}
    return [
        book.plain(f"{name}.step", float(value), "ms", better="lower", note=f"{prices[name]:.2f} ATP; batch 1")
        for name, value in found.items()
    ]


def _lost(book: Book) -> list[report.Row]:
    one, full = book.success("sage"), book.success("sage_full")
    everything = range(len(book.outcomes.tasks))
    lost = book.pairing.difference(one, full, everything)
    enough = f"{ENOUGH} episodes" if one.size < ENOUGH else ""
    worst = Estimate(lost.low, lost.low, lost.high)
    note = f"{100 * one.mean():.1f} % against {100 * full.mean():.1f} % with all steps"
    fields = {"n": int(one[0].size), "needs": enough}
    return [
        book.row("student.over_all_steps", lost, "points", bar=BARS["lost"], note=note, **fields),
        book.row("student.over_all_steps_low", worst, "points", bar=BARS["lost_low"],
                 note="lower end of its 95 % interval", **fields),
    ]  # fmt: skip


def dial(book: Book) -> list[report.Row]:
    """Quality at several budgets, against fixed depth at equal cost, and overdrafts."""
    first = book.offline[0].spent
    broken, tried = sum(one.violations for one in book.offline), sum(one.budgets for one in book.offline)
    rows = [
        book.plain("student.violations", float(broken), "of budgets", n=tried, bar=0.0, better="lower",
                   note="random budgets and no rounding in the account"),
        book.row("student.dial_wrong_way", _wrong_way(book), "normalised²", n=len(book.episode), bar=0.0,
                 better="lower", note="lower end of the largest rise of the action error at a larger budget"),
    ]  # fmt: skip
    for depth in first.depths:
        rows.append(_equal(book, depth))
    for share in first.budgets:
        rows.append(_curve(book, f"budget_{round(100 * share):03d}", lambda one, s=share: one.budgets[s]))
    for depth in first.depths:
        rows.append(_curve(book, f"depth_{depth}", lambda one, d=depth: one.depths[d]))
    return rows


def _curve(book: Book, name: str, pick: Callable[[economy.Economy], economy.Spent]) -> report.Row:
    parts = [pick(one.spent) for one in book.offline]
    atp = np.mean([part.atp.mean() for part in parts])
    error = book.mean(np.mean([part.error for part in parts], axis=0))
    note = f"action error at {atp:.2f} ATP of refinement"
    return book.row(f"student.error_{name}", error, "normalised²", n=len(book.episode), better="lower", note=note)


def _wrong_way(book: Book) -> Estimate:
    """The largest rise of the error from one budget to the next larger, by the lower end of its interval."""
    shares = sorted(book.offline[0].spent.budgets)
    rises = [
        book.mean(np.mean([one.spent.budgets[b].error - one.spent.budgets[a].error for one in book.offline], axis=0))
        for a, b in itertools.pairwise(shares)
    ]
    worst = max(rises, key=lambda one: one.low)
    return Estimate(worst.low, worst.low, worst.high)


def _equal(book: Book, depth: int) -> report.Row:
    """With the budget of a fixed depth, the planned steps against that depth."""
    gap = [one.spent.equal[depth].error - one.spent.depths[depth].error for one in book.offline]
    fixed = np.mean([one.spent.depths[depth].error.mean() for one in book.offline])
    found = book.mean(np.mean(gap, axis=0) / fixed)
    note = f"of the error of {depth} steps of every module; below 0 the plan is better"
    return book.row(
        f"student.error_over_depth_{depth}", found, "relative", n=len(book.episode), bar=0.0, better="lower",
        note=note,
    )  # fmt: skip


def ablations(book: Book) -> list[report.Row]:
    """What is lost without each part."""
    everything, rows = range(len(book.outcomes.tasks)), []
    pairs = {
        "student.covered_over_trustless": (("sage", conditions.COVERED), ("sage_trustless", conditions.COVERED)),
        "student.covered_over_before": (("sage", conditions.COVERED), ("before", conditions.COVERED)),
        "student.over_before": (("sage", "normal"), ("before", "normal")),
    }
    for name, keys in pairs.items():
        one, other = (book.success(*key) for key in keys)
        if one is None or other is None:
            rows.append(book.row(name, None, "points", note="not played"))
            continue
        found = book.pairing.difference(one[: len(other)], other, everything)
        bar = {"bar": 0.0} if name.endswith("trustless") else {}
        said = f"{100 * one[: len(other)].mean():.1f} % against {100 * other.mean():.1f} %, first seed"
        rows.append(book.row(name, found, "points", n=int(other[0].size), note=said, **bar))
    gap = [one.spent.budgets[1.0].error - one.even.error for one in book.offline]
    fixed = np.mean([one.even.error.mean() for one in book.offline])
    rows.append(
        book.row("student.error_over_even_split", book.mean(np.mean(gap, axis=0) / fixed), "relative", better="lower",
                 n=len(book.episode), note="of the error of the student without H-module, the same ATP split evenly")
    )  # fmt: skip
    for name in ("sage", "sage_full"):
        success = book.success(name)
        rows.append(book.row(f"{name}.success", book.pairing.mean(success, everything), "of episodes",
                             n=int(success[0].size)))  # fmt: skip
    return rows
