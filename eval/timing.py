"""Student and teacher against one clock: each in a process of its own, run in turns, blocked on the result inside."""

import collections
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import queue
import re
import subprocess
import threading
import time

import numpy as np

from eval import energy

STAT = pathlib.Path("/proc/stat")
IDLE = [3, 4]  # idle and waiting for input or output
PAUSE_S = 0.02  # between turns: lets the other runtime's spinning threads go to sleep


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int = 10
    """Turns each lane gets."""
    repeats: int = 5
    """Measured calls per turn, at most."""
    seconds: float = 60.0
    """Time per lane, kept by making turns shorter; three turns of one call are always run."""
    watch: float = 0.25
    """Seconds before each round in which nobody runs, to see what else the machine is doing."""


class Unavailable(Exception):
    """A contestant that cannot run here; the message is the reason shown in the report."""


class Contestant:
    """A child process that answers one JSON line per JSON line. Its first line is `ready`, kept as `facts`."""

    def __init__(self, command: list[str], *, limit: float = 900.0):
        self._limit = limit
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: collections.deque[str] = collections.deque(maxlen=30)
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._drain)]
        for thread in self._threads:
            thread.start()
        try:
            self.facts = self._answer("ready")
        except BaseException:
            self.close()
            raise

    def ask(self, wanted: str, **request) -> dict:
        """Send one request and wait for the event `wanted`. Raises Unavailable with the child's own last words."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
        return self._answer(wanted)

    def close(self) -> None:
        """End the child; harmless when it has ended already."""
        with contextlib.suppress(BrokenPipeError):  # of a child that died with a question unread
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()
        self._process.stdout.close()
        self._process.stderr.close()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _answer(self, wanted: str) -> dict:
        try:
            line = self._lines.get(timeout=self._limit)
        except queue.Empty:
            self._process.kill()
            raise Unavailable(f"no answer within {self._limit:g} s") from None
        if line is None:
            self._lines.put(None)  # whoever asks a dead child again is told so too, at once
            raise Unavailable(self._last_words())
        answer = json.loads(line)
        if answer["event"] != wanted:
            raise Unavailable(answer.get("message", f"expected {wanted}, got {answer['event']}"))
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._threads[1].join()
        said = [line.strip() for line in self._errors if line.strip()]
        return said[-1] if said else f"ended with exit code {code}"

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _drain(self) -> None:
        for line in self._process.stderr:
            self._errors.append(line)


@dataclasses.dataclass
class Lane:
    """One thing that is timed: a contestant and the output asked of it. `seconds` fills as the race runs."""

    name: str
    contestant: Contestant
    output: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    failure: str = ""
    request: dict = dataclasses.field(default_factory=dict)
    """What a run is asked beside its output: `mode`, `batch`."""
    joules: float = 0.0
    """Spent over its turns, where a meter tells."""
    calls: int = 0
    """In those turns, warm-up included."""

    def turn(self, plan: Plan) -> None:
        """One turn: a warm-up call where calls are short, then as many measured calls as the plan's time allows."""
        spent, last = sum(self.seconds), self.seconds[-1] if self.seconds else None
        share = plan.seconds / plan.rounds
        repeats = 1 if last is None else int(np.clip(share / last, 1, plan.repeats))
        if self.failure or (spent > plan.seconds and len(self.seconds) >= 3):
            return
        warm = 1 if last is None or last < 1.0 else 0
        try:
            answer = self.contestant.ask(
                "result", do="run", output=self.output, warm=warm, repeats=repeats, **self.request
            )
            self.seconds += answer["seconds"]
            self.calls += warm + repeats
        except Unavailable as reason:
            self.failure = str(reason)

    @property
    def samples(self) -> np.ndarray:
        """Seconds of every measured call; the first, made to size the turns, is left out when there are others."""
        return np.array(self.seconds[1:] or self.seconds)


def race(lanes: list[Lane], plan: Plan, meter: energy.Packages | energy.Graphics | None = None) -> float:
    """Run the lanes in turns, another one first each round, until the plan is fulfilled. meter: counts their joules.

    Returns the share of the machine's cores that other work kept busy, measured between the rounds: the numbers are
    worth what that share is small.
    """
    busy = []
    for turn in range(plan.rounds):
        busy.append(busy_share(plan.watch))
        start = turn % max(len(lanes), 1)
        for lane in lanes[start:] + lanes[:start]:
            time.sleep(PAUSE_S)
            lane.joules += energy.spent(meter, functools.partial(lane.turn, plan)) or 0.0
    return float(np.mean(busy))


def busy_share(seconds: float) -> float:
    """Share of the cores' time in use over the next `seconds`, in which this process sleeps; 0 where none can tell."""
    before = _ticks()
    time.sleep(seconds)
    spent = _ticks() - before
    return float(1 - spent[IDLE].sum() / spent.sum()) if spent.sum() > 0 else 0.0


def _ticks() -> np.ndarray:
    """The kernel's clock ticks by kind since it started, over all cores."""
    if not STAT.is_file():
        return np.zeros(8)
    return np.array(STAT.read_text().splitlines()[0].split()[1:9], np.float64)


def _environment() -> dict[str, str]:
    """The parent's environment without fake devices, which would split the child's threads, and without jax's habit of
    taking most of a GPU at once, which would leave the other contestants none."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    return {**os.environ, "XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
