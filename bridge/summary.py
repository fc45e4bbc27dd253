"""What a feature's values look like: streaming moments per channel and an exact histogram of their bfloat16 codes."""

from __future__ import annotations

import dataclasses
import pathlib

import matplotlib.figure
import ml_dtypes
import numpy as np

from bridge import glimpse
from bridge.glimpse import Glimpse

DEAD = 1e-6  # a channel whose standard deviation is below this share of the feature's is dead
BINS = 120
TAIL = 1e-4  # share of values that the picture leaves out on either side


@dataclasses.dataclass
class Summary:
    """Of rows seen so far: count, and per channel mean, sum of squared deviations, least and greatest, in float64."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    least: np.ndarray
    most: np.ndarray
    codes: np.ndarray

    @classmethod
    def empty(cls, channels: int) -> Summary:
        """Nothing seen yet."""
        zero, infinite = np.zeros(channels), np.full(channels, np.inf)
        return cls(0, zero, zero, infinite, -infinite, np.zeros(1 << 16, np.int64))

    def add(self, rows: np.ndarray) -> None:
        """Take in finite rows [n, channels] (Chan's update, so that large means cost no precision)."""
        values = rows.astype(np.float64)
        total = self.count + len(rows)
        mean = values.mean(axis=0)
        shift = mean - self.mean
        self.squares = self.squares + ((values - mean) ** 2).sum(axis=0) + shift**2 * self.count * len(rows) / total
        self.mean = self.mean + shift * len(rows) / total
        self.count = total
        self.least, self.most = np.minimum(self.least, values.min(axis=0)), np.maximum(self.most, values.max(axis=0))
        self.codes += np.bincount(rows.astype(ml_dtypes.bfloat16).view(np.uint16).ravel(), minlength=1 << 16)

    @property
    def std(self) -> float:
        """Standard deviation of all values."""
        return float(np.sqrt((self.squares / max(self.count, 1)).mean() + self.mean.var()))

    @property
    def dead(self) -> float:
        """Share of channels that hardly vary."""
        return float((np.sqrt(self.squares / max(self.count, 1)) <= DEAD * self.std).mean())

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges [bins + 1], share of values per bin), the outermost TAIL of the values left out."""
        codes = np.arange(1 << 16, dtype=np.uint32)
        values = (codes << 16).view(np.float32)  # a bfloat16 is the upper half of a float32
        codes = codes[np.isfinite(values)]
        codes = codes[np.argsort(values[codes])]
        values, counts = values[codes].astype(np.float64), self.codes[codes]
        below = np.cumsum(counts) / max(counts.sum(), 1)
        low, high = values[np.searchsorted(below, TAIL)], values[min(np.searchsorted(below, 1 - TAIL), len(values) - 1)]
        shares, edges = np.histogram(values, BINS, (low, high if high > low else low + 1), weights=counts)
        return edges, shares / max(counts.sum(), 1)


def draw(path: pathlib.Path, summaries: dict[str, Summary], title: str, seen: Glimpse | None = None) -> None:
    """A PNG with one histogram a feature, shares on a logarithmic axis; below a robot's frames, where there are any."""
    tall = 1 + 2.2 * len(summaries)
    above = 1.2 * seen.lines if seen else 0.0
    figure = matplotlib.figure.Figure(figsize=(7, above + tall), layout="constrained")
    below: matplotlib.figure.FigureBase = figure
    if seen is not None:
        top, below = figure.subfigures(2, 1, height_ratios=(above, tall))
        glimpse.draw(top, seen)
    axes = below.subplots(len(summaries), 1, squeeze=False)[:, 0]
    for axis, (name, summary) in zip(axes, summaries.items(), strict=True):
        edges, shares = summary.histogram()
        axis.stairs(shares, edges, fill=True, color="#1f5f8b")
        axis.set_yscale("log")
        axis.set_title(
            f"{name}: mean {summary.mean.mean():.4g}, std {summary.std:.4g}, dead {summary.dead:.1%}", fontsize=9
        )
        axis.set_ylabel("share of values", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
