"""Action chunks that arrive while the robot moves: what of them is still to come, joined to what it was doing.

Time is in control ticks. Action i of a chunk is meant for tick `observed + i`, the tick of its observation plus i.
"""

import dataclasses
import math
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


def crossfade(old: np.ndarray, new: np.ndarray, *, tick: int, ticks: int) -> np.ndarray:
    """The action [d] at the fade's tick 0, 1, ...: (1 - a) old + a new with a = min(1, (tick + 1) / (ticks + 1))."""
    share = min(1.0, (tick + 1) / (ticks + 1))
    return (1 - share) * old + share * new


def ensemble(actions: Sequence[np.ndarray], decay: float) -> np.ndarray:
    """The action [d] for one tick from what several chunks, the oldest first, say of it: sum_i w_i a_i / sum_i w_i
    with w_i = exp(-decay i) (temporal ensembling, arXiv:2304.13705)."""
    weights = np.exp(-decay * np.arange(len(actions)))
    return np.average(np.stack(actions), axis=0, weights=weights)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """actions [h, d], the first for the tick in which the observation was taken. observed: when, in ticks and parts of
    them; joined: the tick at which it came."""

    observed: float
    joined: int
    actions: np.ndarray

    def at(self, tick: int) -> np.ndarray | None:
        """The action for a tick, None where it has none."""
        passed = tick - math.floor(self.observed)
        return self.actions[passed] if 0 <= passed < len(self.actions) else None


class Chunks:
    """The plan that the chunks so far make."""

    def __init__(self, blend: Blend = FADE):
        self.blend = blend
        self._chunks: list[Chunk] = []
        self._newest = -math.inf

    def add(self, actions: np.ndarray, *, observed: float, now: int) -> bool:
        """Take a chunk [h, d] whose observation is of tick `observed`, or some part of a tick later, at tick `now`,
        before that tick's action.

        False, and nothing is changed, where it comes too late: all its actions lie in the past, or a chunk of a later
        observation is there. Raises ValueError for an observation of the future.
        """
        if math.floor(observed) > now:
            raise ValueError(f"a chunk of tick {math.floor(observed)} cannot arrive at tick {now}")
        chunk = Chunk(observed, now, np.asarray(actions, np.float64))
        if math.floor(observed) + len(chunk.actions) <= now or observed < self._newest:
            return False
        self._newest = observed
        if self.blend.kind == "ensemble":
            self._chunks = [*self._chunks, chunk][-KEPT:]
        else:
            ruling = [i for i, one in enumerate(self._chunks) if now - one.joined >= self.blend.ticks]
            self._chunks = [*self._chunks[max(ruling, default=0) :], chunk]
        return True

    def at(self, tick: int) -> np.ndarray | None:
        """The action [d] for a tick, None where no chunk (fade: the newest chunk) has one."""
        if self.blend.kind == "ensemble":
            found = [action for chunk in self._chunks if (action := chunk.at(tick)) is not None]
            return ensemble(found, self.blend.decay) if found else None
        plan = None
        for chunk in self._chunks:
            old, plan = plan, chunk.at(tick)
            if old is not None and plan is not None:
                plan = crossfade(old, plan, tick=tick - chunk.joined, ticks=self.blend.ticks)
        return plan

    def forget(self, before: float) -> None:
        """Drop the chunks whose observation is of before then, in ticks: no action after this has a part of them."""
        self._chunks = [chunk for chunk in self._chunks if chunk.observed >= before]

    def clear(self) -> None:
        """Forget everything."""
        self._chunks, self._newest = [], -math.inf
