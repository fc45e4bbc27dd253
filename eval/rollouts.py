"""Runs the episodes that a ledger lacks, in simulators that are started when the first of them is needed."""

import dataclasses
from collections.abc import Callable, Sequence

from bridge import conditions, lanes, simulator
from bridge.outcomes import Ledger, Outcome
from eval.ticker import Tick


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A policy under the name and seed that its episodes are kept by."""

    name: str
    policy: simulator.Policy
    digest: str
    seed: int | None = None


class Farm:
    """Simulators, started when first used. Use it as a context manager."""

    def __init__(self, make: Callable[[], lanes.Lanes] | None = None):
        self._make, self._lanes = make or lanes.Lanes, None

    def __enter__(self) -> "Farm":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lanes is not None:
            self._lanes.close()
            self._lanes = None

    @property
    def lanes(self) -> lanes.Lanes:
        """The simulators."""
        if self._lanes is None:
            self._lanes = self._make()
        return self._lanes


def fill(
    ledger: Ledger,
    contestant: Contestant,
    condition: str,
    jobs: Sequence[simulator.Job],
    *,
    farm: Farm,
    tick: Tick,
    after: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Run those of the jobs that the ledger lacks under a condition; every episode is on disk as soon as it is over.

    after: is told of each, just before.
    """
    ledger.claim(contestant.name, contestant.seed, contestant.digest)
    left = ledger.missing(contestant.name, contestant.seed, condition, jobs)
    if not left:
        return
    label = f"{contestant.name} {'' if contestant.seed is None else contestant.seed} {condition}"
    disturbed = conditions.cameras(condition)
    for episode in simulator.run(contestant.policy, left, conditions=disturbed, shared=farm.lanes):
        found = outcome(contestant, condition, episode)
        after(found)
        ledger.add(found)
        tick(label, 1, len(left))


def outcome(contestant: Contestant, condition: str, episode: simulator.Episode) -> Outcome:
    """One line of the ledger."""
    return Outcome(
        policy=contestant.name,
        digest=contestant.digest,
        condition=condition,
        task=episode.task,
        goal_seed=int(episode.seed),
        student_seed=contestant.seed,
        instruction=episode.instruction,
        success=bool(episode.success),
        steps=int(episode.steps),
    )
