"""Scripted demonstrations: the expert's action is the label, a disturbed one is executed (DART, arXiv:1703.09327)."""

from __future__ import annotations

import dataclasses

import numpy as np

from bridge import scene

LIMIT = 110
AFTER = 6
"""Actions recorded after success, so that the last chunks do not end in mid-air."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One demonstration to make. noise: standard deviation of what is added to every displacement; pushes: chance per
    action that a random displacement is held for a few actions instead."""

    task: str
    seed: int
    noise: float = 0.2
    pushes: float = 0.05


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """Rows before each of n actions: frames uint8 [n, v, h, w, 3], state float32 [n, 4], action float32 [n, 4] (the
    expert's, undisturbed), objects float32 [n, o, 3], pixels float32 [n, v, o, 2]; success."""

    job: Job
    frames: np.ndarray
    state: np.ndarray
    action: np.ndarray
    objects: np.ndarray
    pixels: np.ndarray
    success: bool


def perform(one: scene.Scene, job: Job) -> Demonstration:
    """Run the expert on a scene, disturbed, until shortly after success or LIMIT actions."""
    one.reset(job.task, job.seed)
    rng = np.random.default_rng([job.seed, 1])
    views, actions, held, push, left = [], [], 0, np.zeros(3), AFTER
    while len(actions) < LIMIT and left > 0:
        views.append(one.view())
        action = one.expert()
        actions.append(action)
        executed = action + np.append(job.noise * rng.normal(size=3), 0.0)
        if held > 0:
            executed[:3], held = push, held - 1
        elif rng.random() < job.pushes:
            push, held = rng.uniform(-1, 1, 3), int(rng.integers(1, 4))
        one.step(executed)
        left -= one.success
    return Demonstration(
        job,
        np.stack([view.frames for view in views]),
        np.stack([view.state for view in views]),
        np.stack(actions).astype(np.float32),
        np.stack([view.objects for view in views]),
        np.stack([view.pixels for view in views]),
        one.success,
    )
