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

    def __init__(self, limits: Limits, start: np.ndarray):
        """start [d]: what the robot does now, within the limits."""
        self.limits, self.last, self.hits = limits, np.array(start, np.float64), Hits()
        if not ((self.last >= limits.low) & (self.last <= limits.high)).all():
            raise ValueError(f"the robot starts at {self.last}, beyond its limits {limits.low} to {limits.high}")

    def apply(
        self, command: np.ndarray, *, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf
    ) -> np.ndarray:
        """The command [d] that may be sent.

        low, high: this tick's own bounds, of a workspace. They go before the rate (a robot that is about to leave its
        workspace brakes as hard as it must), and the fixed limits before them. Raises ValueError where the command is
        not finite.
        """
        command = np.asarray(command, np.float64)
        if command.shape != self.last.shape or not np.isfinite(command).all():
            raise ValueError(f"a command is {self.last.size} finite numbers, got {command}")
        limits = self.limits
        within = np.clip(command, limits.low, limits.high)
        slow = np.clip(within, self.last - limits.rate, self.last + limits.rate)
        inside = np.clip(np.minimum(np.maximum(slow, low), high), limits.low, limits.high)
        self.hits.limit += bool((within != command).any())
        self.hits.rate += bool((slow != within).any())
        self.hits.workspace += bool((inside != slow).any())
        self.last = inside
        return inside


def box(position: np.ndarray, *, low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a displacement command (1.0 moves by `step`) that keep a position [n] within the box low to high [n],
    all in the same unit."""
    return (np.asarray(low) - position) / step, (np.asarray(high) - position) / step
