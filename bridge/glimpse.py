"""A few of a robot store's frames, with what the teacher's action queries look at, as a picture."""

from __future__ import annotations

import dataclasses

import matplotlib.figure
import numpy as np

from bridge.manifest import SPLITS
from bridge.reader import Reader

MOST = 6
"""Records shown."""


@dataclasses.dataclass(frozen=True)
class Glimpse:
    """frames uint8 [n, v, h, w, 3]; saliency float32 [n, v, g, g] or None; a caption and view names."""

    frames: np.ndarray
    saliency: np.ndarray | None
    captions: tuple[str, ...]
    views: tuple[str, ...]

    @property
    def lines(self) -> int:
        """Rows of pictures: frames of every view, each with the saliency below it."""
        return len(self.views) * (1 + (self.saliency is not None))


def collect(reader: Reader) -> Glimpse | None:
    """Records spread evenly over what is committed; None where the store keeps no frames."""
    records = np.concatenate([reader.records(split) for split in SPLITS])
    if "frames" not in reader.manifest.features or not len(records):
        return None
    chosen = np.sort(records)[np.linspace(0, len(records) - 1, min(MOST, len(records))).astype(int)]
    table, saliency = reader.manifest.records, None
    if "saliency" in reader.manifest.features:
        side = reader.manifest.teacher.grid
        saliency = reader.take("saliency", chosen).reshape(len(chosen), -1, side, side)
    captions = tuple(f"{table['instruction'][i]}\nepisode {table['episode'][i]}, row {table['row'][i]}" for i in chosen)
    return Glimpse(reader.take("frames", chosen), saliency, captions, tuple(reader.manifest.extraction["views"]))


def draw(figure: matplotlib.figure.FigureBase, glimpse: Glimpse) -> None:
    """A column for each record; for each view a row of frames, and one with the saliency over them."""
    layers = glimpse.lines // len(glimpse.views)
    axes = figure.subplots(glimpse.lines, len(glimpse.frames), squeeze=False)
    for row, line in enumerate(axes):
        view, layer = divmod(row, layers)
        for record, axis in enumerate(line):
            picture = glimpse.frames[record, view]
            axis.imshow(picture)
            if layer and glimpse.saliency is not None:
                extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
                axis.imshow(glimpse.saliency[record, view], extent=extent, cmap="inferno", alpha=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(glimpse.captions[record], fontsize=6)
        line[0].set_ylabel(f"{glimpse.views[view]}{', saliency' if layer else ''}", fontsize=7)
