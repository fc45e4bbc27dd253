"""Pictures of the families suite: some puzzles that were solved and some that were not, as they were seen and told."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bridge import arc
from eval import page, pictures
from eval.puzzles import Outcome

SHOWN = 4


def drawn(found: Sequence[Outcome]) -> list[page.Picture]:
    """The first solved and the first failed of the families in turn."""
    made = []
    for title, wanted in (("Solved", True), ("Failed", False)):
        chosen = [(one, i) for one in found for i in np.flatnonzero(one.exact[-1] == wanted)[:1]]
        if chosen:
            caption = "The first of each family that has one: demonstrations, query, what was told, what was right."
            made.append(page.Picture(title, caption, grids(spread(chosen))))
    return made


def spread(chosen: Sequence[tuple[Outcome, int]]) -> list[tuple[Outcome, int]]:
    """At most SHOWN, evenly over the families."""
    return [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen))).astype(int)]


def grids(chosen: Sequence[tuple[Outcome, int]]) -> bytes:
    """A row per puzzle."""
    columns = chosen[0][0].asked.frames.shape[1] + 2
    figure = Figure(figsize=(1.1 * columns, 1.3 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for row, (one, i) in zip(axes, chosen, strict=True):
        cells = [*one.asked.frames[i], one.said[i], one.asked.answers[i]]
        for axis, each in zip(row, cells, strict=True):
            axis.imshow(arc.PALETTE[each])
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(one.asked.family, fontsize=7)
    titles = [f"{kind} {i + 1}" for i in range((columns - 3) // 2) for kind in ("in", "out")] + [
        "query",
        "told",
        "right",
    ]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return pictures.png(figure)
