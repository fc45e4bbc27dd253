"""Rows of the sage suite: what thinking less costs, where the student looks, whether it knows, whom it trusts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bridge import conditions
from eval import economy, failure, pairing, report, statistics, wall
from eval.notebook import Noted
from eval.pairing import Success
from eval.statistics import Estimate

BARS = {"steps": 0.40, "wall": 0.25, "lost_low": -3.0, "lost": -0.5, "saliency": 0.50, "auroc": 0.80}
BARS |= {"calibration": 0.05, "cut": 0.30, "reacted": 0.95, "recovered": 0.95}
ENOUGH = 1200
"""Episodes that non-inferiority is defined on."""
REACTION = 5
"""Decisions within which trust must have fallen."""
FALL, BACK = 0.2, 0.1
"""How far trust must fall below what it was before the camera was covered, and how near it must come back."""
TEST = "test"


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """All successes bool [s, t, n] and all noted decisions by (policy, condition, split)."""

    tasks: tuple[str, ...]
    episodes: int
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
    even: economy.Spent
    """Without an H-module, a budget of what it spends split evenly."""


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
        self.outcomes, self.offline, self.timed, self.context, self._seed = outcomes, offline, timed, context, seed
        self.pairing = pairing.Pairing(len(outcomes.tasks), outcomes.episodes, draws=draws, seed=seed)
        episode = offline[0].spent.episode
        self._episode, units = episode, int(episode.max()) + 1
        self.weights = statistics.resamples(units, draws, np.random.default_rng(seed))
        self.draws = draws

    def rows(self) -> list[report.Row]:
        """Every row, those with a bar first in each part."""
        parts = (self.thrift, self.dial, self.saliency, self.confidence, self.trust, self.ablations)
        return [row for part in parts for row in part()]

    def row(self, name: str, found: Estimate | None, unit: str, *, n: int | None = None, **fields) -> report.Row:
        """One row."""
        span = {} if found is None else {"ci_low": found.low, "ci_high": found.high}
        seeds = len(self.offline) if len(self.offline) > 1 else None
        value = None if found is None else found.value
        return report.Row(f"sage.{name}.{TEST}", value, unit, self.context, n=n, seeds=seeds, **span, **fields)

    def plain(self, name: str, value: float, unit: str, **fields) -> report.Row:
        """A row whose value has no interval."""
        row = self.row(name, Estimate(value, value, value), unit, **fields)
        return dataclasses.replace(row, ci_low=None, ci_high=None)

    def success(self, policy: str, condition: str = "normal") -> Success | None:
        return self.outcomes.found.get((policy, condition, TEST))

    def notes(self, policy: str, condition: str = "normal", split: str = TEST) -> Sequence[Noted]:
        return self.outcomes.notes.get((policy, condition, split), ())

    # What thinking less costs

    def thrift(self) -> list[report.Row]:
        """Refinement compute and wall time saved, and the success that it costs."""
        notes, full = self.notes("sage"), self.offline[0].spent.full
        spent = np.array([one.atp.sum() for one in notes])
        count = np.array([len(one.atp) for one in notes])
        saved = self._over(len(notes), lambda w: 1 - (w @ spent) / (w @ count) / full)
        seconds = {lane: np.concatenate([one.seconds[lane] for one in self.timed]) for lane in self.timed[0].seconds}
        clock = wall.Wall(seconds)
        note = f"of {full:.2f} ATP that all refinement steps cost; decisions in the simulator"
        milliseconds = ", ".join(f"{lane} {1000 * np.median(part):.2f} ms" for lane, part in seconds.items())
        return [
            self.row("student.steps_saved", saved, "of refinement ATP", n=len(notes), bar=BARS["steps"], note=note),
            self.row("student.wall_saved", clock.saved("own", "full", self._seed), "of a decision",
                     n=len(seconds["own"]), bar=BARS["wall"], note=f"batch 1, p50: {milliseconds}"),
            *self._lost(),
        ]  # fmt: skip

    def _lost(self) -> list[report.Row]:
        one, full = self.success("sage"), self.success("sage_full")
        everything = range(len(self.outcomes.tasks))
        lost = self.pairing.difference(one, full, everything)
        enough = f"{ENOUGH} episodes" if one.size < ENOUGH else ""
        worst = Estimate(lost.low, lost.low, lost.high)
        note = f"{100 * one.mean():.1f} % against {100 * full.mean():.1f} % with all steps"
        fields = {"n": int(one[0].size), "needs": enough}
        return [
            self.row("student.over_all_steps", lost, "points", bar=BARS["lost"], note=note, **fields),
            self.row("student.over_all_steps_low", worst, "points", bar=BARS["lost_low"],
                     note="lower end of its 95 % interval", **fields),
        ]  # fmt: skip

    # The dial

    def dial(self) -> list[report.Row]:
        """Quality at several budgets, against fixed depth at equal cost, and overdrafts."""
        first = self.offline[0].spent
        broken, tried = sum(one.violations for one in self.offline), sum(one.budgets for one in self.offline)
        rows = [
            self.plain("student.violations", float(broken), "of budgets", n=tried, bar=0.0, better="lower",
                       note="random budgets and no rounding in the account"),
            self.row("student.dial_wrong_way", self._wrong_way(), "normalised²", n=len(self._episode), bar=0.0,
                     better="lower", note="lower end of the largest rise of the action error at a larger budget"),
        ]  # fmt: skip
        for depth in first.depths:
            rows.append(self._equal(depth))
        for share in first.budgets:
            rows.append(self._curve(f"budget_{round(100 * share):03d}", lambda one, s=share: one.budgets[s]))
        for depth in first.depths:
            rows.append(self._curve(f"depth_{depth}", lambda one, d=depth: one.depths[d]))
        return rows

    def _curve(self, name: str, pick: Callable[[economy.Economy], economy.Spent]) -> report.Row:
        parts = [pick(one.spent) for one in self.offline]
        atp = np.mean([part.atp.mean() for part in parts])
        error = self.mean(np.mean([part.error for part in parts], axis=0))
        note = f"action error at {atp:.2f} ATP of refinement"
        return self.row(f"student.error_{name}", error, "normalised²", n=len(self._episode), better="lower", note=note)

    def _wrong_way(self) -> Estimate:
        """The largest rise of the error from one budget to the next larger, by the lower end of its interval."""
        shares = sorted(self.offline[0].spent.budgets)
        rises = [
            self.mean(
                np.mean([one.spent.budgets[b].error - one.spent.budgets[a].error for one in self.offline], axis=0)
            )
            for a, b in zip(shares, shares[1:], strict=False)
        ]
        worst = max(rises, key=lambda one: one.low)
        return Estimate(worst.low, worst.low, worst.high)

    def _equal(self, depth: int) -> report.Row:
        """With the budget of a fixed depth, the planned steps against that depth."""
        gap = [one.spent.equal[depth].error - one.spent.depths[depth].error for one in self.offline]
        fixed = np.mean([one.spent.depths[depth].error.mean() for one in self.offline])
        found = self.mean(np.mean(gap, axis=0) / fixed)
        note = f"of the error of {depth} steps of every module; below 0 the plan is better"
        return self.row(
            f"student.error_over_depth_{depth}", found, "relative", n=len(self._episode), bar=0.0, better="lower",
            note=note,
        )  # fmt: skip

    # Where it looks

    def saliency(self) -> list[report.Row]:
        """Overlap with the teacher's saliency, beside those who look without looking."""
        teacher = self.offline[0].spent.teacher_saliency
        maps = [one.spent.saliency for one in self.offline]
        ours = np.mean([economy.overlap(told, teacher) for told in maps], axis=0)
        frames, tokens = teacher.shape[1:]
        priors = {
            "centre": economy.overlap(economy.centre(frames, tokens), teacher).mean(),
            "mean_map": economy.overlap(self.offline[0].prior, teacher).mean(),
            "untrained": np.mean([one.chance for one in self.offline]),
        }
        best = max(priors.values())
        overlap, n = self.mean(ours), len(ours)
        score = Estimate(*((value - best) / (1 - best) for value in (overlap.value, overlap.low, overlap.high)))
        kl = self.mean(np.mean([economy.divergence(told, teacher) for told in maps], axis=0))
        line = self.mean(np.mean([economy.correlation(told, teacher) for told in maps], axis=0))
        note = "(o - p) / (1 - p), o the overlap, p the best prior: " + max(priors, key=priors.get)
        return [
            self.row("student.saliency_score", score, "of what is left", n=n, bar=BARS["saliency"], note=note),
            self.row("student.saliency_overlap", overlap, "of the top tenth", n=n),
            *(self.plain(f"{name}.saliency_overlap", float(value), "of the top tenth") for name, value in priors.items()),
            self.row("student.saliency_kl", kl, "nats", n=n, better="lower"),
            self.row("student.saliency_correlation", line, "r", n=n),
        ]  # fmt: skip

    # Whether it knows

    def confidence(self) -> list[report.Row]:
        """Whether an episode's first decisions tell that it will fail; the judge is fitted on validation episodes."""
        known, asked = self.notes("sage", split="validation"), self.notes("sage")
        good = np.array([one.success for one in asked])
        if not known or all(one.success for one in known) or good.all() or not good.any():
            note = "episodes of one outcome alone: nothing to tell apart"
            return [self.row("student.failure_auroc", None, "AUROC", bar=BARS["auroc"], note=note)]
        score = failure.fit(known)(asked)
        found = {
            "failure_auroc": lambda i: failure.auroc(score[i], good[i]),
            "calibration_error": lambda i: statistics.calibration_error(score[i], good[i].astype(float)),
            "failures_cut": lambda i: failure.cut(score[i], good[i]),
        }
        rng = np.random.default_rng(self._seed)
        picks = rng.integers(0, len(good), size=(min(self.draws, 400), len(good)))
        whole = np.arange(len(good))
        made = {name: Estimate(metric(whole), *statistics.interval(np.array([metric(i) for i in picks])))
                for name, metric in found.items()}  # fmt: skip
        note = f"{int((~good).sum())} failures; fitted on {len(known)} validation episodes, first {failure.FIRST} decisions"
        n = len(good)
        return [
            self.row("student.failure_auroc", made["failure_auroc"], "AUROC", n=n, bar=BARS["auroc"], note=note),
            self.row("student.calibration_error", made["calibration_error"], "probability", n=n, better="lower",
                     bar=BARS["calibration"], note="ten groups of equal size"),
            self.row("student.failures_cut", made["failures_cut"], "of failures", n=n, bar=BARS["cut"],
                     note="where the surest 80 % alone are attempted"),
            self._dispersion(),
        ]  # fmt: skip

    def _dispersion(self) -> report.Row:
        """How near the student's confidence is to its teacher's."""
        parts = [(one.spent.confidence, one.spent.teacher_confidence) for one in self.offline]
        explained = [1 - np.square(a - b).sum() / np.square(b - b.mean()).sum() for a, b in parts]
        return self.plain("student.confidence_r2", float(np.mean(explained)), "R²", n=len(self._episode),
                          note="of the teacher's confidence, how little its draws differ")  # fmt: skip

    # Whom it trusts

    def trust(self) -> list[report.Row]:
        """A covered camera: how soon trust in vision falls, whether it comes back, and what that is worth."""
        covered = conditions.cameras(conditions.COVERED).covered
        seen = [reaction(one, covered) for one in self.notes("sage", conditions.COVERED)]
        fell = np.array([one.fell for one in seen if one is not None])
        back = np.array([one.back for one in seen if one is not None and one.back is not None])
        rows = [
            self._share("student.trust_fell", fell, BARS["reacted"],
                        f"trust in vision {FALL} lower within {REACTION} decisions of a covered camera"),
            self._share("student.trust_recovered", back, BARS["recovered"],
                        f"within {BACK} of what it was, some time after the camera was uncovered"),
        ]  # fmt: skip
        calm = [one.trust[:, 0].min() for one in self.notes("sage")]
        rows.append(self.plain("student.trust_calm", float(np.mean(calm)), "trust", n=len(calm),
                               note="the least trust in vision of an undisturbed episode, mean"))  # fmt: skip
        return rows

    def _share(self, name: str, values: np.ndarray, bar: float, note: str) -> report.Row:
        if not len(values):
            return self.row(
                name, None, "of episodes", bar=bar, note="no episode under a covered camera was long enough"
            )
        found = Estimate(float(values.mean()), *statistics.wilson(float(values.sum()), len(values)))
        return self.row(name, found, "of episodes", n=len(values), bar=bar, note=note)

    # What each part is good for

    def ablations(self) -> list[report.Row]:
        """What is lost without each part."""
        everything, rows = range(len(self.outcomes.tasks)), []
        pairs = {
            "student.covered_over_trustless": (("sage", conditions.COVERED), ("sage_trustless", conditions.COVERED)),
            "student.covered_over_before": (("sage", conditions.COVERED), ("before", conditions.COVERED)),
            "student.over_before": (("sage", "normal"), ("before", "normal")),
        }
        for name, keys in pairs.items():
            one, other = (self.success(*key) for key in keys)
            if one is None or other is None:
                rows.append(self.row(name, None, "points", note="not played"))
                continue
            found = self.pairing.difference(one[: len(other)], other, everything)
            bar = {"bar": 0.0} if name.endswith("trustless") else {}
            said = f"{100 * one[: len(other)].mean():.1f} % against {100 * other.mean():.1f} %, first seed"
            rows.append(self.row(name, found, "points", n=int(other[0].size), note=said, **bar))
        gap = [one.spent.budgets[1.0].error - one.even.error for one in self.offline]
        fixed = np.mean([one.even.error.mean() for one in self.offline])
        rows.append(
            self.row("student.error_over_even_split", self.mean(np.mean(gap, axis=0) / fixed), "relative", better="lower",
                     n=len(self._episode), note="of the error of the student without H-module, the same ATP split evenly")
        )  # fmt: skip
        for name in ("sage", "sage_full"):
            success = self.success(name)
            rows.append(self.row(f"{name}.success", self.pairing.mean(success, everything), "of episodes",
                                 n=int(success[0].size)))  # fmt: skip
        return rows

    def mean(self, values: np.ndarray) -> Estimate:
        """Mean of [n] over observations, its interval over episodes."""
        units = self.weights.shape[1]
        total = np.bincount(self._episode, values, minlength=units)
        count = np.bincount(self._episode, minlength=units)
        return statistics.estimate(lambda w: (w @ total) / (w @ count), self.weights)

    def _over(self, units: int, metric: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """An estimate over so many noted episodes."""
        return statistics.estimate(metric, statistics.resamples(units, self.draws, np.random.default_rng(self._seed)))


@dataclasses.dataclass(frozen=True)
class Reaction:
    """What trust in vision did in one covered episode."""

    fell: bool
    back: bool | None
    """None where the episode ended too soon to tell."""


def reaction(one: Noted, covered: tuple[int, int]) -> Reaction | None:
    """None where the episode ended before trust could have moved. covered: from which decision to before which."""
    first, last = covered
    vision = one.trust[:, 0]
    if len(vision) <= first + REACTION:
        return None
    before = vision[first]
    fell = bool((vision[first + 1 : first + REACTION + 1] <= before - FALL).any())
    after = vision[last + REACTION :]
    return Reaction(fell, bool((after >= before - BACK).any()) if len(after) >= REACTION else None)
