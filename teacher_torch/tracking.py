"""A run seen from outside: its progress bars, and whether its folder is free, begun or finished."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from rich import console, progress

from teacher_torch import phases


class Display:
    """A progress bar per phase, with the last losses beside it."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        columns = ("[progress.description]{task.description:9}", progress.BarColumn(), progress.MofNCompleteColumn())
        times = (progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(), "{task.fields[losses]}")
        self.progress = progress.Progress(*columns, *times, console=console.Console(stderr=True))
        self.bars = {name: self.progress.add_task(name, total=total, losses="") for name, total in totals.items()}

    def advance(self, name: str, done: int, metrics: Mapping[str, float]) -> None:
        """Show that `done` steps of a phase are done."""
        losses = "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if k not in ("gradient_norm", "rate"))
        self.progress.update(self.bars[name], completed=done, losses=losses)


def begin(
    folder: pathlib.Path, account: pathlib.Path, settings: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Make the folder, or say what a finished run in it found. Raises TrainingError where something is in the way."""
    held = [name for name in (account.name, phases.SNAPSHOT, phases.METRICS) if (folder / name).exists()]
    if held and not resume:
        raise phases.TrainingError(
            f"{folder} already holds a run ({', '.join(held)}): give --resume to go on with it, or another --out"
        )
    if not account.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return None
    done = json.loads(account.read_text())
    if done.get("settings") != settings:
        raise phases.TrainingError(
            f"{account} is of a finished run with other settings. Its own: {done.get('settings')}; asked for: "
            f"{dict(settings)}. Give another --out, or remove the folder"
        )
    return done
