"""The last thing before the motors: no command beyond its limits, and none that changes faster than allowed."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Limits:
    """Per dimension of a command: least, most, and the most that it may change per control tick; each [d] or a number.
    Any of them may be infinite."""

    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf
    rate: np.ndarray | float = np.inf

    def __post_init__(self) -> None:
        low, high, rate = (np.asarray(value, np.float64) for value in (self.low, self.high, self.rate))
        if not ((low <= high).all() and (rate > 0).all()):
            raise ValueError(f"Limits: expected low <= high and rate > 0, got {low}, {high}, {rate}")


@dataclasses.dataclass
class Hits:
    """Commands that had to be changed, by what."""

    limit: int = 0
    rate: int = 0
    workspace: int = 0


class Guard:
    """Keeps commands within `Limits`; `last` is the command that it let through before."""

    def __init__(self, limits: Limits, start: np.ndarray, *, relative: np.ndarray | bool):
        """start [d]: what the robot does now, within the limits; relative: bool or [d], which dimensions are
        displacements, that stand still at 0. The others (positions, forces) stand still where they are."""
        self.limits, self.last, self.hits = limits, np.array(start, np.float64), Hits()
        self.relative = np.broadcast_to(relative, self.last.shape)
        if not ((self.last >= limits.low) & (self.last <= limits.high)).all():
            raise ValueError(f"the robot starts at {self.last}, beyond its limits {limits.low} to {limits.high}")

    def apply(
        self, command: np.ndarray, *, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf
    ) -> np.ndarray:
        """The command [d] that may be sent.

        low, high: this tick's own bounds, of a workspace. They go before the rate only to brake: a displacement falls
        to 0 at once where it must, so that nothing leaves its workspace. What they push is pushed at the rate: a
        displacement from 0 on, to bring back a hand that is outside; any other dimension from where it is. The fixed
        limits go before everything. Raises ValueError where the command is not finite or a bound is NaN.
        """
        command = np.asarray(command, np.float64)
        if command.shape != self.last.shape or not np.isfinite(command).all():
            raise ValueError(f"a command is {self.last.size} finite numbers, got {command}")
        low, high, known = usable(low, high)
        if not known:
            raise ValueError("a workspace bound is NaN, or infinite the wrong way")
        limits = self.limits
        within = np.clip(command, limits.low, limits.high)
        least, most = self.last - limits.rate, self.last + limits.rate
        slow = np.clip(within, least, most)
        least, most = (np.where(self.relative, f(b, 0.0), b) for f, b in ((np.minimum, least), (np.maximum, most)))
        bounded = np.clip(np.minimum(np.maximum(slow, low), high), least, most)
        inside = np.clip(bounded, limits.low, limits.high)
        self.hits.limit += bool((within != command).any())
        self.hits.rate += bool((slow != within).any())
        self.hits.workspace += bool((inside != slow).any())
        self.last = inside
        return inside

    def brake(self, command: np.ndarray, *, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
        """As `apply`, but the bounds [d] slow the robot at most and never move it: standing still is within them."""
        still = self.still()
        return self.apply(command, low=np.minimum(low, still), high=np.maximum(high, still))

    def still(self) -> np.ndarray:
        """The command [d] of a robot that stands still: displacements 0, the others as they were."""
        return np.where(self.relative, 0.0, self.last)


def usable(low: np.ndarray | float, high: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Bounds without those that cannot be meant (NaN, low of +inf, high of -inf: the position is unknown), which become
    -inf and inf; and whether there were none of them."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    known = (low < np.inf).all() and (high > -np.inf).all()
    return np.where(low < np.inf, low, -np.inf), np.where(high > -np.inf, high, np.inf), bool(known)


def box(position: np.ndarray, *, low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a displacement command (1.0 moves by `step`) that keep a position [n] within the box low to high [n],
    all in the same unit. NaN where the position is."""
    return (np.asarray(low) - position) / step, (np.asarray(high) - position) / step
