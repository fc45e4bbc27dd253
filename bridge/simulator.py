"""Closed loop: `rollout(policy, task, seeds)` runs a policy in Meta-World and says how each episode went."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bridge import lanes, metaworld_tasks, scene
from bridge.embodiment import Embodiment
from bridge.transform import EmbodimentError

LIMIT = 100
"""Actions after which an episode has failed; the scripted experts need 20 to 60."""
EXECUTE = 4
"""Actions of a chunk that are executed before the policy is asked again."""


@dataclasses.dataclass(frozen=True)
class Query:
    """What a policy is asked, a row per lane, always as many rows; rows of idle lanes repeat the first.

    frames uint8 [b, v, h, w, 3]; state float32 [b, 4] in physical units (hand, gripper); instruction: b strings;
    seed, decision int64 [b]: of the episode, and how often it has been asked: for a policy's own noise.
    """

    frames: np.ndarray
    state: np.ndarray
    instruction: tuple[str, ...]
    seed: np.ndarray
    decision: np.ndarray


Policy = Callable[[Query], np.ndarray]
"""Query -> actions float [b, n, 4] in physical units, n of at least `execute`."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One episode to run. `instruction` None: the phrasing that the seed chooses."""

    task: str
    seed: int
    instruction: str | None = None


@dataclasses.dataclass(frozen=True)
class Episode:
    """How an episode went. frames: uint8 [n, v, h, w, 3] if recorded; visited: the views that the policy was asked at
    if kept."""

    task: str
    seed: int
    instruction: str
    success: bool
    steps: int
    decisions: int
    frames: np.ndarray | None = None
    visited: tuple[scene.View, ...] = ()


@dataclasses.dataclass(frozen=True)
class Conditions:
    """How episodes are run, and what disturbs the policy's cameras (drawn from the episode's seed)."""

    limit: int = LIMIT
    """Actions per episode at most."""
    execute: int = EXECUTE
    """Actions executed per query."""
    camera_noise: float = 0.0
    """Standard deviation of Gaussian pixel noise, in 0..255."""
    dropped: float = 0.0
    """Chance that a view at a query is black."""
    light: scene.Light = scene.Light()  # noqa: RUF009 - frozen
    blind: bool = False
    """Every frame is the mean picture of its task: all that can be seen is which task it may be."""
    covered: tuple[int, int] | None = dataclasses.field(default=None, repr=False)
    """From which decision on, and before which, the first camera is covered: black. None: never."""
    record: bool = False
    """Keep every frame."""
    keep_views: bool = False
    """Keep the views at which the policy was asked, with the simulator's truth."""


def rollout(
    policy: Policy,
    task: str,
    seeds: Sequence[int],
    *,
    conditions: Conditions = Conditions(),
    held_out: bool = False,
    shared: lanes.Lanes | None = None,
) -> list[Episode]:
    """Episodes of a task, one per seed, in their order. `held_out`: asked in phrasings never trained on."""
    jobs = [Job(task, seed, metaworld_tasks.instruction(task, seed, held_out=held_out)) for seed in seeds]
    return list(run(policy, jobs, conditions=conditions, shared=shared))


def run(
    policy: Policy,
    jobs: Sequence[Job],
    *,
    conditions: Conditions = Conditions(),
    shared: lanes.Lanes | None = None,
) -> Iterator[Episode]:
    """Episodes of any jobs, in their order (each as soon as it and those before it are over).

    shared: simulators to use; without them some are started and stopped. Deterministic: a job's lane follows from the
    jobs' order and outcomes, never from timing.
    """
    with contextlib.ExitStack() as stack:
        farm = shared or stack.enter_context(lanes.Lanes())
        yield from _ordered(_rounds(farm, policy, list(jobs), conditions), len(jobs))


def cameras(body: Embodiment) -> list[int]:
    """Where the embodiment's views are among the simulator's; EmbodimentError where it is another robot's."""
    known = list(scene.CAMERAS)
    if unknown := [key for key in body.transform.video_keys if key not in known]:
        raise EmbodimentError(f"embodiment {body.tag} sees {unknown}; the simulator has {', '.join(known)}")
    for group, widths in (("state", scene.STATE), ("action", scene.ACTION)):
        if (has := body.dimensions(group)) != widths:
            raise EmbodimentError(f"embodiment {body.tag} has {group} {has}; the simulator's robot has {widths}")
    return [known.index(key) for key in body.transform.video_keys]


