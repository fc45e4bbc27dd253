"""What a robot teacher can do: demonstrated actions predicted, use of its images, success closed loop."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bridge import lanes, metaworld_tasks, shuffle, simulator
from teacher_torch import taps
from teacher_torch.actor import Actor
from teacher_torch.robot_samples import Samples

EXAMPLES = 512
AT_ONCE = 32


def demonstrated(actor: Actor, samples: Samples) -> dict[str, float]:
    """R² of one drawn chunk per example against the demonstrated one, and again with the frames of another
    episode of the same task: a policy that uses its images loses by that."""
    positions = np.linspace(0, len(samples) - 1, min(EXAMPLES, len(samples))).astype(int)
    batch = samples.read(positions)
    noise = taps.draw_noise(actor.model, positions.tolist())[:, 0]
    order = shuffle.of_another_episode(batch.instruction, samples.episode[positions])

    def score(frames: np.ndarray) -> float:
        parts = [slice(first, first + AT_ONCE) for first in range(0, len(positions), AT_ONCE)]
        chunks = [actor.chunks(frames[p], batch.state[p], batch.instruction[p], noise[p]) for p in parts]
        return r_squared(np.concatenate(chunks), batch.actions)

    seen, shuffled = score(batch.frames), score(batch.frames[order])
    return {"action_r2": seen, "action_r2_shuffled_images": shuffled}


def r_squared(predicted: np.ndarray, target: np.ndarray) -> float:
    """1 - SSE / SST over everything, SST about the mean of each dimension."""
    mean = target.mean(axis=(0, 1), keepdims=True)
    return float(1 - np.square(predicted - target).sum() / np.square(target - mean).sum())


def success(
    actor: Actor, tasks: Iterable[str], *, episodes: int, split: str, shared: lanes.Lanes | None = None
) -> dict[str, float]:
    """Share of episodes solved per task and in the mean, on the split's first placements."""
    names = list(tasks)
    jobs = [simulator.Job(task, seed) for task in names for seed in metaworld_tasks.split_seeds(split, episodes)]
    done = list(simulator.run(actor, jobs, shared=shared))
    shares = {task: float(np.mean([e.success for e in done if e.task == task])) for task in names}
    return {f"success.{task}": share for task, share in shares.items()} | {
        "success.mean": float(np.mean(list(shares.values())))
    }
