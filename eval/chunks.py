"""Action chunks that arrive while the robot moves: what of them is still to come, joined to what it was doing.

Time is in control ticks. Action i of a chunk is meant for tick `observed + i`, the tick of its observation plus i.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

KEPT = 16
"""Chunks that an ensemble averages at most."""


@dataclasses.dataclass(frozen=True)
class Blend:
    """How a new chunk takes over from an old one where both say what to do."""

    kind: Literal["fade", "ensemble"] = "fade"
    """fade: the old plan passes into the new chunk (`crossfade`); ensemble: all chunks are averaged (`ensemble`)."""
    ticks: int = 3
    """fade: ticks that it takes; 0: the new chunk rules at once."""
    decay: float = 0.1
    """ensemble: m of exp(-m i); the smaller, the more new chunks count."""

    def __post_init__(self) -> None:
        if self.ticks < 0 or not np.isfinite(self.decay):
            raise ValueError(f"Blend: ticks must be >= 0 and decay finite, got {self.ticks} and {self.decay}")


FADE = Blend()


def crossfade(old: np.ndarray, new: np.ndarray, *, ticks: int) -> np.ndarray:
    """Actions [m, d] from now on: (1 - a_j) old_j + a_j new_j with a_j = min(1, (j + 1) / (ticks + 1)), where old
    [k, d] has an action for tick j; else new [m, d]."""
    share = np.minimum(1, (np.arange(len(new)) + 1) / (ticks + 1))[: len(old), None]
    plan = np.array(new)
    plan[: len(old)] = (1 - share) * old[: len(new)] + share * new[: len(old)]
    return plan


def ensemble(actions: Sequence[np.ndarray], decay: float) -> np.ndarray:
    """The action [d] for one tick from what several chunks, the oldest first, say of it: sum_i w_i a_i / sum_i w_i
    with w_i = exp(-decay i) (temporal ensembling, arXiv:2304.13705)."""
    weights = np.exp(-decay * np.arange(len(actions)))
    return np.average(np.stack(actions), axis=0, weights=weights)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """actions [h, d], the first for tick `start`."""

    start: int
    actions: np.ndarray

    def at(self, tick: int) -> np.ndarray | None:
        """The action for a tick, None where it has none."""
        return self.actions[tick - self.start] if 0 <= tick - self.start < len(self.actions) else None

    def since(self, tick: int) -> np.ndarray:
        """The actions for a tick and all after it."""
        return self.actions[max(0, tick - self.start) :]


class Chunks:
    """The plan that the chunks so far make."""

    def __init__(self, blend: Blend = FADE):
        self.blend = blend
        self._chunks: list[Chunk] = []
        self._newest: int | None = None

    def add(self, actions: np.ndarray, *, observed: int, now: int) -> bool:
        """Take a chunk [h, d] whose observation is of tick `observed`, at tick `now`, before that tick's action.

        False, and nothing is changed, where it comes too late: all its actions lie in the past, or a chunk of a later
        observation is there. Raises ValueError for an observation of the future.
        """
        if observed > now:
            raise ValueError(f"a chunk of tick {observed} cannot arrive at tick {now}")
        chunk = Chunk(observed, np.asarray(actions, np.float64))
        if not len(chunk.since(now)) or (self._newest is not None and observed < self._newest):
            return False
        self._newest = observed
        if self.blend.kind == "ensemble":
            self._chunks = [*self._chunks, chunk][-KEPT:]
        else:
            old = self._chunks[0].since(now) if self._chunks else chunk.actions[:0]
            self._chunks = [Chunk(now, crossfade(old, chunk.since(now), ticks=self.blend.ticks))]
        return True

    def at(self, tick: int) -> np.ndarray | None:
        """The action [d] for a tick, None where no chunk has one."""
        found = [action for chunk in self._chunks if (action := chunk.at(tick)) is not None]
        return ensemble(found, self.blend.decay) if found else None

    def clear(self) -> None:
        """Forget everything."""
        self._chunks, self._newest = [], None