class _Run:
    """One episode under way in a lane."""

    def __init__(self, index: int, job: Job, view: scene.View) -> None:
        self.index, self.job, self.view = index, job, view
        self.instruction = job.instruction or metaworld_tasks.instruction(job.task, job.seed)
        self.steps, self.decisions = 0, 0
        self.frames, self.visited = [view.frames[None]], []

    def over(self, conditions: Conditions) -> bool:
        return self.view.success or self.steps >= conditions.limit

    def take(self, moved: lanes.Moved) -> None:
        self.view, self.steps, self.decisions = moved.view, self.steps + moved.steps, self.decisions + 1
        if moved.frames is not None:
            self.frames.append(moved.frames)

    def episode(self, conditions: Conditions) -> Episode:
        frames = np.concatenate(self.frames) if conditions.record else None
        job = self.job
        counts = (self.view.success, self.steps, self.decisions)
        return Episode(job.task, job.seed, self.instruction, *counts, frames, tuple(self.visited))


def _rounds(
    farm: lanes.Lanes, policy: Policy, jobs: list[Job], conditions: Conditions
) -> Iterator[tuple[int, Episode]]:
    waiting = list(enumerate(jobs))
    busy: dict[int, _Run] = {}
    while waiting or busy:
        free = [lane for lane in range(farm.count) if lane not in busy][: len(waiting)]
        begun = [(lane, *waiting.pop(0)) for lane in free]
        how = (conditions.light, conditions.blind)
        views = farm.round([(lane, ("reset", job.task, job.seed, *how)) for lane, _, job in begun])
        busy |= {lane: _Run(i, job, moved.view) for (lane, i, job), moved in zip(begun, views, strict=True)}
        order = sorted(busy)
        chunks = _ask(policy, [busy[lane] for lane in order], farm.count, conditions)
        moves = farm.round(
            [
                (lane, ("step", chunk[: conditions.limit - busy[lane].steps], conditions.record))
                for lane, chunk in zip(order, chunks, strict=True)
            ]
        )
        for lane, moved in zip(order, moves, strict=True):
            busy[lane].take(moved)
            if busy[lane].over(conditions):
                done = busy.pop(lane)
                yield done.index, done.episode(conditions)


def _ask(policy: Policy, runs: list[_Run], rows: int, conditions: Conditions) -> np.ndarray:
    """Action chunks [len(runs), execute, 4]; the policy always sees `rows` rows."""
    for one in runs:
        if conditions.keep_views:
            one.visited.append(one.view)
    padded = runs + [runs[0]] * (rows - len(runs))
    query = Query(
        np.stack([_seen(one, conditions) for one in padded]),
        np.stack([one.view.state for one in padded]),
        tuple(one.instruction for one in padded),
        np.array([one.job.seed for one in padded]),
        np.array([one.decisions for one in padded]),
    )
    chunks = np.asarray(policy(query), np.float32)
    if chunks.ndim != 3 or chunks.shape[0] != rows or chunks.shape[1] < conditions.execute or chunks.shape[2] != 4:
        raise ValueError(f"a policy must give actions [{rows}, >= {conditions.execute}, 4], got {list(chunks.shape)}")
    if not np.isfinite(chunks[: len(runs)]).all():
        raise ValueError("the policy gave actions that are not finite")
    return chunks[: len(runs), : conditions.execute]


def _seen(one: _Run, conditions: Conditions) -> np.ndarray:
    """The frames of a run as its disturbed cameras show them."""
    frames = one.view.frames
    if conditions.covered and conditions.covered[0] <= one.decisions < conditions.covered[1]:
        frames = np.concatenate([np.zeros_like(frames[:1]), frames[1:]])
    if conditions.camera_noise == 0 and conditions.dropped == 0:
        return frames
    rng = np.random.default_rng([one.job.seed, one.decisions, 2])
    noisy = frames + conditions.camera_noise * rng.normal(size=frames.shape)
    lost = rng.random(len(frames)) < conditions.dropped
    return np.where(lost[:, None, None, None], 0, np.clip(noisy, 0, 255)).astype(np.uint8)


def _ordered(found: Iterator[tuple[int, Episode]], count: int) -> Iterator[Episode]:
    held: dict[int, Episode] = {}
    following = iter(found)
    for index in range(count):
        while index not in held:
            number, episode = next(following)
            held[number] = episode
        yield held.pop(index)
