"""How close a student's vision is to its teacher's: sums per task while the split streams by, then rows with intervals.

Every number is DESIGN.md section 6's. Nothing here grows with the number of tokens: only tasks x channels and frames.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from eval import report, statistics

BARS = {"r2_mean": 0.95, "r2_p10": 0.85, "energy_rank_correlation": 0.7, "r2_margin": 0.0, "step_gain_worst": 0.0}
SMALLEST_PROBABILITY = 1e-12
INSIDE = "tokens that see part of the grid: not the canvas around it"


class Truth:
    """Sums of the teacher's tokens per task, for SST about the mean of whatever tasks are drawn."""

    def __init__(self, tasks: int, width: int):
        self.count = np.zeros(tasks)
        self.total = np.zeros((tasks, width))
        self.square = np.zeros((tasks, width))

    def add(self, task: np.ndarray, tokens: np.ndarray, keep: np.ndarray | None = None) -> None:
        """Take in frames: `task` int [b], `tokens` [b, n, d] in the teacher's own basis, those where `keep` [b, n]."""
        keep = np.ones(tokens.shape[:2], bool) if keep is None else keep
        tokens = tokens.astype(np.float64) * keep[..., None]
        np.add.at(self.count, task, keep.sum(1))
        np.add.at(self.total, task, tokens.sum(1))
        np.add.at(self.square, task, np.einsum("bnd,bnd->bd", tokens, tokens))


@dataclasses.dataclass(frozen=True)
class Frames:
    """One value per frame, in the order the split was read; `kl` is None for a subject that predicts no attention."""

    task: np.ndarray
    error: np.ndarray
    cosine: np.ndarray
    kl: np.ndarray | None

    def mean(self, name: str) -> statistics.Metric:
        """The mean over frames of one of the fields, as a function of task weights."""
        values, tasks = getattr(self, name), int(self.task.max()) + 1
        total, count = np.bincount(self.task, values, tasks), np.bincount(self.task, minlength=tasks)
        return lambda weights: (weights[:, :tasks] @ total) / (weights[:, :tasks] @ count)


class Scores:
    """One subject's errors against the teacher. `unit` is the teacher's mean channel variance on the training split:
    error e = mean squared error / unit, which is the mean squared PHI-S error (a rotation and one scalar)."""

    def __init__(self, tasks: int, width: int, unit: float):
        self.unit = unit
        self.sse = np.zeros((tasks, width))
        self.sse_inside = np.zeros((tasks, width))
        self._parts: list[Frames] = []

    def add(
        self,
        task: np.ndarray,
        *,
        tokens: np.ndarray,
        predicted: np.ndarray,
        attention: np.ndarray | None = None,
        predicted_attention: np.ndarray | None = None,
        inside: np.ndarray | None = None,
    ) -> None:
        """Take in frames: tokens [b, n, d], attention [b, tiles, n / tiles] summing to 1 per tile, `inside` [b, n]."""
        residual = predicted.astype(np.float64) - tokens
        squared = np.einsum("bnd,bnd->bd", residual, residual)
        np.add.at(self.sse, task, squared)
        if inside is not None:
            np.add.at(self.sse_inside, task, np.einsum("bnd,bnd,bn->bd", residual, residual, inside, optimize=True))
        error = squared.sum(1) / (tokens.shape[1] * tokens.shape[2] * self.unit)
        kl = None if predicted_attention is None else divergence(attention, predicted_attention).mean(-1)
        self._parts.append(Frames(task, error, cosine(tokens, predicted).mean(-1), kl))

    def frames(self) -> Frames:
        """Everything taken in so far, one value per frame."""
        columns = zip(*((p.task, p.error, p.cosine, p.kl) for p in self._parts), strict=True)
        task, error, cosines, kl = (None if column[0] is None else np.concatenate(column) for column in columns)
        return Frames(task, error, cosines, kl)

    def r2(self, truth: Truth, *, inside: bool = False) -> Callable[[np.ndarray], np.ndarray]:
        """Task weights [draws, tasks] -> R² per channel [draws, d]; `inside`: of those tokens alone, like `truth`."""
        sse = self.sse_inside if inside else self.sse
        return lambda w: statistics.r_squared(w @ sse, w @ truth.total, w @ truth.square, w @ truth.count)


