"""`episodes.jsonl`: one line per closed-loop episode, appended as it ends, so that a killed benchmark can go on."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from bridge import conditions, simulator

SUITE = "metaworld"
FIELDS = ("policy", "digest", "condition", "task", "goal_seed", "student_seed", "instruction", "success", "steps")


class OutcomeError(ValueError):
    """Outcomes that cannot be read or gone on with; the message names the file and the fix."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one episode went. `student_seed` None: a policy of which there is only one."""

    policy: str
    digest: str
    """Of the policy's weights and whatever else decides what it does."""
    condition: str
    task: str
    goal_seed: int
    student_seed: int | None
    instruction: str
    success: bool
    steps: int

    @property
    def group(self) -> tuple[str, int | None, str]:
        """Whose episode it is, and under which condition."""
        return self.policy, self.student_seed, self.condition


class Ledger:
    """The outcomes of a file and those added to it. A last line that a kill cut short is dropped on opening."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.reload()

    def reload(self) -> None:
        """Read the file again, which other commands write to as well."""
        self._found: dict[tuple, dict[tuple[str, int], Outcome]] = {}
        self._digests: dict[tuple, str] = {}
        for outcome in self._read():
            self._take(outcome)

    def _read(self) -> list[Outcome]:
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        lines = text.splitlines()
        found = [self._parsed(line) for line in lines]
        if found and found[-1] is None:
            lines, found = lines[:-1], found[:-1]
        if None in found:
            raise OutcomeError(
                f"{self.path}: line {found.index(None) + 1} is damaged: remove it, and its episode is run again"
            )
        whole = "".join(line + "\n" for line in lines)
        if whole != text:
            _replace(self.path, whole)
        return found

    def _parsed(self, line: str) -> Outcome | None:
        """None where a line is damaged; OutcomeError where the episode was run under other rules than today's."""
        try:
            found = json.loads(line)
            outcome, rules = Outcome(**{name: found[name] for name in FIELDS}), found["rules"]
        except (ValueError, KeyError, TypeError):
            return None
        if rules != conditions.rules(outcome.condition):
            raise OutcomeError(
                f"{self.path} holds episodes that were run under other rules (condition {outcome.condition}; actions "
                "executed at a time, limit, disturbance, placements): give another --out"
            )
        return outcome

    def _take(self, outcome: Outcome) -> None:
        known = self._digests.setdefault((outcome.policy, outcome.student_seed), outcome.digest)
        if known != outcome.digest:
            raise self._changed(outcome.policy, known, outcome.digest)
        self._found.setdefault(outcome.group, {})[outcome.task, outcome.goal_seed] = outcome

    def _changed(self, policy: str, known: str, given: str) -> OutcomeError:
        return OutcomeError(
            f"{self.path} holds episodes of another {policy} ({known[:12]}, not {given[:12]}): give another --out"
        )

    def claim(self, policy: str, student_seed: int | None, digest: str) -> None:
        """OutcomeError where the file holds episodes of another policy under this name."""
        known = self._digests.get((policy, student_seed), digest)
        if known != digest:
            raise self._changed(policy, known, digest)

    def missing(
        self, policy: str, student_seed: int | None, condition: str, jobs: Sequence[simulator.Job]
    ) -> list[simulator.Job]:
        """Those of the jobs that were not run yet."""
        known = self._found.get((policy, student_seed, condition), {})
        return [job for job in jobs if (job.task, job.seed) not in known]

    def add(self, outcome: Outcome) -> None:
        """Append one line; it is in the file when this returns."""
        self._take(outcome)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            rules = conditions.rules(outcome.condition)
            file.write(json.dumps({"suite": SUITE, **dataclasses.asdict(outcome), "rules": rules}) + "\n")

    def of(self, policy: str, student_seed: int | None, condition: str) -> list[Outcome]:
        """The outcomes of one policy under one condition."""
        return list(self._found.get((policy, student_seed, condition), {}).values())

    def success(
        self, policy: str, condition: str, jobs: Sequence[simulator.Job], *, seeds: Sequence[int | None] = (None,)
    ) -> np.ndarray | None:
        """bool [s, t, n] over student seeds, the jobs' tasks and goals (task by task); None unless all were run."""
        if not jobs or any(self.missing(policy, seed, condition, jobs) for seed in seeds):
            return None
        rows = [self._found[policy, seed, condition] for seed in seeds]
        flat = np.array([[row[job.task, job.seed].success for job in jobs] for row in rows], bool)
        return flat.reshape(len(rows), len({job.task for job in jobs}), -1)


def _replace(path: pathlib.Path, text: str) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
