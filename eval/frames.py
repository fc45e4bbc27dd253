"""The frames of one split of a store, a batch in memory at a time, each with the task it belongs to."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from bridge import arc, store
from eval.layout import Layout

PIXELS = 15  # per cell: the student's box mean makes it bit-identical to the observation's 30
BATCH_VALUES = 1 << 20  # token values read at once
LARGEST_BATCH = 64
FEATURES = ("cells", "image_tokens", "vision_attention")


class SplitError(ValueError):
    """The store holds nothing to evaluate on; the message says what to extract."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some frames: `task` int [b] indexes the split's tasks; attention sums to 1 per tile."""

    task: np.ndarray
    image: np.ndarray  # uint8 [b, 450, 450, 3]
    tokens: np.ndarray  # float32 [b, n, d], the teacher's own basis
    attention: np.ndarray  # float32 [b, tiles, n / tiles]
    inside: np.ndarray  # bool [b, n]: tokens that see part of the grid


class Frames:
    """Frames of a split in the store's order. Iterating reads them from disk, each time anew."""

    def __init__(self, reader: store.Reader, split: str):
        self._reader, self.split, self.layout = reader, split, layout(reader)
        _check(reader, split)
        records = reader.records(split)
        self.record = np.repeat(records, reader.counts["frame"][records])
        self._rows, self._starts = reader.frames(split)
        self.tasks, self.task = np.unique(np.array(reader.manifest.records["task"])[self.record], return_inverse=True)

    def __len__(self) -> int:
        return len(self.task)

    @property
    def batch(self) -> int:
        """Frames per batch: what keeps a batch of tokens small."""
        return int(np.clip(BATCH_VALUES // (self.layout.tokens * self.width), 1, LARGEST_BATCH))

    @property
    def width(self) -> int:
        """Channels of an image token."""
        return self._reader.manifest.teacher.width

    def limited(self, *, tasks: int | None = None, frames: int | None = None, seed: int = 0) -> "Frames":
        """The same split with at most so many tasks (drawn by the seed, all frames of each), then frames."""
        rng = np.random.default_rng(seed)
        keep = np.ones(len(self), bool)
        if tasks is not None and tasks < len(self.tasks):
            keep = np.isin(self.task, rng.choice(len(self.tasks), tasks, replace=False))
        chosen = np.flatnonzero(keep)
        if frames is not None and frames < len(chosen):
            chosen = np.sort(rng.choice(chosen, frames, replace=False))
        return self._only(chosen)

    def _only(self, chosen: np.ndarray) -> "Frames":
        part = object.__new__(Frames)
        part._reader, part.split, part.layout = self._reader, self.split, self.layout
        part.record, part._rows, part._starts = self.record[chosen], self._rows[chosen], self._starts[chosen]
        part.tasks, part.task = np.unique(self.tasks[self.task[chosen]], return_inverse=True)
        return part

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self), self.batch):
            yield self.read(np.arange(first, min(first + self.batch, len(self))))

    def read(self, positions: np.ndarray) -> Batch:
        """The frames at these positions of this split."""
        tokens, attention = (
            self._reader.read(name, self._starts[positions], self.layout.tokens).astype(np.float32)
            for name in ("image_tokens", "vision_attention")
        )
        attention = attention.reshape(len(positions), self.layout.tiles, -1)
        inside = self.layout.touched(self._cells(positions) != arc.OUTSIDE)
        return Batch(self.task[positions], self.image(positions), tokens, attention, inside)

    def image(self, positions: np.ndarray, *, pixels: int = PIXELS) -> np.ndarray:
        """Rendered frames uint8 [b, 30 * pixels, 30 * pixels, 3], padded as the teacher saw them."""
        padding = self._reader.manifest.extraction.get("padding", "white")
        return arc.render(self._cells(positions), pixels=pixels, padding=padding)

    def _cells(self, positions: np.ndarray) -> np.ndarray:
        return self._reader.read("cells", self._rows[positions], 1)[:, 0]

    def describe(self, position: int) -> dict[str, object]:
        """Where one frame comes from: task, kind, pair and the frame's place in its record."""
        table, record = self._reader.manifest.records, int(self.record[position])
        place = int(self._rows[position] - self._reader.starts["frame"][record])
        return {name: table[name][record] for name in ("task", "kind", "pair")} | {"record": record, "frame": place}


def layout(reader: store.Reader) -> Layout:
    """How the store's teacher cuts a frame."""
    teacher = reader.manifest.teacher
    return Layout(teacher.grid, teacher.columns, teacher.rows, teacher.thumbnail)


def _check(reader: store.Reader, split: str) -> None:
    command = "python -m teacher_torch.extract"
    if missing := [name for name in FEATURES if name not in reader.manifest.features]:
        raise SplitError(
            f"the store lacks {', '.join(missing)}; extract again: {command} --features {' '.join(FEATURES)}"
        )
    reader.exact("image_tokens")
    if not len(reader.records(split)):
        raise SplitError(f"split {split!r} of the store is empty; extract it: {command} --split {split}")
