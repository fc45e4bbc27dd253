"""Where a control loop's requests go: one at a time to a policy server, the answer whenever it is there."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

Ask = Callable[[dict], np.ndarray]
"""An observation of the wire -> a chunk [h, d]; raises where there is no answer. Another's server is behind it, and
what it sends may be malformed in any way (KeyError, ValueError, zmq.ZMQError, ...). Whatever is raised is an answer
that was lost: the control loop has to live on, to hold and stop the robot."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A chunk float [h, d], when its observation was taken, and how long the answer took."""

    actions: np.ndarray
    observed_at: float
    latency_s: float


def said(error: Exception) -> str:
    """Why an answer is lost, for people."""
    return f"{type(error).__name__}: {error}"


class Link(Protocol):
    """What a control loop asks through."""

    free: bool
    """Whether a request may be sent: none is under way."""
    lost: list[str]
    """Why requests had no answer."""

    def send(self, observation: dict, now: float) -> None:
        """Ask; the observation is of `now`."""

    def receive(self, now: float) -> Answer | None:
        """The answer, once it is there."""


class Timed:
    """Asks at once and hands the answer over when its latency has passed on the loop's own clock: a simulated robot
    that does not wait while the policy thinks. Deterministic where `latency_s` is given; None: what it took."""

    def __init__(self, ask: Ask, latency_s: float | None):
        self._ask, self._latency, self._answer = ask, latency_s, None
        self.free, self.lost = True, []

    def send(self, observation: dict, now: float) -> None:
        """Ask, and wait for the answer."""
        began = time.perf_counter()
        try:
            actions = self._ask(observation)
        except Exception as error:  # noqa: BLE001 - a bad answer must not end the control loop, see Ask
            self.lost.append(said(error))
            return
        took = time.perf_counter() - began if self._latency is None else self._latency
        self._answer, self.free = Answer(actions, now, took), False

    def receive(self, now: float) -> Answer | None:
        """The answer, once its latency has passed."""
        if self._answer is None or now + 1e-9 < self._answer.observed_at + self._answer.latency_s:
            return None
        found, self._answer, self.free = self._answer, None, True
        return found


class Threaded:
    """Asks from a thread of its own, for a robot on the clock of the wall. Use it as a context manager."""

    def __init__(self, ask: Ask):
        self._ask, self._pool, self._future = ask, concurrent.futures.ThreadPoolExecutor(1), None
        self.free, self.lost = True, []

    def __enter__(self) -> "Threaded":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def send(self, observation: dict, now: float) -> None:
        """Ask; returns at once."""
        self._future, self.free = self._pool.submit(self._timed, observation, now), False

    def receive(self, now: float) -> Answer | None:
        """The answer, once it came."""
        if self._future is None or not self._future.done():
            return None
        future, self._future, self.free = self._future, None, True
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 - a bad answer must not end the control loop, see Ask
            self.lost.append(said(error))
            return None

    def _timed(self, observation: dict, now: float) -> Answer:
        began = time.perf_counter()
        return Answer(self._ask(observation), now, time.perf_counter() - began)
