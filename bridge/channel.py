"""JSON lines between a benchmark and the process that it measures: stdout is kept for them, calls are timed inside."""

import json
import os
import sys
import time
from collections.abc import Callable

from bridge import memory


class Channel:
    """The measured process's side. Whatever a library prints goes to stderr."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, **message) -> None:
        """One line."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def serve(self, answer: Callable[[dict], dict]) -> None:
        """Answer every request until stdin closes."""
        for line in sys.stdin:
            self.send(**answer(json.loads(line)))


def timed(call: Callable[[], object], request: dict) -> dict:
    """The `result` of a run: seconds of each of `repeats` calls, after `warm` that do not count."""
    for _ in range(request["warm"]):
        call()
    return {"event": "result", "seconds": [seconds(call) for _ in range(request["repeats"])]}


def seconds(call: Callable[[], object]) -> float:
    """Of one call, which must wait for its own result."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def held(device_peak: int | None) -> dict:
    """The `memory` event: this process's peak, and that of its accelerator where there is one."""
    return {"event": "memory", "peak_bytes": memory.peak_bytes(), "device_peak_bytes": device_peak}


def refused(expected: str, request: dict) -> dict:
    """The `error` event for a request that nobody knows."""
    return {"event": "error", "message": f"expected {expected}, got {request}"}
