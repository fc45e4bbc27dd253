"""Who solved what in the simulator, and which tasks count: those that cannot be solved blind."""

import dataclasses
from collections.abc import Mapping

from eval.pairing import Success

BLIND = (
    ("teacher", "blind"),
    ("nearest_state", "normal"),
    ("nearest_instruction", "normal"),
    ("random", "normal"),
    ("zeros", "normal"),
)
"""Policies that see no picture of the episode."""
BLIND_MOST, ENOUGH_TASKS, EPISODES, POOR = 0.40, 8, 50, 0.50


@dataclasses.dataclass(frozen=True)
class Results:
    """All successes bool [s, t, n] by (policy, condition); what is not there has its reason, or was not asked for."""

    tasks: tuple[str, ...]
    split: str
    episodes: int
    """Per task, as asked for."""
    found: Mapping[tuple[str, str], Success]
    reasons: Mapping[str, str]
    """Policy -> why it has no episodes."""
    controls: tuple[str, ...]
    parameters: Mapping[str, int | None]
    uneven: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Control -> what makes it incomparable with the student."""
    shared: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Control -> which students have its seeds; all of them where it is not said."""

    @property
    def few_episodes(self) -> str:
        """What every bar on success is defined on, where this is less; else ""."""
        return f">= {EPISODES} episodes a task" if self.episodes < EPISODES else ""

    @property
    def few(self) -> str:
        """What bars on success over tasks are defined on, where this is less; else ""."""
        if not self.few_episodes and len(self.tasks) >= ENOUGH_TASKS:
            return ""
        return f">= {EPISODES} episodes a task over >= {ENOUGH_TASKS} tasks"

    def get(self, policy: str, condition: str = "normal") -> Success | None:
        return self.found.get((policy, condition))

    def why(self, policy: str) -> str:
        """Why a cell about a policy is empty."""
        return self.reasons.get(policy, f"no episodes of {policy}")

    @property
    def headline(self) -> list[int]:
        """Tasks that no blind policy solves too often to need eyes; all of them where none was tried."""
        blind = [found for key in BLIND if (found := self.get(*key)) is not None]
        return [i for i in range(len(self.tasks)) if all(found[:, i].mean() <= BLIND_MOST for found in blind)]

    @property
    def headline_note(self) -> str:
        """Which tasks the headline is over, and whether they are enough."""
        if all(self.get(*key) is None for key in BLIND):
            return f"over all tasks: {self.why('teacher')}, so that none is known to be solvable blind"
        names = [self.tasks[i] for i in self.headline]
        few = f": fewer than {ENOUGH_TASKS}" if len(names) < ENOUGH_TASKS else ""
        said = f"{len(names)} tasks that no blind policy solves in more than {BLIND_MOST:.0%}{few}"
        return f"{said} ({', '.join(names) or 'none'})"

    @property
    def warning(self) -> str:
        """What must be said before any number, or nothing."""
        teacher = self.get("teacher")
        if teacher is None or teacher.mean() >= POOR:
            return ""
        return (
            f"The teacher itself solves only {teacher.mean():.0%} of its episodes: distilling from it means little, "
            "and no ratio to it is worth reading. Train a better teacher first."
        )
