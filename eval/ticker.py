"""Progress of a benchmark on the terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress

Tick = Callable[[str, int, int], None]


class Ticker:
    """A progress bar that is told (what, done, total) and shows one line per thing."""

    def __enter__(self) -> Tick:
        self._bar, self._tasks = Progress(transient=True, console=Console(stderr=True)), {}
        self._bar.start()
        return self._tick

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tick(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.advance(self._tasks[what], done)
