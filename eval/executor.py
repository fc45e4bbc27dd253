"""A robot's control loop, without the robot: chunks in whenever they arrive, one safe command out per tick."""

import dataclasses
import math
from typing import Literal

import numpy as np

from eval import chunks
from eval.guard import Guard, Limits

SLACK = 1e-6
"""Of a tick: how early the clock may be, as sums of floats are."""


@dataclasses.dataclass(frozen=True)
class Safety:
    """What the watchdog watches."""

    max_age_s: float = 0.5
    """Seconds since the observation behind a command, at most; also since the latest observation."""
    stop_after_s: float = 2.0
    """Seconds of holding after which it stops for good, until `resume`."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to send now. action [d]; state: run (a chunk's action), hold or stop; reason: why not run."""

    action: np.ndarray
    state: Literal["run", "hold", "stop"]
    reason: str = ""


@dataclasses.dataclass
class Counts:
    """What happened so far. missed: ticks without a call, in a loop that is too slow; late: chunks that came too late;
    refused: chunks with NaN or infinite values."""

    run: int = 0
    hold: int = 0
    stop: int = 0
    missed: int = 0
    late: int = 0
    refused: int = 0


class Executor:
    """Deterministic: everything follows from the times (seconds of any one clock) and chunks it is given. For one
    thread.

    While it holds, dimensions that are displacements go to 0 and the others keep their last command, no faster than
    the limits allow.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        period_s: float,
        started: float,
        start: np.ndarray,
        relative: np.ndarray | bool,
        blend: chunks.Blend = chunks.FADE,
        safety: Safety = Safety(),
    ):
        """started: when tick 0 begins; start [d]: the command in force then; relative: bool or [d], which dimensions
        are displacements."""
        if not period_s > 0:
            raise ValueError(f"period_s must be > 0, got {period_s}")
        self.period_s, self.started, self.safety = period_s, started, safety
        self.guard, self.chunks, self.counts = Guard(limits, start), chunks.Chunks(blend), Counts()
        self._relative = np.broadcast_to(relative, self.guard.last.shape)
        self._tick, self._observed_at, self._held_since, self._stopped = -1, -math.inf, None, False

    def offer(self, actions: np.ndarray, *, observed_at: float, now: float) -> bool:
        """Take a chunk [h, d] that answers an observation of `observed_at`; False where it is of no use (counted).
        Raises ValueError for another width or an observation of the future."""
        actions = np.asarray(actions, np.float64)
        if actions.ndim != 2 or actions.shape[1:] != self.guard.last.shape:
            raise ValueError(f"a chunk is [h, {self.guard.last.size}], got {list(actions.shape)}")
        if not np.isfinite(actions).all():
            self.counts.refused += 1
            return False
        coming = max(self._time_tick(now), self._tick + 1)
        taken = self.chunks.add(actions, observed=self._time_tick(observed_at), now=coming)
        self.counts.late += not taken
        self._observed_at = observed_at if taken else self._observed_at
        return taken

    def step(
        self,
        now: float,
        *,
        sensed_at: float | None = None,
        low: np.ndarray | float = -np.inf,
        high: np.ndarray | float = np.inf,
    ) -> Command:
        """The command for the tick of `now`; call it once a tick. A tick that was missed is skipped, none is given
        twice. sensed_at: when the latest observation was taken; low, high: the workspace, as `Guard.apply` has them.
        """
        before, self._tick = self._tick, max(self._tick + 1, self._time_tick(now))
        self.counts.missed += self._tick - before - 1
        wanted = self.chunks.at(self._tick)
        reason = self._wrong(now, sensed_at, wanted)
        if reason:
            return self._hold(now, reason, low=low, high=high)
        self._held_since = None
        self.counts.run += 1
        return Command(self.guard.apply(wanted, low=low, high=high), "run")

    def resume(self) -> None:
        """Go on after a stop, with new chunks only."""
        self._stopped, self._held_since = False, None
        self.chunks.clear()

    def _time_tick(self, time: float) -> int:
        return math.floor((time - self.started) / self.period_s + SLACK)

    def _wrong(self, now: float, sensed_at: float | None, wanted: np.ndarray | None) -> str:
        slack = SLACK * self.period_s
        if self._stopped:
            return "stopped"
        if sensed_at is not None and now - sensed_at > self.safety.max_age_s + slack:
            return "stale observation"
        if math.isinf(self._observed_at):
            return "no answer yet"
        if now - self._observed_at > self.safety.max_age_s + slack:
            return "stale answer"
        return "" if wanted is not None else "chunk ended"

    def _hold(self, now: float, reason: str, *, low: np.ndarray | float, high: np.ndarray | float) -> Command:
        self._held_since = now if self._held_since is None else self._held_since
        self._stopped |= now - self._held_since > self.safety.stop_after_s + SLACK * self.period_s
        state = "stop" if self._stopped else "hold"
        self.counts.stop, self.counts.hold = self.counts.stop + self._stopped, self.counts.hold + (not self._stopped)
        still = np.where(self._relative, 0.0, self.guard.last)
        return Command(self.guard.apply(still, low=low, high=high), state, reason)
