"""What a run says about itself: metrics.jsonl (exact, without clocks) and TensorBoard (with them)."""

import json
import math
import os
import pathlib
from typing import Any

import jax
import tensorboardX


class NonFiniteError(ArithmeticError):
    """A loss, a gradient norm or a validation metric is not a finite number."""


class MetricLog:
    """Appends rows {step, kind, ...} to metrics.jsonl and the same scalars to TensorBoard.

    Rows after `step`, and one cut short by a kill, are dropped on opening: a resumed run writes them again, so the file
    of an interrupted run equals that of a straight one byte for byte.
    """

    def __init__(self, folder: pathlib.Path, *, step: int):
        self._path = folder / "metrics.jsonl"
        _truncate(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one row; a value that is not finite is a NonFiniteError."""
        require_finite(step, values)
        self._file.write(json.dumps({"step": step, "kind": kind, **values}, allow_nan=False) + "\n")
        self._file.flush()
        self.board(step, {f"{kind}/{name}": value for name, value in values.items()})

    def board(self, step: int, values: dict[str, float]) -> None:
        """Writes to TensorBoard only: for what depends on the clock."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both files."""
        self._file.close()
        self._board.close()


class Silence:
    """Stands for the log in processes that do not write it: they only stop where it would."""

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """A value that is not finite is a NonFiniteError."""
        require_finite(step, values)

    def board(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Delayed:
    """Holds the device metrics of one step, so that they are fetched only after the next step is dispatched."""

    def __init__(self):
        self._held: tuple[int, dict[str, jax.Array]] | None = None

    def swap(self, step: int, values: dict[str, jax.Array]) -> tuple[int, dict[str, float]] | None:
        """Takes this step's metrics and returns the ones held before, fetched and checked."""
        held = self.take()
        self._held = (step, values)
        return held

    def take(self) -> tuple[int, dict[str, float]] | None:
        """Fetches what is held; a non-finite value stops the run with a NonFiniteError that names it."""
        if self._held is None:
            return None
        (step, values), self._held = self._held, None
        fetched = {name: float(value) for name, value in jax.device_get(values).items()}
        require_finite(step, fetched)
        return step, fetched


def require_finite(step: int, values: dict[str, float]) -> None:
    """Raises NonFiniteError naming every value that is NaN or infinite."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        terms = ", ".join(f"{name} = {value}" for name, value in bad.items())
        raise NonFiniteError(f"step {step}: {terms}; the checkpoints before it are kept. Lower --lr or --clip")


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _truncate(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept), encoding="utf-8")
    os.replace(draft, path)
