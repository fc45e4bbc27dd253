"""A robot's control loop, without the robot: chunks in whenever they arrive, one safe command out per tick."""

import dataclasses
import math
from typing import Literal

import numpy as np

from eval import chunks, guard

SLACK = 1e-3
"""Of a tick: how early the clock may be, as sums of floats (of seconds since 1970, even) are."""


@dataclasses.dataclass(frozen=True)
class Safety:
    """What the watchdog watches."""

    max_age_s: float = 0.5
    """Seconds since the observation behind a command, at most; also since the latest observation."""
    stop_after_s: float = 2.0
    """Seconds of holding after which it stops for good, until `resume`."""

    def __post_init__(self) -> None:
        if not (self.max_age_s > 0 and self.stop_after_s >= 0):  # NaN, too
            raise ValueError(
                f"Safety: expected max_age_s > 0 and stop_after_s >= 0, got {self.max_age_s} and {self.stop_after_s}"
            )


@dataclasses.dataclass(frozen=True)
class Command:
    """What to send now. action [d]; state: run (a chunk's action), hold or stop; reason: why not run."""

    action: np.ndarray
    state: Literal["run", "hold", "stop"]
    reason: str = ""


@dataclasses.dataclass
class Counts:
    """What happened so far. missed: ticks without a call, in a loop that is too slow; late: chunks that came too late,
    or of before a resume; refused: chunks with NaN or infinite values."""

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
    the rate allows; a workspace may brake them faster, but moves nothing that stands still.
    """

    def __init__(
        self,
        limits: guard.Limits,
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
        self.guard = guard.Guard(limits, start, relative=relative)
        self.chunks, self.counts = chunks.Chunks(blend), Counts()
        self._tick, self._sent, self._stopped = -1, None, False
        self._observed_at, self._resumed_at, self._held_since = -math.inf, -math.inf, math.inf

    def offer(self, actions: np.ndarray, *, observed_at: float, now: float) -> bool:
        """Take a chunk [h, d] that answers an observation of `observed_at`; False where it is of no use (counted): not
        finite, too late, or of before the last `resume`. Raises ValueError for another width or an observation of the
        future."""
        actions = np.asarray(actions, np.float64)
        if actions.ndim != 2 or actions.shape[1:] != self.guard.last.shape:
            raise ValueError(f"a chunk is [h, {self.guard.last.size}], got {list(actions.shape)}")
        if not np.isfinite(actions).all():
            self.counts.refused += 1
            return False
        coming = max(math.floor(self._ticks(now)), self._tick + 1)
        taken = observed_at >= self._resumed_at
        taken = taken and self.chunks.add(actions, observed=self._ticks(observed_at), now=coming)
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
        """The command for the tick of `now`; call it once a tick, soon after the tick began. A tick that was missed is
        skipped, and none is given before its time: a second call within a tick has the same command again, which bounds
        may have braked. sensed_at: when the latest observation was taken; low, high: the workspace, as `Guard.apply`
        has them; where one is NaN the position is unknown, and it holds.
        """
        low, high, known = guard.usable(low, high)
        tick = math.floor(self._ticks(now))
        if tick == self._tick and self._sent is not None:
            return dataclasses.replace(self._sent, action=self.guard.brake(self.guard.last, low=low, high=high))
        self.counts.missed += max(0, tick - self._tick - 1)
        unsafe = "position unknown" if not known else "clock behind" if tick < self._tick else ""
        self._tick = max(self._tick, tick)
        self.chunks.forget(self._ticks(now - self.safety.max_age_s) - SLACK)
        wanted = self.chunks.at(self._tick)
        reason = "stopped" if self._stopped else unsafe or self._wrong(now, sensed_at, wanted)
        self._sent = self._hold(now, reason, low, high) if reason else self._run(wanted, low, high)
        return self._sent

    def resume(self, now: float) -> None:
        """Go on after a stop, with chunks only that answer observations from `now` on."""
        self._stopped, self._held_since = False, math.inf
        self._resumed_at, self._observed_at = now, -math.inf
        self.chunks.clear()

    def _ticks(self, time: float) -> float:
        return (time - self.started) / self.period_s + SLACK

    def _wrong(self, now: float, sensed_at: float | None, wanted: np.ndarray | None) -> str:
        slack = SLACK * self.period_s
        if sensed_at is not None and not now - sensed_at <= self.safety.max_age_s + slack:  # NaN, too
            return "stale observation"
        if math.isinf(self._observed_at):
            return "no answer yet"
        if now - self._observed_at > self.safety.max_age_s + slack:
            self.chunks.clear()
            return "stale answer"
        return "" if wanted is not None else "chunk ended"

    def _run(self, wanted: np.ndarray, low: np.ndarray, high: np.ndarray) -> Command:
        self._held_since = math.inf
        self.counts.run += 1
        return Command(self.guard.apply(wanted, low=low, high=high), "run")

    def _hold(self, now: float, reason: str, low: np.ndarray, high: np.ndarray) -> Command:
        self._held_since = min(self._held_since, now)
        self._stopped |= now - self._held_since > self.safety.stop_after_s + SLACK * self.period_s
        state = "stop" if self._stopped else "hold"
        self.counts.stop, self.counts.hold = self.counts.stop + self._stopped, self.counts.hold + (not self._stopped)
        return Command(self.guard.brake(self.guard.still(), low=low, high=high), state, reason)
