"""The teacher's probe on ARC's evaluation tasks, as a command of its own: torch is not needed here, and its absence
stops nothing."""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridge import arc
from eval import teacher as command
from eval.arc_grids import Attempts, Query
from eval.teacher import Runner, Teacher


def solve(
    teacher: Teacher, dataset: str, asked: Sequence[Query], path: pathlib.Path, *, runner: Runner | None = None
) -> tuple[list[Attempts], str]:
    """One answer a query, and "" or why there are none. Nothing is asked where `path` holds all of this teacher."""
    tasks = list(dict.fromkeys(query.task.id for query in asked))
    found = held(path, teacher.digest)
    if missing := [task for task in tasks if task not in found]:
        words = [sys.executable, "-m", "teacher_torch.solve", "--teacher", teacher.name, "--digest", teacher.digest]
        words += ["--tokenizer", teacher.tokenizer] if teacher.tokenizer else []
        path.parent.mkdir(parents=True, exist_ok=True)
        if reason := (runner or command.run)([*words, "--dataset", dataset, "--out", str(path), "--tasks", *tasks]):
            return [], reason
        found = held(path, teacher.digest)
        missing = [task for task in tasks if task not in found]
    if missing:
        return [], f"{path} lacks task {missing[0]}"
    return [_attempt(query, found[query.task.id][query.index]["attempt_1"]) for query in asked], ""


def held(path: pathlib.Path, digest: str) -> dict[str, Any]:
    """Answers by task that a file holds of this teacher; none where it is another's or damaged."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return tree["answers"] if tree["teacher"]["digest"] == digest else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _attempt(query: Query, said: list[list[int]]) -> Attempts:
    grid = np.asarray(said, np.int8)
    return Attempts(query, (grid,), (1,), arc.cells(grid))
