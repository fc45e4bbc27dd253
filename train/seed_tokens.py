"""The teacher's image tokens of ARC tasks as a source of batches for the original student: demonstrations and a query.

A query's frame holds its input alone, and image tokens know nothing of other frames, so a demonstration can be asked
too while its output is left out.
"""

import dataclasses

import numpy as np

from bridge import arc, store
from train import data

SHOWN = 4
"""Demonstrations at most."""
FRAMES = 2 * SHOWN + 1


@dataclasses.dataclass(frozen=True)
class Asked:
    """A query: where its frames begin on the store's "image" axis, in the order shown, and what is right."""

    task: str
    pair: int
    """Which test input; of a demonstration which one, counted after those."""
    frames: tuple[int, ...]
    answer: np.ndarray  # uint8 [30, 30], 10 outside the grid


class Tokens:
    """The queries of one split."""

    def __init__(self, reader: store.Reader, split: str, *, cache_bytes: float):
        if split not in ("train", "validation"):
            raise data.DataError(f"training never reads split {split!r}: only eval.benchmark opens it")
        reader.exact("image_tokens")
        self.split, self._reader, self.tokens = split, reader, reader.manifest.teacher.tokens
        self.asked = asked(reader, split, leave_one_out=split == "train")
        self._cached = self._everything(cache_bytes)

    def __len__(self) -> int:
        return len(self.asked)

    def read(self, positions: np.ndarray) -> data.Batch:
        """tokens bfloat16 [b, 9 t, d] of the teacher, mask bool [b, 9 t], answers uint8 [b, 30, 30] with 10 outside
        the grid, valid bool [b] (all true)."""
        chosen = [self.asked[int(position)] for position in positions]
        return {
            **gathered(self._tokens, chosen, self.tokens),
            "answers": np.stack([one.answer for one in chosen]),
            "valid": np.ones(len(chosen), bool),
        }

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One part of the samples."""
        return self.read(positions)[name]

    def _everything(self, cache_bytes: float) -> dict[int, np.ndarray]:
        starts = np.unique([start for one in self.asked for start in one.frames])
        if len(starts) * self.tokens * self._reader.manifest.features["image_tokens"].row_bytes > cache_bytes:
            return {}
        return dict(zip(starts.tolist(), self._reader.read("image_tokens", starts, self.tokens), strict=True))

    def _tokens(self, starts: np.ndarray) -> np.ndarray:
        if self._cached:
            return np.stack([self._cached[int(start)] for start in starts])
        return self._reader.read("image_tokens", starts, self.tokens)


def gathered(read, chosen: list[Asked], tokens: int) -> dict[str, np.ndarray]:
    """`tokens` and `mask` of some queries. read: starts [n] -> tokens [n, t, d]."""
    counts = np.array([len(one.frames) for one in chosen])
    found = read(np.concatenate([one.frames for one in chosen]))
    there = np.arange(FRAMES)[None] < counts[:, None]
    made = np.zeros((len(chosen), FRAMES, *found.shape[1:]), found.dtype)
    made[there] = found
    return {"tokens": made.reshape(len(chosen), FRAMES * tokens, -1), "mask": np.repeat(there, tokens, axis=1)}


def asked(reader: store.Reader, split: str, *, leave_one_out: bool) -> list[Asked]:
    """Every test input of the split's tasks; with `leave_one_out` every demonstration too, shown the others."""
    kept = reader.manifest.records
    version = int(str(reader.manifest.extraction.get("dataset", "arc1"))[-1])
    learned = version == 2 and split != "test"  # much of ARC-2 was published before, as what ARC-1 holds out
    tasks = {task.id: task for task in (arc.trainable(2, 1, split) if learned else arc.splits(version)[split])}
    starts = {
        (kept["task"][i], kept["kind"][i], kept["pair"][i]): int(reader.starts["image"][i])
        for i in reader.records(split)
    }
    wide, found = reader.manifest.teacher.tokens, []
    for name, task in tasks.items():
        shown = [starts.get((name, "demonstration", pair)) for pair in range(len(task.train))]
        queries = [starts.get((name, "query", pair)) for pair in range(len(task.test))]
        if None in (*shown, *queries):
            continue  # a store of some tasks alone
        pairs = [(start, task.test[i].output, -1) for i, start in enumerate(queries)]
        pairs += [(start, task.train[i].output, i) for i, start in enumerate(shown) if leave_one_out]
        for number, (start, answer, left_out) in enumerate(pairs):
            rest = [begin for i, begin in enumerate(shown) if i != left_out][:SHOWN]
            frames = (*(begin + side * wide for begin in rest for side in (0, 1)), start)
            found.append(Asked(name, number, frames, arc.cells(answer)))
    if not found:
        raise data.DataError(f"the store holds no whole ARC task of split {split!r}; extract it with --splits {split}")
    return found
