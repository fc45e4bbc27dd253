"""Rows of `eval.offline`: actions by refinement step, tokens, places of objects, and whether the images are used."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eval import places, report, statistics
from eval.observations import Observations
from eval.offline import Scores

BARS = {"action_r2": 0.97, "action_r2_noise": 0.85, "action_mse": 0.01, "token_r2": 0.97, "use": 0.80}
FEW = 2
"""Refinement steps after which actions are judged."""
LIMITED = "targets within the robot's limits; vision and language ran all their steps"
Metric = Callable[[Scores, np.ndarray], np.ndarray]


class Book:
    """Writes the rows of several students of one setting, resampling episodes."""

    def __init__(
        self,
        scores: Sequence[Scores],
        seen: Observations,
        context: report.Context,
        *,
        suite: str,
        needs: str,
        draws: int,
        seed: int,
    ):
        """needs: what the bars are defined on and these observations are not; "" where they are."""
        self.scores, self.context, self._seen, self._suite, self._needs = scores, context, seen, suite, needs
        units = len(scores[0].floor)
        self.weights = statistics.resamples(units, draws, np.random.default_rng(seed))
        self.steps = scores[0].actions.sse.shape[1]

    def rows(self, teacher: Mapping[str, float], guess: np.ndarray | None = None) -> list[report.Row]:
        """All rows. teacher: what was measured of the teacher itself; guess: mean places of the objects in the training
        split [v, o, 2], if it is known."""
        by_step = [row for step in range(self.steps) for row in self._step(step)]
        return [*self._judged(), *self._tokens(), *self._images(teacher), *self._places(guess), *by_step]

    def row(
        self,
        name: str,
        metric: Metric,
        unit: str,
        *,
        subject: str = "student",
        of: Sequence | None = None,
        n: int | None = None,
        **fields,
    ) -> report.Row:
        """The metric's mean over students (or what it is a metric `of`), its interval over episodes and its range over
        seeds."""
        of = self.scores if of is None else of
        needs = self._needs if "bar" in fields else ""
        found = statistics.estimate(lambda w: np.mean([metric(one, w) for one in of], axis=0), self.weights)
        whole = np.ones((1, self.weights.shape[1]))
        single = [float(metric(one, whole)[0]) for one in of]
        several = {"seeds": len(single), "seed_low": min(single), "seed_high": max(single)} if len(single) > 1 else {}
        return report.Row(
            self._id(name, subject), found.value, unit, self.context, n=len(self._seen) if n is None else n,
            ci_low=found.low, ci_high=found.high, needs=needs, **several, **fields,
        )  # fmt: skip

    def _id(self, name: str, subject: str = "student") -> str:
        return f"{self._suite}.{subject}.{name}.{self._seen.split}"

    def _judged(self) -> list[report.Row]:
        """After FEW steps, or all where there are fewer: fixed beforehand, not chosen by what was measured."""
        step = min(FEW, self.steps - 1)
        note = f"at drawn x_0, after {step} refinement step{'s' * (step > 1)} of the control; {LIMITED}"
        return [
            self.row("action_r2", lambda s, w: s.actions.r2(w)[:, step], "R²", bar=BARS["action_r2"], note=note),
            self.row("action_r2_noise", lambda s, w: s.residual.r2(w)[:, step], "R²", bar=BARS["action_r2_noise"],
                     note=f"of the part that depends on x_0, {note}"),
            self.row("action_mse", lambda s, w: s.actions.mse(w)[:, step], "normalised²", bar=BARS["action_mse"],
                     better="lower", note=note),
            self.row("action_r2_unlimited", lambda s, w: s.raw.r2(w)[:, step], "R²",
                     note="to what the teacher said, beyond the robot's limits or not"),
            self.row("demonstration_r2", lambda s, w: s.shown.r2(w)[:, step], "R²",
                     note="from x_0 = 0, where it acts from, to the demonstrated actions; does not rank policies"),
            self.row("demonstration_mse", lambda s, w: s.shown.mse(w)[:, step], "normalised²", better="lower",
                     note="from x_0 = 0, to the demonstrated actions"),
            self.row("own_r2", lambda s, w: s.own.r2(w)[:, step], "R²",
                     note="from x_0 = 0, to the mean over the teacher's draws: how much it acts as its teacher"),
        ]  # fmt: skip

    def _step(self, step: int) -> list[report.Row]:
        at = f"step_{step}"
        return [
            self.row(f"action_r2_{at}", lambda s, w: s.actions.r2(w)[:, step], "R²"),
            self.row(f"action_r2_noise_{at}", lambda s, w: s.residual.r2(w)[:, step], "R²"),
            self.row(f"action_mse_{at}", lambda s, w: s.actions.mse(w)[:, step], "normalised²", better="lower"),
            self.row(f"action_mse_over_floor_{at}", lambda s, w: s.actions.mse(w)[:, step] / s.noise_floor(w),
                     "of noise floor", better="lower",
                     note="noise floor: half the teacher's own squared distance over two x_0"),
        ]  # fmt: skip

    def _tokens(self) -> list[report.Row]:
        return [
            self.row("token_r2_mean", lambda s, w: s.image.channels(w).mean(-1), "R²", bar=BARS["token_r2"],
                     note="image tokens, mean over channels"),
            self.row("token_r2_p10", lambda s, w: np.quantile(s.image.channels(w), 0.1, axis=-1), "R²"),
            self.row("fused_r2_mean", lambda s, w: s.fused.channels(w).mean(-1), "R²"),
            self.row("fused_r2_p10", lambda s, w: np.quantile(s.fused.channels(w), 0.1, axis=-1), "R²"),
        ]  # fmt: skip

    def _places(self, guess: np.ndarray | None) -> list[report.Row]:
        """Where the task's objects are, by camera, beside the guess that knows their mean places alone."""
        known = [one.places for one in self.scores]
        if None in known:
            note = f"the student was not taught to tell (--loss.objects 0), or the store has no labels {places.TRUTH}"
            return [report.Row(self._id("objects_error"), None, "px", self.context, better="lower", note=note)]
        rows = [row for view in range(len(self._seen.views)) for row in self._view(view, "student", known)]
        if guess is None:
            return rows
        fixed = dataclasses.replace(known[0], told=np.broadcast_to(guess, known[0].truth.shape))
        return rows + [
            row for view in range(len(self._seen.views)) for row in self._view(view, "mean_position", [fixed])
        ]

    def _view(self, view: int, subject: str, of: Sequence[places.Places]) -> list[report.Row]:
        """One camera's row; none where no object is ever in its sight."""
        if not (count := of[0].count(view)):
            return []
        height, width = of[0].size
        each = ", ".join("" if one is None else f"{one:.2g}" for one in of[0].by_object(view))
        note = f"median distance over the labels in sight, {width} x {height} pixels, {places.TRUTH}; by object: {each}"
        note += " (the mean place in the training split)" * (subject != "student")
        name = f"objects_error_{report.slug(self._seen.views[view])}"
        metric = lambda one, weights: one.median(view, weights)  # noqa: E731
        return [self.row(name, metric, "px", subject=subject, of=of, n=count, better="lower", note=note)]

    def _images(self, teacher: Mapping[str, float]) -> list[report.Row]:
        """What is lost with the images of another episode of the same task."""
        how = "before less after shuffling, over before; last step"
        shown = self.row("shuffled_images_drop", _shown_drop, "of R²", note=f"R² to the demonstrated actions, {how}")
        same = self.row("shuffled_images_drop_distilled", _drop, "of R²", note=f"R² to the teacher's actions, {how}")
        before, after = (teacher.get(f"action_r2{part}", 0.0) for part in ("", "_shuffled_images"))
        if not 0 < before > after:
            note = "it is not known that shuffling lowers the teacher's own R²: its post-training measures that"
            row_id, bar = self._id("shuffled_images_use"), {"bar": BARS["use"], "needs": self._needs}
            used = report.Row(row_id, None, "of teacher's drop", self.context, note=note, **bar)
            return [used, shown, same]
        theirs = (before - after) / before
        note = f"the teacher itself loses {theirs:.0%} of its R² to the demonstrated actions, by its own measurement"
        fields = {"bar": BARS["use"], "note": note}
        used = self.row("shuffled_images_use", lambda s, w: _shown_drop(s, w) / theirs, "of teacher's drop", **fields)
        return [used, shown, same]


def _shown_drop(scores: Scores, weights: np.ndarray) -> np.ndarray:
    return _relative(scores.shown.r2(weights), scores.shown_shuffled.r2(weights))


def _drop(scores: Scores, weights: np.ndarray) -> np.ndarray:
    return _relative(scores.actions.r2(weights), scores.shuffled.r2(weights))


def _relative(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Relative loss of the last prediction's R²: [draws]."""
    return (before[:, -1] - after[:, -1]) / np.maximum(np.abs(before[:, -1]), 1e-12)
