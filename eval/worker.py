"""One thread that asks the policy, and the bounded queue before it."""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable

from eval.responder import Refusal

Answer = bytes | Refusal


class Full(Exception):
    """The queue is full; the text says what to do."""


@dataclasses.dataclass
class Job:
    """What is to be done and who is told. `dropped`: nobody waits for it any more."""

    work: Callable[[], Answer]
    done: Callable[[Answer], None]
    dropped: bool = False


class Worker:
    """Does jobs one after the other. Use it as a context manager; jobs that wait when it ends are still done."""

    def __init__(self, size: int):
        """size: jobs that may wait."""
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._size, self._began = size, None
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join(5)  # a policy that hangs ends with the process

    @property
    def alive(self) -> bool:
        """Whether it still works: after its end, a policy that hangs."""
        return self._thread.is_alive()

    @property
    def depth(self) -> int:
        """Jobs that wait, about."""
        return self._queue.qsize()

    @property
    def busy_s(self) -> float:
        """Seconds since the job under way began; 0 where none is."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, job: Job) -> None:
        """Queue a job; Full where too many wait already. For one thread."""
        if self.depth >= self._size:
            raise Full(f"busy: {self._size} requests wait already; ask less often or start with a larger --queue")
        self._queue.put(job)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.dropped:
                self._began = time.monotonic()
                answer = job.work()
                self._began = None
                job.done(answer)
