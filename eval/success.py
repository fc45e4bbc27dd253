"""Rows of closed-loop success: who solves what, what the teacher was worth, and what disturbs the student."""

import dataclasses

from bridge import metaworld_tasks
from eval import pairing, report, sizes, statistics
from eval.pairing import Success
from eval.statistics import Estimate
from eval.tally import ENOUGH_TASKS, Results

BARS = {"teacher": 0.90, "ratio": 0.97, "ratio_low": 0.92, "ratio_user": 0.85, "value": 10.0, "p": 0.05}
BARS |= {"swapped": 0.05, "held_out_ratio": 0.90}
DISTURBED = ("noise", "dropped", "light")


def over_goals(success: Success) -> Estimate:
    """Mean of bool [seeds, tasks, goals] with Wilson's interval: a goal counts once, however many seeds tried it."""
    mean = float(success.mean())
    return Estimate(mean, *statistics.wilson(mean * success[0].size, success[0].size))


class Book:
    """Writes the rows of one set of results."""

    def __init__(self, results: Results, context: report.Context, *, draws: int, seed: int):
        self.results, self.context = results, context
        goals = next(iter(results.found.values())).shape[2] if results.found else 1
        self.pairing = pairing.Pairing(len(results.tasks), goals, draws=draws, seed=seed)
        self._note = "stand-in: its vision was first taught where things are, by simulator labels" * (
            context.teacher == "stand-in"
        )

    def rows(self) -> list[report.Row]:
        """Every row, the value of the teacher first."""
        rows = [row for name in self._compared() for row in self.value(name)]
        rows += self.ratios() + self.headlines() + self.asked_otherwise()
        for policy in self._policies():
            rows += self.successes(policy)
        return rows

    def _compared(self) -> list[str]:
        return list(dict.fromkeys(("demonstrations", *self.results.controls)))

    def _policies(self) -> list[tuple[str, str]]:
        others = [(name, "normal") for name, condition in self.results.found if condition == "normal"]
        first = [("teacher", "normal"), ("teacher", "blind"), ("student", "normal")]
        return list(dict.fromkeys(first + others))

    def row(self, name: str, found: Estimate | None, unit: str, *, of: Success | None = None, **fields) -> report.Row:
        """One row; `of` is what it counts. A bar is judged only on as many tasks and episodes as it is defined on."""
        if fields.get("bar") is not None:
            fields.setdefault("needs", self.results.few)
        split = f"metaworld.{name}.{self.results.split}"
        if found is None:
            return report.Row(split, None, unit, self.context, **fields)
        sizes = {} if of is None else {"n": int(of[0].size), "seeds": len(of) if len(of) > 1 else None}
        span = {"ci_low": found.low, "ci_high": found.high}
        return report.Row(split, found.value, unit, self.context, **sizes, **span, **fields)

    def value(self, control: str) -> list[report.Row]:
        """Student less control in points, on the headline tasks and on all, with the sign test's p."""
        one, other, name = self.results.get("student"), self.results.get(control), f"value_over_{report.slug(control)}"
        chosen, judged = self.results.headline, control == "demonstrations"
        bars, p_bars = ({"bar": BARS[name]} if judged else {} for name in ("value", "p"))
        if judged and self.results.uneven.get(control):
            bars, p_bars = (each | {"needs": "a control that is like for like"} for each in (bars, p_bars))
        if one is None or other is None or not chosen:
            lacks = f"{self.results.why(control)}: train the same student and give it with --control {control}=RUN"
            note = lacks if chosen else self.results.headline_note
            return [
                self.row(f"student.{name}", None, "points", note=note, **bars),
                self.row(f"student.{name}_p", None, "p", note=note, better="lower", **p_bars),
            ]
        one = one[list(self.results.shared.get(control, range(len(one))))]
        p, wins, losses = pairing.sign(one, other, chosen)
        pairs = f"{wins} goals won, {losses} lost, exact sign test over (task, goal), given these seeds"
        everything = range(len(self.results.tasks))
        known, uneven = one[:, chosen], self.results.uneven.get(control, "")
        headline = "; ".join(filter(None, [uneven, self.results.headline_note]))
        p_row = self.row(f"student.{name}_p", Estimate(p, p, p), "p", of=known, note=pairs, better="lower", **p_bars)
        return [
            self.row(f"student.{name}", self.pairing.difference(one, other, chosen), "points", of=known,
                     note=headline, **bars),
            dataclasses.replace(p_row, ci_low=None, ci_high=None),
            *self._over_seeds(f"student.{name}_p_seeds", known, other[:, chosen], p_bars),
            self.row(f"student.{name}_all", self.pairing.difference(one, other, everything), "points", of=one,
                     note="over all tasks"),
        ]  # fmt: skip

    def _over_seeds(self, name: str, one: Success, other: Success, bar: dict) -> list[report.Row]:
        """Whether the value would hold for further seeds: a paired t-test over them; nothing for a single one."""
        if len(one) < 2 or len(one) != len(other):
            return []
        gains = 100 * (one.mean(axis=(1, 2)) - other.mean(axis=(1, 2)))
        p = statistics.paired_t(gains)
        low, high = statistics.t_interval(gains)
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        note = f"paired t-test over {len(gains)} seeds: {each} points; their t interval {low:+.1f} .. {high:+.1f}"
        row = self.row(name, Estimate(p, p, p), "p", of=one, note=note, better="lower", **bar)
        return [dataclasses.replace(row, ci_low=None, ci_high=None)]

    def ratios(self) -> list[report.Row]:
        """Student over teacher on the headline tasks, and how much smaller it is."""
        one, other, chosen = self.results.get("student"), self.results.get("teacher"), self.results.headline
        note = self.results.headline_note
        found = self.pairing.ratio(one, other, chosen) if one is not None and other is not None and chosen else None
        if found is None:
            note = self.results.why("teacher") if other is None else f"the teacher may solve nothing; {note}"
        known = None if found is None else one[:, chosen]
        low = found and Estimate(found.low, found.low, found.high)
        rows = [
            self.row("student.ratio_headline", found, "of teacher", of=known, bar=BARS["ratio"], note=note),
            self.row("student.ratio_headline_low", low, "of teacher", of=known, bar=BARS["ratio_low"],
                     note="lower end of its 95 % interval"),
            self.row("student.ratio_headline_user", found, "of teacher", of=known, bar=BARS["ratio_user"],
                     note="the same ratio against the bar that users ask for"),
        ]  # fmt: skip
        known = {"ours": self.results.parameters["student"], "theirs": self.results.parameters["teacher"]}
        return [*rows, *sizes.rows("metaworld.student", self.results.split, **known, context=self.context)]

    def headlines(self) -> list[report.Row]:
        """Mean success over the headline tasks; the teacher's has a bar of its own."""
        rows = []
        for policy in ("teacher", "student", *self._compared()):
            success, chosen = self.results.get(policy), self.results.headline
            found = self.pairing.mean(success, chosen) if success is not None and chosen else None
            note = self.results.headline_note if success is not None else self.results.why(policy)
            fields = {"bar": BARS["teacher"]} if policy == "teacher" else {}
            known = None if found is None else success[:, chosen]
            note = "; ".join(filter(None, [note, self.results.warning if policy == "teacher" else ""]))
            rows.append(
                self.row(f"{report.slug(policy)}.success_headline", found, "of episodes", of=known, note=note, **fields)
            )
        return [*rows, self._count()]

    def _count(self) -> report.Row:
        """How many tasks the headline is over."""
        name, bar, known = "teacher_blind.headline_tasks", {"bar": ENOUGH_TASKS}, self.results.get("teacher", "blind")
        if known is None:
            return self.row(name, None, "tasks", note=self.results.headline_note, **bar)
        count = float(len(self.results.headline))
        row = self.row(name, Estimate(count, count, count), "tasks", of=known, note=self.results.headline_note, **bar)
        return dataclasses.replace(row, ci_low=None, ci_high=None)

    def asked_otherwise(self) -> list[report.Row]:
        """Wrong instruction, unseen phrasings, disturbed cameras: success, and its ratio to the undisturbed."""
        rows = []
        for policy in ("student", "teacher"):
            rows += self._swapped(policy)
            for condition in ("held-out", *DISTURBED):
                rows += self._against_normal(policy, condition)
        return rows

    def _swapped(self, policy: str) -> list[report.Row]:
        success = self.results.get(policy, "swapped")
        bar = {"bar": BARS["swapped"], "needs": self.results.few_episodes} if policy == "student" else {}
        if success is None:
            note = f"{self.results.why(policy)} under swapped instructions"
            return [self.row(f"{policy}.success_swapped", None, "of episodes", note=note, better="lower", **bar)]
        pair = " and ".join(metaworld_tasks.LOOK_ALIKE)
        found = over_goals(success)
        note = f"{pair}, each asked for the other; Wilson over goals, seeds averaged"
        fields = {"note": note, "better": "lower", **bar}
        return [self.row(f"{policy}.success_swapped", found, "of episodes", of=success, **fields)]

    def _against_normal(self, policy: str, condition: str) -> list[report.Row]:
        name, everything = f"{policy}.success_{report.slug(condition)}", range(len(self.results.tasks))
        success, normal = self.results.get(policy, condition), self.results.get(policy)
        bar = {"bar": BARS["held_out_ratio"]} if (policy, condition) == ("student", "held-out") else {}
        if success is None or normal is None:
            note = f"{self.results.why(policy)} under {condition}"
            return [self.row(f"{name}_ratio", None, "of undisturbed", note=note, **bar)] if bar else []
        ratio = self.pairing.ratio(success, normal[: len(success)], everything)
        return [
            self.row(name, self.pairing.mean(success, everything), "of episodes", of=success),
            self.row(f"{name}_ratio", ratio, "of undisturbed", of=success, **bar,
                     note="" if ratio else "undisturbed success may be zero"),
        ]  # fmt: skip

    def successes(self, key: tuple[str, str]) -> list[report.Row]:
        """Mean over all tasks and each task's success with Wilson's interval."""
        policy, condition = key
        name = report.slug(policy if condition == "normal" else f"{policy}_{condition}")
        success = self.results.get(*key)
        if success is None:
            return [self.row(f"{name}.success", None, "of episodes", note=self.results.why(policy))]
        note = self._note if policy == "teacher" else ""
        everything = range(len(self.results.tasks))
        rows = [
            self.row(f"{name}.success", self.pairing.mean(success, everything), "of episodes", of=success, note=note)
        ]
        for index, task in enumerate(self.results.tasks):
            rows.append(self._task(f"{name}.success.{report.slug(task)}", success[:, index : index + 1]))
        return rows

    def _task(self, name: str, success: Success) -> report.Row:
        found = over_goals(success)
        singles = success.mean(axis=(1, 2))
        note = "Wilson over goals, seeds averaged" if len(success) > 1 else ""
        row = self.row(name, found, "of episodes", of=success, note=note)
        return dataclasses.replace(row, seed_low=float(singles.min()), seed_high=float(singles.max())) if note else row
