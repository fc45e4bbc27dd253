"""Pictures of somebody else: to see whether a policy uses its images at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge import metaworld_tasks


def of_another_episode(instructions: Sequence[str], episodes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """For every observation the index of one of another episode of the same task, int [n], drawn from the seed.

    The task is the simulated one where an instruction is one of its phrasings, else the instruction itself. Where a
    task has a single episode, any other episode's; where all are of one, another moment of it.
    """
    tasks = np.array([metaworld_tasks.asked_for(text) or text for text in instructions])
    rng, found = np.random.default_rng(seed), np.empty(len(tasks), np.int64)
    for index, (task, episode) in enumerate(zip(tasks, episodes, strict=True)):
        elsewhere = episodes != episode
        choices = ((tasks == task) & elsewhere, elsewhere, np.arange(len(tasks)) != index, np.ones(len(tasks), bool))
        found[index] = rng.choice(np.flatnonzero(next(choice for choice in choices if choice.any())))
    return found
