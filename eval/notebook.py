"""What an orchestrated student decided, episode by episode: kept beside the ledger, a line per episode."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bridge import simulator
from bridge.outcomes import Outcome
from train.cycle import Decision, Given

FILE = "decisions.jsonl"
Close = Callable[[Outcome], None]


@dataclasses.dataclass(frozen=True)
class Noted:
    """One episode's decisions, first to last."""

    policy: str
    condition: str
    task: str
    goal_seed: int
    student_seed: int
    success: bool
    confidence: np.ndarray  # [d]
    energy: np.ndarray  # [d, m], of the state that was taken
    steps: np.ndarray  # int [d, m]
    atp: np.ndarray  # [d]
    trust: np.ndarray  # [d, m]
    views: np.ndarray  # bool [d, v]

    @property
    def key(self) -> tuple[str, int]:
        """Whose goal it is."""
        return self.task, self.goal_seed


class Notebook:
    """Collects decisions while episodes run, and writes each episode when it is over."""

    def __init__(self, path: pathlib.Path):
        """A last line that a kill cut short is dropped: its episode is not in the ledger either, and is run again."""
        self.path = path
        _mend(path)
        self._open: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def note(self, query: simulator.Query, given: Given, said: Decision) -> None:
        """As a SageActor's `note`; rows that repeat another's are the same decision."""
        names = list(zip(query.instruction, np.asarray(query.seed).tolist(), strict=True))
        for name, row in {name: row for row, name in enumerate(names)}.items():
            if query.decision[row] == 0:
                self._open[name] = []
            self._open.setdefault(name, []).append(line(said, row))

    def close(self, outcome: Outcome) -> None:
        """The episode is over: one line."""
        decisions = self._open.pop((outcome.instruction, outcome.goal_seed), [])
        if not decisions:
            return
        columns = {name: [one[name] for one in decisions] for name in decisions[0]}
        about = {name: getattr(outcome, name) for name in ("policy", "condition", "task", "goal_seed", "student_seed")}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about | {"success": outcome.success} | columns) + "\n")


def forget(outcome: Outcome) -> None:
    """For policies that note nothing."""


def line(said: Decision, row: int) -> dict[str, Any]:
    """One decision's numbers."""
    accounts = list(said.accounts.values())
    return {
        "confidence": round(float(said.confidence[row]), 6),
        "energy": [round(float(one.energy[row].min()), 6) for one in accounts],
        "steps": [int(one.steps[row]) for one in accounts],
        "atp": round(float(sum(one.spent[row] for one in accounts)), 4),
        "trust": [round(float(value), 5) for value in said.trust[row]],
        "views": [bool(value) for value in said.views[row]],
    }


def _mend(path: pathlib.Path) -> None:
    whole = path.read_bytes() if path.is_file() else b""
    if whole and not whole.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)


def read(path: pathlib.Path) -> list[Noted]:
    """All episodes of a file; a last line that a kill cut short is left out, an episode run twice counts once."""
    found: dict[tuple, Noted] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            tree = json.loads(text)
        except ValueError:
            continue
        about = {name: tree[name] for name in ("policy", "condition", "task", "goal_seed", "student_seed", "success")}
        columns = ("confidence", "energy", "steps", "atp", "trust", "views")
        one = Noted(**about, **{name: np.asarray(tree[name]) for name in columns})
        found[one.policy, one.condition, one.student_seed, *one.key] = one
    return list(found.values())


def of(notes: Sequence[Noted], policy: str, condition: str) -> list[Noted]:
    """Those of one policy under one condition."""
    return [one for one in notes if (one.policy, one.condition) == (policy, condition)]
