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
ABOVE = 0.05
"""Points, less than one episode of the suite is worth: a gain must be above nothing."""


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
        book.row("student.wall_over_before", clock.saved("own", "before", book.seed), "of a decision",
                 n=len(seconds["own"]), note="saved against the student without H-module, all its steps"),
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
    for share in first.budgets:
        rows.append(_equal(book, share))
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


def _equal(book: Book, share: float) -> report.Row:
    """The plan within a budget against fixed depths at the ATP that it really spent."""
    parts = [(one.spent.budgets[share], one.spent.depths) for one in book.offline]
    found, spent, fixed = _against(book, parts)
    note = (
        f"of the error of fixed depths at the {spent:.2f} ATP that it spent ({fixed:.4f}); below 0 the plan is better"
    )
    return book.row(
        f"student.error_over_depths_{round(100 * share):03d}", found, "relative", n=len(book.episode), bar=0.0,
        better="lower", note=note,
    )  # fmt: skip


def _against(book: Book, parts: list[tuple[economy.Spent, dict[int, economy.Spent]]]) -> tuple[Estimate, float, float]:
    """(relative gap of what was spent against a mix of fixed depths of equal cost, that cost, the mix's error)."""
    fixed = [economy.mixed(depths, one.atp.mean()) for one, depths in parts]
    gap = np.mean([one.error - other for (one, _), other in zip(parts, fixed, strict=True)], axis=0)
    usual = float(np.mean([other.mean() for other in fixed]))
    return book.mean(gap / usual), float(np.mean([one.atp.mean() for one, _ in parts])), usual


def ablations(book: Book) -> list[report.Row]:
    """What is lost without each part: trust, H-module (the student before), plan and halting (`over_all_steps`)."""
    covered = conditions.COVERED
    rows = [
        *_worth(book, "student.covered_over_trustless", ("sage", covered), ("sage_trustless", covered), ABOVE),
        *_worth(book, "student.covered_over_before", ("sage", covered), ("before", covered), None),
        *_worth(book, "student.over_before", ("sage", "normal"), ("before", "normal"), BARS["lost_low"]),
        *_before(book),
    ]
    for name in ("sage", "sage_full", "before"):
        success = book.success(name)
        rows.append(book.row(f"{name}.success", book.pairing.mean(success, range(len(book.outcomes.tasks))),
                             "of episodes", n=int(success[0].size)))  # fmt: skip
    return rows


def _worth(book: Book, name: str, one: tuple[str, str], other: tuple[str, str], bar: float | None) -> list[report.Row]:
    """Points of success by which one policy beats another, and with a bar the lower end of the interval."""
    ours, theirs = (book.success(*key) for key in (one, other))
    if ours is None or theirs is None:
        return [book.row(name, None, "points", note="not played")]
    ours = ours[: len(theirs)]
    found = book.pairing.difference(ours, theirs, range(len(book.outcomes.tasks)))
    note = f"{100 * ours.mean():.1f} % against {100 * theirs.mean():.1f} %, {len(ours)} student(s)"
    if found.low <= 0 <= found.high:
        note += "; the interval holds 0: no difference was shown"
    fields, worst = {"n": int(theirs[0].size), "note": note}, Estimate(found.low, found.low, found.high)
    rows = [book.row(name, found, "points", **fields)]
    if bar is not None:
        rows.append(book.row(f"{name}_low", worst, "points", bar=bar, needs=book.enough, **fields))
    return rows


def _before(book: Book) -> list[report.Row]:
    """The plan against the student that it was built on: at equal compute, and at all of its steps."""
    parts = [(one.spent.budgets[1.0], one.before) for one in book.offline]
    found, spent, fixed = _against(book, parts)
    deepest = [one.before[max(one.before)].error for one in book.offline]
    gap = np.mean([one.error - other for (one, _), other in zip(parts, deepest, strict=True)], axis=0)
    usual = float(np.mean([error.mean() for error in deepest]))
    said = "of the student without H-module"
    return [
        book.row("student.error_over_before_equal", found, "relative", better="lower", n=len(book.episode),
                 note=f"of the error {said} at fixed depths and {spent:.2f} ATP ({fixed:.4f})"),
        book.row("student.error_over_before", book.mean(gap / usual), "relative", better="lower",
                 n=len(book.episode), note=f"of the error {said} with all its steps ({usual:.4f})"),
    ]  # fmt: skip
