"""Batches of single frames from the feature store, as a pure function of the step: the step is the whole data state."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import grain
import numpy as np

from bridge import arc, store

PIXELS = 15
"""Pixels per cell: the student's box mean makes it bit-identical to the teacher's 30, at a quarter of the bytes."""
Batch = dict[str, np.ndarray]


class DataError(ValueError):
    """The store cannot feed this stage; the message says what is missing."""


@runtime_checkable  # the jaxtyping checker asks isinstance
class Source(Protocol):
    """What a loop can train on."""

    tokens: int
    """Image tokens of a frame."""

    def __len__(self) -> int: ...

    def read(self, positions: np.ndarray) -> Batch:
        """The samples at these positions 0..len, and `valid` bool [b], all true."""

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One feature of some samples, in the store's dtype."""


class Frames:
    """The frames of one split: pictures and the teacher's features of each, by position 0..len."""

    def __init__(
        self, reader: store.Reader, split: str, *, features: tuple[str, ...], cache_bytes: float, pixels: int = PIXELS
    ):
        """`cache_bytes`: features are kept in memory where the split's are at most that large. pixels: of a cell."""
        if split not in ("train", "validation"):
            raise DataError(f"training never reads split {split!r}: only eval.benchmark opens it")
        self.split, self._reader, self._pixels = split, reader, pixels
        missing = [name for name in (*features, "cells") if name not in reader.manifest.features]
        if missing:
            raise DataError(f"the store lacks {missing}; extract again with --features including them")
        known = trainable(reader, split)
        self._rows = reader.frames(split)[0][known]
        self._arrays = tuple(array for name in features for array in reader.arrays(name))
        axes = {reader.manifest.features[name].axis for name in self._arrays}
        self._starts = {axis: reader.frames(split, axis)[1][known] for axis in axes}
        self.tokens = reader.manifest.teacher.tokens
        self._cached: dict[str, np.ndarray] = {}
        self._padding = reader.manifest.extraction.get("padding", "white")
        if len(self) == 0:
            raise DataError(f"split {split!r} of the store is empty; extract it with --splits {split}")
        if self._size() <= cache_bytes:
            everything = np.arange(len(self))
            self._cached = {name: self._stored(name, everything) for name in (*self._arrays, "cells")}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def cached(self) -> bool:
        """Whether the features are in memory."""
        return bool(self._cached)

    def read(self, positions: np.ndarray) -> Batch:
        """video uint8 [b, 1, 1, s, s, 3] of 30 cells, every feature [b, 1, tokens, ...], valid bool [b] (all true).

        Coded features as the store holds them: `compact.decoded` undoes that on the device.
        """
        return {
            "video": arc.render(self.fetch("cells", positions), pixels=self._pixels, padding=self._padding)[
                :, None, None
            ],
            **{name: widened(self._held(name, positions))[:, None] for name in self._arrays},
            "valid": np.ones(len(positions), bool),
        }

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One feature of some frames: cells uint8 [b, 30, 30], others [b, tokens, ...], in the teacher's own basis."""
        return decoded(self._reader, name, lambda array: self._held(array, positions))

    def _held(self, name: str, positions: np.ndarray) -> np.ndarray:
        return self._cached[name][positions] if name in self._cached else self._stored(name, positions)

    def _stored(self, name: str, positions: np.ndarray) -> np.ndarray:
        if name == "cells":
            return self._reader.read(name, self._rows[positions], 1)[:, 0]
        axis = self._reader.manifest.features[name].axis
        return self._reader.read(name, self._starts[axis][positions], self._reader.tokens(axis), stored=True)

    def _size(self) -> int:
        kinds, reader = self._reader.manifest.features, self._reader
        tokens = sum(reader.tokens(kinds[name].axis) * kinds[name].row_bytes for name in self._arrays)
        return len(self) * (tokens + kinds["cells"].row_bytes)


def decoded(reader: store.Reader, name: str, held: Callable[[str], np.ndarray]) -> np.ndarray:
    """A feature of whatever `held` gives of its arrays, as `store.Reader.read` gives it."""
    if name in reader.codings:
        return reader.codings[name].decode(*(held(array) for array in reader.arrays(name)))
    return widened(held(name))


