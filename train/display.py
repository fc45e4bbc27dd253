"""What the terminal shows: one live line with rate, loss, R² and time left, and one printed line per validation."""

import types

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Display:
    """A progress bar on a terminal; off a terminal only the printed lines."""

    def __init__(self, steps: int, *, start: int, console: Console | None = None, silent: bool = False):
        self.console = console or Console(quiet=silent)
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(text_format="", show_speed=True),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=steps, completed=start, shown="compiling")
        self._metric, self._loss = "", ""

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, step: int, loss: float) -> None:
        """After a step's loss is known."""
        self._loss = f"loss {loss:.4f}"
        self._progress.update(self._task, completed=step, shown=f"{self._loss} {self._metric}")

    def validation(self, step: int, *, values: dict[str, float], rate: float, best: bool) -> None:
        """After a validation: `values` are shown in order, `rate` in steps per second."""
        self._metric = " ".join(f"{name} {value:.4f}" for name, value in list(values.items())[:1])
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.say(f"step {step}  {shown}  {rate:.2f} steps/s{'  best so far' if best else ''}")

    def say(self, line: str) -> None:
        """One plain line above the bar."""
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
