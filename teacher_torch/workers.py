"""Several processes that extract into one store: each takes its share of the groups and reports how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.queues
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.console
import rich.progress
import torch

from teacher_torch import progress, request
from teacher_torch.plan import PlanError

POLL = 0.2  # seconds
FAILED = 2
Message = tuple[int, str, Any]
"""(worker, "records" | "done" | "error", what)."""
Run = Callable[[Any, rich.console.Console, progress.Watch], None]


class WorkerError(RuntimeError):
    """A worker that did not finish; what it committed is kept."""


def run(
    options: request.Options, work: Run, errors: tuple[type[Exception], ...], console: rich.console.Console
) -> None:
    """`options.workers` processes do `work`; raises WorkerError where one fails, once the others are through."""
    context = multiprocessing.get_context("spawn")
    said: multiprocessing.queues.Queue[Message] = context.Queue()
    shares = [share(options, worker) for worker in range(options.workers)]
    given = [(each, work, errors, said, worker) for worker, each in enumerate(shares)]
    processes = [context.Process(target=_work, args=one, daemon=True) for one in given]
    for process in processes:
        process.start()
    try:
        with rich.progress.Progress(*progress.columns(), console=console) as shown:
            found = follow(processes, said, [progress.Bar(shown, f"worker {each.shard}") for each in shares])
    finally:
        for process in processes:
            process.terminate()
            process.join()
    failed = [
        f"worker {shares[i].shard}: {found.get(i) or f'ended with code {process.exitcode}'}"
        for i, process in enumerate(processes)
        if process.exitcode
    ]
    if failed:
        raise WorkerError(f"{'; '.join(failed)}; what is committed is kept: run the same command again to go on")


def share(options: request.Options, worker: int) -> request.Options:
    """One worker's options: its shard of this machine's shard, a GPU where there are several, no workers of its own."""
    machine, machines = request.parse_shard(options.shard)
    device, found = options.device, torch.cuda.device_count()
    if found > 1 and device in ("auto", "cuda"):
        device = f"cuda:{worker % found}"
    shard = f"{machine + machines * worker}/{machines * options.workers}"
    return dataclasses.replace(options, shard=shard, device=device, workers=1)


def follow(processes: Sequence[Any], said: Any, bars: Sequence[progress.Bar]) -> dict[int, str]:
    """Show what the workers report until all have ended; returns the errors that they gave, by worker."""
    errors: dict[int, str] = {}
    while True:
        running = any(process.is_alive() for process in processes)
        with contextlib.suppress(queue.Empty):
            while True:
                worker, kind, what = said.get(timeout=POLL if running else 0.0)
                if kind == "records":
                    bars[worker].expect(what)
                elif kind == "done":
                    bars[worker].add(*what)
                else:
                    errors[worker] = what
        if not running:
            return errors


def _work(options: request.Options, work: Run, errors: tuple[type[Exception], ...], said: Any, worker: int) -> None:
    parent = os.getppid()

    @contextlib.contextmanager
    def watch(records: int) -> Iterator[progress.Report]:
        said.put((worker, "records", records))
        yield report

    def report(records: int, size: int) -> None:
        if os.getppid() != parent:  # it was killed, and whoever takes its place must find nobody at work
            os._exit(FAILED)
        said.put((worker, "done", (records, size)))

    try:
        work(options, rich.console.Console(quiet=True), watch)
    except errors as error:
        said.put((worker, "error", str(error)))
        raise SystemExit(FAILED) from error
    except KeyboardInterrupt:
        raise SystemExit(FAILED) from None


def check(options: request.Options) -> None:
    """PlanError where there cannot be so many."""
    if options.workers < 1:
        raise PlanError(f"--workers {options.workers}: expected 1 or more")