def cosine(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Cosine of each token's angle [..., n] from [..., n, d], without any centring."""
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    dot = np.einsum("...d,...d->...", truth, predicted)
    scale = np.linalg.norm(truth, axis=-1) * np.linalg.norm(predicted, axis=-1)
    return dot / np.maximum(scale, 1e-30)


def divergence(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """KL(teacher || student) in nats over the last axis; the student's probabilities are floored at 1e-12."""
    truth = truth.astype(np.float64)
    log_ratio = np.log(np.maximum(truth, 1e-300)) - np.log(np.maximum(predicted, SMALLEST_PROBABILITY))
    return np.sum(np.where(truth > 0, truth * log_ratio, 0.0), axis=-1)


@dataclasses.dataclass(frozen=True)
class Student:
    """One run's scores: the output that halting chose, every refinement step, and what the energy said."""

    output: Scores
    steps: tuple[Scores, ...]
    energy: np.ndarray  # [frames] of the output, predicted e / (e + median)
    step_energy: np.ndarray  # [frames, steps]
    taken: np.ndarray  # int [frames] steps until halting
    median: float  # the m that turns an error e into e / (e + m)

    def true_energy(self) -> np.ndarray:
        """What the energy should have said of the output: e / (e + m) per frame."""
        error = self.output.frames().error
        return error / (error + self.median)


@dataclasses.dataclass(frozen=True)
class Book:
    """What turns scores into rows: the teacher's sums, bootstrap weights over tasks, and what every row shares."""

    truth: Truth
    inside: Truth
    """The same over the tokens that see part of the grid: the canvas around it is easy, and most of a frame."""
    weights: np.ndarray
    split: str
    context: report.Context

    def row(self, name: str, unit: str, metrics: Sequence[statistics.Metric], **fields) -> report.Row:
        """`name` is subject.metric; `metrics` one per run; the value is their mean over the same resampled tasks."""
        metric = name.split(".")[1]
        got = statistics.estimate(lambda w: np.mean([m(w) for m in metrics], axis=0), self.weights)
        single = [float(m(np.ones((1, self.weights.shape[1])))[0]) for m in metrics]
        return report.Row(
            id=f"vision.{name}.{self.split}",
            value=got.value,
            unit=unit,
            context=self.context,
            n=self.weights.shape[1],
            seeds=len(metrics),
            ci_low=got.low,
            ci_high=got.high,
            seed_low=min(single),
            seed_high=max(single),
            bar=BARS.get(metric) if name.startswith("student.") else None,
            **fields,
        )

    def quality(self, subject: str, scores: Sequence[Scores]) -> list[report.Row]:
        """R² (mean and 10th percentile over channels), cosine and attention KL of one subject."""
        frames = [s.frames() for s in scores]
        rows = [
            self.row(f"{subject}.r2_mean", "R²", [self._r2(s, _mean) for s in scores]),
            self.row(f"{subject}.r2_p10", "R²", [self._r2(s, _tenth) for s in scores]),
            self.row(f"{subject}.r2_mean_inside", "R²", [self._r2(s, _mean, inside=True) for s in scores], note=INSIDE),
            self.row(f"{subject}.cosine", "cosine", [f.mean("cosine") for f in frames]),
        ]
        if frames[0].kl is not None:
            rows.append(self.row(f"{subject}.attention_kl", "nats", [f.mean("kl") for f in frames], better="lower"))
        return rows

    def margin(self, students: Sequence[Student], baselines: dict[str, Sequence[Scores]]) -> report.Row:
        """R² of the student less that of the best baseline, on the same tasks."""
        whole = np.ones((1, self.weights.shape[1]))
        means = {name: [self._r2(s, _mean) for s in scores] for name, scores in baselines.items()}
        best = max(means, key=lambda name: float(np.mean([m(whole)[0] for m in means[name]])))
        pairs = zip([self._r2(s.output, _mean) for s in students], _repeat(means[best], len(students)), strict=True)
        metrics = [lambda w, a=a, b=b: a(w) - b(w) for a, b in pairs]
        return self.row("student.r2_margin", "R²", metrics, note=f"over the best baseline, {best}")

    def steps(self, students: Sequence[Student]) -> list[report.Row]:
        """Quality after every refinement step, and the worst mean gain from one step to the next."""
        rows = []
        for step in range(len(students[0].steps)):
            scores = [s.steps[step] for s in students]
            rows.append(self.row(f"student.r2_mean_step_{step}", "R²", [self._r2(s, _mean) for s in scores]))
            errors = [s.frames().mean("error") for s in scores]
            rows.append(self.row(f"student.error_step_{step}", "e", errors, better="lower"))
        return rows + self._worst_gain(students)

    def _worst_gain(self, students: Sequence[Student]) -> list[report.Row]:
        """Paired over the same frames: e before less e after. If no single step loses, no later step is worse."""
        gains = []
        for step in range(1, len(students[0].steps)):
            before, after = ([s.steps[k].frames().mean("error") for s in students] for k in (step - 1, step))
            metrics = [lambda w, a=a, b=b: a(w) - b(w) for a, b in zip(before, after, strict=True)]
            gains.append(self.row("student.step_gain_worst", "e", metrics, note=f"step {step - 1} to {step}"))
        return [min(gains, key=lambda row: row.value)] if gains else []

    def energies(self, students: Sequence[Student]) -> list[report.Row]:
        """Does the energy know its error: rank correlation, calibration, and how many steps it asks for."""
        ranks = [self._rank_metric(s) for s in students]
        miss = np.array([statistics.calibration_error(s.energy, s.true_energy()) for s in students])
        taken = [dataclasses.replace(s.output.frames(), error=s.taken.astype(float)).mean("error") for s in students]
        calibrated = self.row(
            "student.energy_calibration_error", "energy", [lambda w, m=m: np.full(len(w), m) for m in miss]
        )
        return [
            self.row("student.energy_rank_correlation", "Spearman", ranks),
            dataclasses.replace(calibrated, ci_low=None, ci_high=None, better="lower"),
            self.row("student.steps_taken", "steps", taken, better="lower"),
        ]

    def _rank_metric(self, student: Student) -> statistics.Metric:
        frames = student.output.frames()
        ranks = statistics.Spearman(student.energy, frames.error)
        return lambda weights: np.array([ranks(row[frames.task]) for row in weights])

    def _r2(self, scores: Scores, reduce: Callable, *, inside: bool = False) -> statistics.Metric:
        channels = scores.r2(self.inside if inside else self.truth, inside=inside)
        return lambda weights: reduce(channels(weights))


def _mean(channels: np.ndarray) -> np.ndarray:
    return channels.mean(-1)


def _tenth(channels: np.ndarray) -> np.ndarray:
    return np.quantile(channels, 0.1, axis=-1)


def _repeat(metrics: Sequence, count: int) -> list:
    return list(metrics) if len(metrics) == count else [metrics[0]] * count
