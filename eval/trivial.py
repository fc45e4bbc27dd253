"""Policies that know next to nothing: what a success rate is worth without them cannot be said."""

import dataclasses
import hashlib

import numpy as np

from bridge import embodiment as embodiments
from bridge import scene, simulator, store

WIDTH = sum(scene.ACTION.values())
ALL = ("zeros", "random", "nearest_instruction")


def zeros(query: simulator.Query) -> np.ndarray:
    """Never moves."""
    return np.zeros((len(query.seed), simulator.EXECUTE, WIDTH), np.float32)


def random(query: simulator.Query) -> np.ndarray:
    """Uniform actions in [-1, 1], the same for the same episode and decision."""
    rows = zip(query.seed.tolist(), query.decision.tolist(), strict=True)
    shape = (simulator.EXECUTE, WIDTH)
    return np.stack([np.random.default_rng([seed, asked, 4]).uniform(-1, 1, shape) for seed, asked in rows])


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The mean demonstrated chunk of the training instruction that shares most words: neither looks nor feels."""

    instructions: tuple[str, ...]
    chunks: np.ndarray  # float32 [i, h, 4], physical units

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """Actions [b, h, 4]."""
        return np.stack([self.chunks[self.nearest(text)] for text in query.instruction])

    def nearest(self, text: str) -> int:
        """Index of the instruction with the largest share of common words; the first of equals."""
        asked = set(text.lower().split())
        shares = [
            len(asked & known) / len(asked | known) for known in (set(t.lower().split()) for t in self.instructions)
        ]
        return int(np.argmax(shares))

    @property
    def digest(self) -> str:
        """sha256 of the chunks and their instructions."""
        return hashlib.sha256(self.chunks.tobytes() + repr(self.instructions).encode()).hexdigest()


def nearest(reader: store.Reader) -> Nearest:
    """From the training split of a robot's feature store."""
    records = reader.records("train")
    ids, shown = reader.take("instruction_id", records), reader.take("demonstration", records)
    used = np.unique(ids)
    means = np.stack([shown[ids == one].mean(axis=0) for one in used])
    physical = embodiments.denormalise(reader.embodiment(), means)
    said = reader.manifest.extraction["instructions"]
    return Nearest(tuple(said[i] for i in used), np.concatenate(list(physical.values()), -1).astype(np.float32))
