"""Observations of a robot from the feature store, and what the teacher made of them; an interface as `data.Frames`."""

from collections.abc import Sequence

import numpy as np

from bridge import compaction, store
from train import data, words

OBSERVED = ("frames", "state", "instruction_id")
TOKENS = ("image", compaction.AXIS)
"""Axes of image tokens and of their blocks, equally many in every view."""


class Observations:
    """The observations of one split, by position 0..len. Reads what the stage asks for and the observation itself."""

    def __init__(
        self,
        reader: store.Reader,
        split: str,
        *,
        features: tuple[str, ...],
        text: tuple[np.ndarray, np.ndarray],
        cache_bytes: float,
        shown: bool = True,
    ):
        """text: tokens int32 and mask bool [instructions, length] of the store's instructions, in their order.

        shown: its chunks were demonstrated; False where a student acted, whose own actions are no example.

        `cache_bytes`: everything is kept in memory where the split is at most that large.
        """
        if split not in ("train", "validation"):
            raise data.DataError(f"training never reads split {split!r}: only eval.benchmark opens it")
        known = reader.manifest.features
        if missing := [name for name in (*OBSERVED, *features) if name not in known]:
            raise data.DataError(f"the store lacks {missing}; extract again with --features including them")
        self.split, self.tokens, self._reader = split, reader.manifest.teacher.tokens, reader
        self._records = reader.records(split)
        if len(self) == 0:
            raise data.DataError(f"split {split!r} of the store is empty; the dataset has no episodes of it")
        self._text, self._shown = text, shown
        self._arrays = tuple(array for name in features for array in reader.arrays(name))
        self.views = int(reader.counts["frame"][self._records[0]])
        self._cached: dict[str, np.ndarray] = {}
        names = (*OBSERVED, *self._arrays)
        if len(self) * sum(self._row_bytes(name) for name in names) <= cache_bytes:
            self._cached = {name: self._stored(name, np.arange(len(self))) for name in names}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def cached(self) -> bool:
        """Whether the split is in memory."""
        return bool(self._cached)

    def read(self, positions: np.ndarray) -> data.Batch:
        """video uint8 [b, 1, v, h, w, 3], state float32 [b, 1, d], tokens int32 and token_mask bool [b, l], shown and
        valid bool [b] (valid: all true), and every feature: [b, v, tokens, ...] per image token, else [b, ...].

        Coded features as the store holds them: `compact.decoded` undoes that on the device.
        """
        tokens, mask = (part[self.fetch("instruction_id", positions)] for part in self._text)
        return {
            "video": self.fetch("frames", positions)[:, None],
            "state": self.fetch("state", positions)[:, None],
            "tokens": tokens,
            "token_mask": mask,
            **{name: data.widened(self._held(name, positions)) for name in self._arrays},
            "shown": np.full(len(positions), self._shown),
            "valid": np.ones(len(positions), bool),
        }

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One feature of some observations, in the teacher's own basis."""
        return data.decoded(self._reader, name, lambda array: self._held(array, positions))

    def _held(self, name: str, positions: np.ndarray) -> np.ndarray:
        return self._cached[name][positions] if name in self._cached else self._stored(name, positions)

    def _stored(self, name: str, positions: np.ndarray) -> np.ndarray:
        found = self._reader.take(name, self._records[positions], stored=True)
        if self._reader.manifest.features[name].axis in TOKENS:
            return found.reshape(len(positions), self.views, -1, *found.shape[2:])
        return found

    def _rows(self, axis: str) -> int:
        if axis not in ("record", "frame", *TOKENS):
            raise data.DataError(f"features on the axis {axis!r} differ in length and cannot be trained on")
        return int(self._reader.counts[axis][self._records[0]])

    def _row_bytes(self, name: str) -> int:
        feature = self._reader.manifest.features[name]
        return feature.row_bytes * self._rows(feature.axis)


class Joined:
    """Several sources as one: the positions of the first, then those of the next."""

    def __init__(self, parts: Sequence[Observations]):
        self._parts, self.tokens = list(parts), parts[0].tokens
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, positions: np.ndarray) -> data.Batch:
        """The samples at these positions."""
        whose = np.searchsorted(self._ends, positions, side="right")
        order = np.argsort(whose, kind="stable")
        batches = [self._parts[i].read(self._own(i, positions[whose == i])) for i in np.unique(whose)]
        back = np.argsort(order)
        return {name: np.concatenate([batch[name] for batch in batches])[back] for name in batches[0]}

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One feature of some samples of the first source, from which statistics are taken."""
        return self._parts[0].fetch(name, positions)

    def _own(self, index: int, positions: np.ndarray) -> np.ndarray:
        return positions - (self._ends[index] - len(self._parts[index]))


def instructions(reader: store.Reader) -> list[str]:
    """What the store's observations were asked, by `instruction_id`."""
    found = reader.manifest.extraction.get("instructions")
    if not found:
        raise data.DataError("the store holds no instructions: extract it with --task robot")
    return list(found)


def vocabulary(reader: store.Reader, size: int, *, least: int = 2) -> words.Words:
    """The student's tokenizer, trained on the instructions of the training split alone: what they say `least` times."""
    records = reader.records("train")
    ids = reader.read("instruction_id", reader.starts["record"][records], 1)[:, 0]
    said = instructions(reader)
    return words.train([said[i] for i in sorted({*ids.tolist()})], size, least=least)
