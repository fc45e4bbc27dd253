"""Pictures of somebody else: to see whether a policy uses its images at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge import metaworld_tasks


def of_another_episode(instructions: Sequence[str], episodes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """For every observation the index of one of another episode of the same task, int [n], drawn from the seed.

    The task is the simulated one where an instruction is one of its phrasings, else the instruction itself. Where a
    task has a single episode, any other episode's. ValueError where all are of one episode.
    """
    tasks = np.array([metaworld_tasks.asked_for(text) or text for text in instructions])
    rng, found = np.random.default_rng(seed), np.empty(len(tasks), np.int64)
    for index, (task, episode) in enumerate(zip(tasks, episodes, strict=True)):
        others = np.flatnonzero((tasks == task) & (episodes != episode))
        others = others if len(others) else np.flatnonzero(episodes != episode)
        if not len(others):
            raise ValueError("all observations are of one episode: there is no other picture to show")
        found[index] = rng.choice(others)
    return found
