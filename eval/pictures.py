"""The report's pictures as PNG bytes: token maps, energy against error, steps, channels. Same input, same bytes."""

import dataclasses
import io

import numpy as np
from matplotlib.figure import Figure

from eval import places, statistics
from eval.layout import Layout

QUANTILES = (0.05, 0.35, 0.65, 0.95)
SHOWN = ", ".join(f"{round(100 * q)} %" for q in QUANTILES)


@dataclasses.dataclass(frozen=True)
class Located:
    """One observation: its views, where the objects are and where the student says so, row and column in [0, 1]."""

    title: str
    views: np.ndarray  # uint8 [v, h, w, 3]
    truth: np.ndarray  # [v, o, 2], beyond [0, 1] where out of sight
    told: np.ndarray  # [v, o, 2]


@dataclasses.dataclass(frozen=True)
class Example:
    """One test frame: what was shown, what the teacher made of it and what the student did."""

    title: str
    frame: np.ndarray  # uint8 [h, w, 3]
    teacher: np.ndarray  # [tokens, d]
    student: np.ndarray  # [tokens, d]
    teacher_attention: np.ndarray  # [tokens]
    student_attention: np.ndarray  # [tokens]


def colours(teacher: np.ndarray, others: list[np.ndarray]) -> list[np.ndarray]:
    """Tokens [..., d] as RGB in [0, 1]: the teacher's three main directions, its 1st to 99th percentile the range."""
    flat = teacher.reshape(-1, teacher.shape[-1]).astype(np.float64)
    centre = flat.mean(0)
    basis = np.linalg.eigh((flat - centre).T @ (flat - centre))[1][:, ::-1][:, :3]
    basis = basis * np.where(basis.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    low, high = np.quantile((flat - centre) @ basis, [0.01, 0.99], axis=0)
    return [np.clip(((tokens - centre) @ basis - low) / np.maximum(high - low, 1e-12), 0, 1) for tokens in others]


def spread(error: np.ndarray) -> np.ndarray:
    """Which of [n] to show: those at the QUANTILES of their error."""
    order = np.argsort(error, kind="stable")
    return order[[round(q * (len(order) - 1)) for q in QUANTILES]]


def token_maps(examples: list[Example], layout: Layout) -> bytes:
    """One row per frame: frame, teacher's and student's tokens in the same colours, error, both attention maps."""
    names = ("frame", "teacher's tokens", "student's tokens", "error (share of variance)", "attention", "student's")
    figure = Figure(figsize=(13, 2.3 * len(examples) + 0.4), layout="constrained")
    axes = figure.subplots(len(examples), len(names), squeeze=False)
    stacked = np.stack([e.teacher for e in examples]).astype(np.float64)
    variance = max(float(stacked.reshape(-1, stacked.shape[-1]).var(0).mean()), 1e-12)
    for row, example in zip(axes, examples, strict=True):
        teacher, student = colours(stacked, [example.teacher, example.student])
        error = np.square(example.student - example.teacher.astype(np.float64)).mean(-1) / variance
        peak = max(example.teacher_attention.max(), example.student_attention.max())
        row[0].imshow(example.frame)
        row[1].imshow(layout.picture(teacher))
        row[2].imshow(layout.picture(student))
        shown = row[3].imshow(layout.picture(error), cmap="magma", vmin=0, vmax=max(0.2, float(error.max())))
        figure.colorbar(shown, ax=row[3], shrink=0.8)
        row[4].imshow(layout.picture(example.teacher_attention), cmap="viridis", vmin=0, vmax=peak)
        row[5].imshow(layout.picture(example.student_attention), cmap="viridis", vmin=0, vmax=peak)
        row[0].set_ylabel(example.title, fontsize=8)
    for name, axis in zip(names, axes[0], strict=True):
        axis.set_title(name, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return png(figure)


def located(examples: list[Located], names: tuple[str, ...]) -> bytes:
    """A row per view, a column per observation: truth as rings, the student's word as crosses, a colour per object."""
    figure = Figure(figsize=(2.6 * len(examples) + 0.4, 2.6 * len(names) + 0.4), layout="constrained")
    axes = figure.subplots(len(names), len(examples), squeeze=False)
    for column, example in zip(axes.T, examples, strict=True):
        column[0].set_title(example.title, fontsize=8)
        for axis, view, truth, told in zip(column, example.views, example.truth, example.told, strict=True):
            size, seen = np.array(view.shape[:2]), places.in_sight(truth)
            axis.imshow(view)
            for index, (there, said) in enumerate(zip(truth * size - 0.5, told * size - 0.5, strict=True)):
                colour = f"C{index + 1}"
                if seen[index]:
                    axis.plot(there[1], there[0], "o", markersize=11, fillstyle="none", markeredgewidth=2, color=colour)
                    axis.plot(said[1], said[0], "x", markersize=8, markeredgewidth=2, color=colour)
            axis.set(xticks=[], yticks=[], xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
    for name, axis in zip(names, axes[:, 0], strict=True):
        axis.set_ylabel(name, fontsize=8)
    return png(figure)


def energy(predicted: np.ndarray, true: np.ndarray) -> bytes:
    """Energy against true error, one dot per frame, and the calibration curve over ten groups of equal size."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.scatter(predicted, true, s=6, alpha=0.35, linewidths=0, label="one frame")
    axis.plot(*statistics.calibration(predicted, true), "o-", color="black", label="mean of a tenth")
    high = float(max(predicted.max(), true.max())) * 1.05
    axis.plot([0, high], [0, high], "--", color="grey", linewidth=1, label="perfect")
    axis.set(
        xlabel="energy: predicted e / (e + median)", ylabel="true e / (e + median)", xlim=(0, high), ylim=(0, high)
    )
    axis.legend(fontsize=8)
    return png(figure)


def steps(errors: np.ndarray, lows: np.ndarray, highs: np.ndarray, *, label: str = "mean error e") -> bytes:
    """Mean error after each refinement step [k], with its interval."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    index = np.arange(len(errors))
    axis.errorbar(
        index, errors, yerr=[np.maximum(errors - lows, 0), np.maximum(highs - errors, 0)], marker="o", capsize=3
    )
    axis.set(xlabel="refinement steps", ylabel=label, xticks=index)
    axis.set_ylim(bottom=0)
    return png(figure)


def channels(r2: dict[str, np.ndarray], bar: float) -> bytes:
    """R² of every channel, each subject sorted from worst to best; below -0.5 is cut off."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, values in r2.items():
        axis.plot(np.linspace(0, 100, values.size), np.maximum(np.sort(values), -0.5), label=name)
    axis.axhline(bar, color="grey", linestyle="--", linewidth=1)
    axis.set(xlabel="percentile of channels", ylabel="R²", ylim=(-0.55, 1.02))
    axis.legend(fontsize=8)
    return png(figure)


def latency(samples: dict[str, np.ndarray]) -> bytes:
    """Milliseconds per observation [calls] of each lane: median as a bar, 95th percentile as its whisker."""
    figure = Figure(figsize=(7, 0.5 * len(samples) + 1.2), layout="constrained")
    axis = figure.subplots()
    medians = [float(np.median(seconds)) for seconds in samples.values()]
    for name, seconds in reversed(samples.items()):
        median, tail = np.quantile(seconds, [0.5, 0.95]) * 1000
        axis.barh(name, median, xerr=[[0], [tail - median]], capsize=3, color="C0" if "student" in name else "C7")
    wide = max(medians, default=1.0) > 30 * min(medians, default=1.0)
    axis.set(xlabel="ms per observation: p50, whisker to p95", xscale="log" if wide else "linear")
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG without date or version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