def widened(array: np.ndarray) -> np.ndarray:
    """float16, which only a store computes with, as float32; all else as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def trainable(reader: store.Reader, split: str) -> np.ndarray:
    """Which frames of a split may be learned from, bool [n]: of ARC-AGI-2's training and validation tasks, most of
    which were published before, only those that share nothing with what ARC-AGI-1 holds out."""
    records = reader.records(split)
    known = np.ones(len(records), bool)
    if reader.manifest.extraction.get("dataset") == "arc2":  # validation too: it decides which checkpoint is reported
        allowed, tasks = {task.id for task in arc.trainable(2, 1, split)}, reader.manifest.records["task"]
        known = np.array([tasks[i] in allowed for i in records], bool)
    return np.repeat(known, reader.counts["frame"][records])


def order(size: int, *, batch: int, seed: int) -> grain.MapDataset:
    """The endless sequence of shuffled positions [batch] in 0..size, each epoch in an order of its own."""
    return grain.MapDataset.range(size).seed(seed).shuffle().repeat().batch(batch)


EVERY = slice(None)


def training(
    frames: Source, *, batch: int, seed: int, rows: slice = EVERY, clock: "Clock | None" = None
) -> grain.MapDataset:
    """The endless sequence of training batches: element `step` is the batch of that step, whoever asks, whenever.

    rows: of every batch only these, as one of several processes reads it. clock: is told how long a read takes.
    """
    clock = clock or Clock()

    def read(positions: np.ndarray) -> Batch:
        with clock.reading():
            return part(frames, np.asarray(positions), rows)

    return order(len(frames), batch=batch, seed=seed).map(read)


def part(frames: Source, positions: np.ndarray, rows: slice) -> Batch:
    """These rows of a batch; of a source whose samples depend on which others there are, all must be read for it."""
    if rows != EVERY and getattr(frames, "together", False):
        return {name: array[rows] for name, array in frames.read(positions).items()}
    return frames.read(positions[rows])


def read_ahead(batches: grain.MapDataset, *, start: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """Batches from step `start` on, read by threads while the devices work."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(batches[start:].to_iter_dataset(options))


def validation(frames: Source, *, batch: int, limit: int, rows: slice = EVERY) -> Iterator[Batch]:
    """Every batch of at most `limit` frames spaced evenly over the split; the last is padded and marked invalid.

    rows: of every batch only these.
    """
    chosen = np.linspace(0, len(frames) - 1, min(limit, len(frames))).round().astype(int)
    for first in range(0, len(chosen), batch):
        positions = chosen[first : first + batch]
        padded = part(frames, np.resize(positions, batch), rows)
        yield {**padded, "valid": (np.arange(batch) < len(positions))[rows]}


def token_sample(frames: Source, name: str, *, most: int, batch: int = 256) -> Iterator[np.ndarray]:
    """Tokens [n, d] of a feature from frames spaced evenly over the split, at most about `most` tokens in all."""
    count = max(1, min(len(frames), most // frames.tokens))
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    for first in range(0, count, batch):
        tokens = frames.fetch(name, chosen[first : first + batch])
        yield tokens.reshape(-1, tokens.shape[-1])


class Clock:
    """How long reader threads read, and how long the loop waited for them, since the last `reset`."""

    def __init__(self):
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Starts counting again."""
        with self._lock:
            self._since, self._waited, self._busy, self._reads = time.perf_counter(), 0.0, 0.0, 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around one read, in any thread."""
        start = time.perf_counter()
        yield
        with self._lock:
            self._busy, self._reads = self._busy + time.perf_counter() - start, self._reads + 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the loop's wait for a batch."""
        start = time.perf_counter()
        yield
        with self._lock:
            self._waited += time.perf_counter() - start

    def read(self, rate: float, *, threads: int) -> dict[str, float]:
        """`clock/loader_wait`: share of the time that the loop waited. `clock/loader_ahead`: how many times as fast as
        the steps, `rate` a second, batches would come if the threads never rested; 0 before anything was read."""
        with self._lock:
            possible = threads * self._reads / self._busy if self._busy else 0.0
            waited = self._waited / max(time.perf_counter() - self._since, 1e-9)
        return {"clock/loader_wait": waited, "clock/loader_ahead": possible / max(rate, 1e-9)}
