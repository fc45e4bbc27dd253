"""What an episode may be run under, by name, alike for teacher and student: dim cameras, other words, no eyes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from bridge import metaworld_tasks, scene, simulator

NAMES = ("normal", "blind", "held-out", "swapped", "noise", "dropped", "light")
"""blind: the mean picture of the task; held-out: phrasings never trained on; swapped: asked for the look-alike
task; the others disturb the cameras."""
COVERED = "covered"
"""The first camera is black for some decisions early on: how trust reacts and recovers."""
CAMERAS = {
    "blind": simulator.Conditions(blind=True),
    "noise": simulator.Conditions(camera_noise=16.0),
    "dropped": simulator.Conditions(dropped=0.2),
    "light": simulator.Conditions(light=scene.Light((0.6, 0.7, 1.0))),
    COVERED: simulator.Conditions(covered=(2, 10)),
}


def cameras(name: str) -> simulator.Conditions:
    """What disturbs the cameras under a condition; an unknown one is an error that lists those there are."""
    if name not in (*NAMES, COVERED):
        raise ValueError(f"no condition {name!r}; there are {', '.join(NAMES)}")
    return CAMERAS.get(name, simulator.Conditions())


def instruction(name: str, task: str, seed: int) -> str:
    """What an episode is asked with under a condition."""
    if name != "swapped":
        return metaworld_tasks.instruction(task, seed, held_out=name == "held-out")
    if task not in metaworld_tasks.LOOK_ALIKE:
        raise ValueError(f"condition swapped is for {' and '.join(metaworld_tasks.LOOK_ALIKE)}, not {task}")
    (other,) = set(metaworld_tasks.LOOK_ALIKE) - {task}
    return metaworld_tasks.instruction(other, seed)


def tasks(name: str, chosen: Sequence[str]) -> tuple[str, ...]:
    """Those of the chosen tasks that a condition can be tried on: `swapped` needs the look-alike pair."""
    return tuple(task for task in chosen if name != "swapped" or task in metaworld_tasks.LOOK_ALIKE)


def jobs(name: str, chosen: Sequence[str], seeds: Sequence[int]) -> list[simulator.Job]:
    """The episodes of a condition: every seed of every task that it can be tried on."""
    return [simulator.Job(task, seed, instruction(name, task, seed)) for task in tasks(name, chosen) for seed in seeds]


def rules(name: str) -> str:
    """Digest of what decides an episode beside policy, placement and words: outcomes of other rules never mix."""
    fixed = (scene.CAMERAS, scene.SIZE, scene.REPEAT, metaworld_tasks.SPAN, metaworld_tasks.SPLITS)
    covered = (cameras(name).covered,) if name == COVERED else ()
    return hashlib.sha256(repr((cameras(name), fixed, *covered)).encode()).hexdigest()[:16]
