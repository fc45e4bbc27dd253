"""ARC tasks as a source of batches: pairs that are asked in turn, seen otherwise each time, on a canvas no larger than
the tasks of a batch need."""

import functools

import numpy as np

from bridge import arc, arc_content
from train import data

PIXELS = 4
"""Of a cell."""
ASKED = 4
"""Pairs of a task at most."""
CANVASES = (10, 16, 22, 30)
"""Cells of a side; a batch of training holds tasks of one canvas."""
TURNS = {"train": 1 << 10, "validation": 1}
"""How often each task is drawn, differently every time; validation sees tasks as they are."""


class Tasks:
    """The tasks of one split."""

    tokens = arc.SIDE**2
    together = True  # the canvas of a batch is that of all its tasks

    def __init__(self, split: str):
        if split not in TURNS:
            raise data.DataError(f"training never reads split {split!r}: only eval.benchmark opens it")
        self.split, self.tasks = split, known(split)
        self.canvas = np.array([canvas(task) for task in self.tasks])
        self.alike = {size: np.flatnonzero(self.canvas == size) for size in CANVASES}

    def __len__(self) -> int:
        return len(self.tasks) * TURNS[self.split]

    def read(self, positions: np.ndarray) -> data.Batch:
        """video uint8 [b, 8, 1, s, s, 3] (pairs' inputs and outputs in turn), answers uint8 [b, 4, n, n] with 10
        outside the grid, asked bool [b, 4] (which pairs there are), valid bool [b] (all true).

        Of a training batch the first position says which canvas; the others choose among the tasks of that canvas. Of
        validation every position is a task.
        """
        positions = np.asarray(positions)
        chosen = self._chosen(positions)
        size = int(self.canvas[chosen].max())
        drawn = [self._drawn(int(task), int(position)) for task, position in zip(chosen, positions, strict=True)]
        cells = np.stack([stacked(pairs, size) for pairs in drawn])
        return {
            "video": render(cells)[:, :, None],
            "answers": cells[:, 1::2],
            "asked": np.stack([np.arange(ASKED) < len(pairs) for pairs in drawn]),
            "valid": np.ones(len(positions), bool),
        }

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One part of the samples."""
        return self.read(positions)[name]

    def _chosen(self, positions: np.ndarray) -> np.ndarray:
        if self.split != "train":
            return positions % len(self.tasks)
        same = self.alike[int(self.canvas[positions[0] % len(self.tasks)])]
        return same[positions % len(same)]

    def _drawn(self, index: int, position: int) -> list[arc.Pair]:
        """At most ASKED pairs of a task; in training in another order, turned, mirrored and recoloured."""
        task = self.tasks[index]
        if self.split != "train":
            return whole(task)[:ASKED]
        rng = np.random.default_rng([position, index])
        pairs = whole(arc.augment(task, rng))
        return [pairs[i] for i in rng.permutation(len(pairs))[:ASKED]]


@functools.cache
def known(split: str) -> tuple[arc.Task, ...]:
    """Tasks of ARC-1's split; for training those of ARC-2 too that share nothing with what ARC-1 holds out."""
    tasks = arc.splits(1)[split]
    if split != "train":
        return tasks
    mine = {arc_content.content_hash(task) for task in tasks}
    return tasks + tuple(task for task in arc.trainable(2, 1) if arc_content.content_hash(task) not in mine)


def whole(task: arc.Task) -> list[arc.Pair]:
    """All pairs whose output is known."""
    return [pair for pair in (*task.train, *task.test) if pair.output is not None]


def canvas(task: arc.Task) -> int:
    """The smallest of CANVASES that holds every grid of a task."""
    largest = max(max(grid.shape) for pair in whole(task) for grid in (pair.input, pair.output))
    return next(size for size in CANVASES if size >= largest)


def stacked(pairs: list[arc.Pair], size: int) -> np.ndarray:
    """uint8 [2 * ASKED, size, size]: inputs and outputs in turn, 10 outside the grids and where there is no pair."""
    made = np.full((2 * ASKED, size, size), arc.OUTSIDE, np.uint8)
    for index, grid in enumerate(grid for pair in pairs for grid in (pair.input, pair.output)):
        made[index, : grid.shape[0], : grid.shape[1]] = grid
    return made


def render(cells: np.ndarray) -> np.ndarray:
    """Cells [..., n, n] -> uint8 RGB [..., PIXELS * n, PIXELS * n, 3]."""
    return arc.PALETTE[cells].repeat(PIXELS, axis=-3).repeat(PIXELS, axis=-2)
