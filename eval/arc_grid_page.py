"""Pictures of solved and failed ARC tasks: demonstrations, query, what was told, what was right."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bridge import arc
from eval import page, pictures
from eval.arc_grids import Attempts

SHOWN, PAIRS = 4, 3


def drawn(found: Sequence[Attempts], *, title: str) -> list[page.Picture]:
    """The first solved in two attempts, and failed ones spread over the tasks."""
    made = []
    for said, wanted in (("solved", True), ("failed", False)):
        chosen = [one for one in found if one.solved(2) == wanted]
        if chosen:
            picked = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen))).astype(int)]
            caption = (
                f"{len(chosen)} of {len(found)} queries {said} in two attempts; shown are {len(picked)}, evenly spaced."
            )
            made.append(page.Picture(f"{title}: {said}", caption, grids(picked)))
    return made


def grids(chosen: Sequence[Attempts]) -> bytes:
    """A row per query."""
    titles = [f"{kind} {i + 1}" for i in range(PAIRS) for kind in ("in", "out")] + ["query", "told", "right"]
    figure = Figure(figsize=(1.2 * len(titles), 1.4 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), len(titles), squeeze=False)
    for row, one in zip(axes, chosen, strict=True):
        shown = [grid for pair in one.query.task.train[:PAIRS] for grid in (pair.input, pair.output)]
        shown += [None] * (2 * PAIRS - len(shown))
        told = one.grids[0] if one.grids else None
        asked = one.query.task.test[one.query.index].input
        for axis, grid in zip(row, [*shown, asked, told, one.query.answer], strict=True):
            axis.set(xticks=[], yticks=[])
            if grid is None:
                axis.set_visible(False)
            else:
                axis.imshow(arc.PALETTE[grid])
        row[0].set_ylabel(one.query.task.id, fontsize=7)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return pictures.png(figure)
