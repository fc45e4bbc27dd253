"""What is seen of an extraction while it runs: one bar, or one for every worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import rich.console
import rich.progress

Report = Callable[[int, int], None]
"""report(records, bytes): of every batch and of every commit."""
Watch = Callable[[int], AbstractContextManager[Report]]
"""watch(records): what the work reports to, once it is known how much there is."""


def columns() -> tuple[rich.progress.ProgressColumn, ...]:
    """What a bar says: who, how far, how fast, and the time left."""
    return (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )


class Bar:
    """One bar that counts records, with the rates of records and of bytes."""

    def __init__(self, shown: rich.progress.Progress, name: str) -> None:
        self._shown, self._id, self._written = shown, shown.add_task(name, total=None, rate=""), 0

    def expect(self, records: int) -> None:
        """So many are to be done."""
        self._shown.update(self._id, total=records)

    def add(self, records: int, size: int) -> None:
        """So many are done, so many bytes written."""
        self._written += size
        task = next(task for task in self._shown.tasks if task.id == self._id)
        seconds = max(task.elapsed or 0, 1e-9)
        rate = f"{(task.completed + records) / seconds:.1f} records/s, {self._written / seconds / 1e9:.4f} GB/s"
        self._shown.update(self._id, advance=records, rate=rate)


def on(console: rich.console.Console) -> Watch:
    """One bar on the terminal."""

    @contextlib.contextmanager
    def watch(records: int) -> Iterator[Report]:
        with rich.progress.Progress(*columns(), console=console) as shown:
            bar = Bar(shown, "extracting")
            bar.expect(records)
            yield bar.add

    return watch
