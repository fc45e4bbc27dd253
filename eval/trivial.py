"""Policies that know next to nothing: what a success rate is worth without them cannot be said."""

import dataclasses
import hashlib

import numpy as np

from bridge import embodiment as embodiments
from bridge import metaworld_tasks, scene, simulator, store

WIDTH = sum(scene.ACTION.values())
ALL = ("zeros", "random", "nearest_instruction", "nearest_state")
ALIKE = 16
"""Demonstrated moments whose chunks are averaged."""


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


@dataclasses.dataclass(frozen=True)
class ByState:
    """The mean chunk of the ALIKE demonstrated moments of the task that was asked for whose robot state, normalised, is
    nearest: it feels where its hand is and never looks."""

    body: embodiments.Embodiment
    states: dict[str, np.ndarray]  # by task float32 [n, s], normalised
    chunks: dict[str, np.ndarray]  # by task float32 [n, h, 4], physical units

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """Actions [b, h, 4]."""
        felt = embodiments.normalise_rows(self.body, query.state)
        tasks = [metaworld_tasks.asked_for(text) for text in query.instruction]
        return np.stack([self._mean(task, state) for task, state in zip(tasks, felt, strict=True)])

    def _mean(self, task: str, state: np.ndarray) -> np.ndarray:
        if task not in self.states:
            return np.zeros((simulator.EXECUTE, WIDTH), np.float32)
        away = np.square(self.states[task] - state).sum(axis=1)
        return self.chunks[task][np.argsort(away, kind="stable")[:ALIKE]].mean(axis=0)

    @property
    def digest(self) -> str:
        """sha256 of what it remembers."""
        found = hashlib.sha256()
        for task in sorted(self.states):
            found.update(task.encode() + self.states[task].tobytes() + self.chunks[task].tobytes())
        return found.hexdigest()


def by_state(reader: store.Reader) -> ByState:
    """From the training split of the simulated robot's feature store."""
    records, body = reader.records("train"), reader.embodiment()
    ids, shown, state = (reader.take(name, records) for name in ("instruction_id", "demonstration", "state"))
    said = reader.manifest.extraction["instructions"]
    task = np.array([metaworld_tasks.asked_for(said[i]) or "" for i in ids])
    chunks = embodiments.denormalise_rows(body, shown.astype(np.float32)).astype(np.float32)
    of = {name: task == name for name in dict.fromkeys(task.tolist())}
    return ByState(body, {name: state[mask] for name, mask in of.items()}, {n: chunks[m] for n, m in of.items()})
