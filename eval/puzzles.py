"""The families suite: small puzzles drawn apart from those of training, exactly right or not, and whether the rule was
read from the demonstrations."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import arc, families
from bridge.arc import Pair, Task
from bridge.family_rules import Rule
from eval import grid_wall
from eval.grid_thought import Thinker
from eval.ticker import Tick
from student_jax import irp, layers
from student_jax.student import Student
from train import arc_tasks, puzzles

BATCH = 100
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Budgets, of what all refinement steps cost."""
CONDITIONS = ("normal", "other_episode", "other_family")
"""With its own demonstrations, with those of another episode of its family, with another family's."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """n queries of one family under one condition: frames uint8 [n, 7, m, m] (cells), answers uint8 [n, m, m]."""

    family: str
    condition: str
    frames: np.ndarray
    answers: np.ndarray


def ask(
    names: Sequence[str], count: int, condition: str, *, split: str, seed: int = 0, most: int = families.MOST
) -> list[Asked]:
    """`count` queries of each family. The other episode is the next one whose rule answers the query otherwise, where
    there is one: then a right answer was not read from what was shown."""
    tasks = {name: list(families.episodes([name], split, count, seed=seed, most=most)) for name in names}
    found = []
    for place, (name, mine) in enumerate(tasks.items()):
        given = mine
        if condition == "other_family":
            shown = tasks[names[(place + 1 + len(names) // 2) % len(names)]]
            given = [*shown[1:], shown[0]]
        elif condition == "other_episode":
            given = [mine[index] for index in partners(name, mine, split, seed=seed)]
        pairs = list(zip(given, mine, strict=True))
        frames = np.stack([_frames(shown, asked, most) for shown, asked in pairs])
        answers = np.stack([puzzles.canvas(task.test[0].output, most) for task in mine])
        found.append(Asked(name, condition, frames, answers))
    return found


def partners(name: str, tasks: Sequence[Task], split: str, *, seed: int) -> list[int]:
    """For each of a family's episodes the next whose rule gives its query another answer; the next where none does."""
    family, count = families.find(name), len(tasks)
    rules = [family.draw(families.stream(name, split, number, seed=seed))[0] for number in range(count)]
    found = []
    for number, task in enumerate(tasks):
        others = [(number + away) % count for away in range(1, count)] if family.parametric else []
        strange = (other for other in others if not _answers(rules[other], task.test[0]))
        found.append(next(strange, (number + 1) % count))
    return found


def _answers(rule: Rule, pair: Pair) -> bool:
    """Whether a rule gives a pair's output; one that cannot be applied (nothing of its colour to crop) does not."""
    try:
        return np.array_equal(rule(pair.input), pair.output)
    except IndexError:
        return False


def _frames(shown: Task, asked: Task, most: int) -> np.ndarray:
    """The demonstrations of one task and the query of another; no output of the query."""
    grids = [grid for pair in shown.train for grid in (pair.input, pair.output)]
    return np.stack([puzzles.canvas(grid, most) for grid in (*grids, asked.test[0].input)])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    asked: Asked
    exact: np.ndarray  # bool [k, n], after 0, 1, ... refinement steps
    size: np.ndarray  # bool [n]
    cells: np.ndarray  # float [n], share right of those inside the answer
    energy: np.ndarray  # float [n]
    said: np.ndarray  # uint8 [n, m, m], codes after the last step


def solve(student: Student, asked: Sequence[Asked], tick: Tick) -> list[Outcome]:
    """The student's answers, judged."""
    graph, state = nnx.split(layers.narrowed(student.folded()))
    program, state = _program(graph), nnx.to_pure_dict(state)
    found = []
    for one in asked:
        parts = []
        for first in range(0, len(one.frames), BATCH):
            video = arc_tasks.render(one.frames[first : first + BATCH])[:, :, None]
            count = len(video)
            said, energy = program(state, np.resize(video, (BATCH, *video.shape[1:])))
            parts.append((np.asarray(said)[:, :count], np.asarray(energy)[:count]))
        said = np.concatenate([part[0] for part in parts], axis=1)
        found.append(judge(one, said, np.concatenate([part[1] for part in parts])))
        tick("puzzles", 1, len(asked))
    return found


def timed(student: Student, asked: Asked) -> grid_wall.Timed:
    """An answer to one query."""
    graph, state = nnx.split(layers.narrowed(student.folded()))
    video = arc_tasks.render(asked.frames[:1])[:, :, None]
    return grid_wall.measure(_program(graph), nnx.to_pure_dict(state), video)


def judge(asked: Asked, said: np.ndarray, energy: np.ndarray) -> Outcome:
    """said: codes uint8 [k, n, m, m] after each step. An answer is right if every cell and the size are."""
    inside = asked.answers != arc.OUTSIDE
    hits = ((said[-1] == asked.answers) & inside).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))
    size = ((said[-1] != arc.OUTSIDE) == inside).all(axis=(1, 2))
    return Outcome(asked, (said == asked.answers[None]).all(axis=(2, 3)), size, hits, energy, said[-1])


@functools.cache
def _program(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def run(state: dict, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        student, rows = nnx.merge(graph, state), video.shape[0]
        none = jnp.zeros((rows, 1), jnp.int32)
        inputs = irp.Inputs(video, jnp.zeros((rows, 1, 1)), none, none.astype(bool), jnp.ones(video.shape[:3], bool))
        inputs = student.prepared(inputs, jax.random.key(0), name="grid")
        states = irp.unroll(student.grid, inputs, jax.random.key(0), student.grid.description.max_steps)
        codes = [student.grid.output(one)["grid_logits"].argmax(axis=-1)[:, 0] for one in states]
        return jnp.stack(codes).astype(jnp.uint8), states[-1].energy

    return run


@dataclasses.dataclass(frozen=True)
class Spent:
    """All queries at one budget."""

    share: float
    """The budget, of what all refinement steps cost."""
    exact: np.ndarray  # bool [n]
    atp: np.ndarray  # [n], spent


def dial(student: Student, asked: Sequence[Asked], tick: Tick) -> list[Spent]:
    """The student within budgets of SHARES, all families together."""
    thinker, found = Thinker(student), []
    frames, answers = (np.concatenate([getattr(one, name) for one in asked]) for name in ("frames", "answers"))
    full = thinker.full(arc_tasks.render(frames[:1])[:, :, None])
    for share in SHARES:
        parts = []
        for first in range(0, len(frames), BATCH):
            video = arc_tasks.render(frames[first : first + BATCH])[:, :, None]
            said = thinker(np.resize(video, (BATCH, *video.shape[1:])), atp=share * full)
            parts.append((said.codes[: len(video)], said.atp[: len(video)]))
        codes, atp = (np.concatenate(part) for part in zip(*parts, strict=True))
        found.append(Spent(share, (codes == answers).all(axis=(1, 2)), atp))
        tick("budgets", 1, len(SHARES))
    return found


def predictions(found: Sequence[Outcome]) -> dict[str, list]:
    """Every answer in ARC Prize form: {task: [{"attempt_1": grid}]}; an answer that is no rectangle is empty."""
    return {
        f"{one.asked.family}-{number}": [{"attempt_1": [] if grid is None else grid.tolist()}]
        for one in found
        for number, grid in enumerate(map(rectangle, one.said))
    }


def rectangle(codes: np.ndarray) -> np.ndarray | None:
    """The grid int8 [h, w] of told codes [n, n]; None where they are not one rectangle at the top left."""
    inside = codes != arc.OUTSIDE
    height, width = int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())
    if not height or inside.sum() != height * width or not inside[:height, :width].all():
        return None
    return codes[:height, :width].astype(np.int8)


# Those who cannot think


def copied(asked: Asked) -> np.ndarray:
    """The query itself."""
    return asked.frames[:, -1]


def nearest(asked: Asked) -> np.ndarray:
    """The output of the demonstration whose input has most cells in common with the query."""
    inputs, outputs = asked.frames[:, :-1:2], asked.frames[:, 1:-1:2]
    alike = (inputs == asked.frames[:, -1:]).sum(axis=(2, 3))
    return outputs[np.arange(len(outputs)), alike.argmax(axis=1)]


def blank(asked: Asked) -> np.ndarray:
    """All background, in the query's size."""
    query = asked.frames[:, -1]
    return np.where(query == arc.OUTSIDE, arc.OUTSIDE, 0).astype(np.uint8)


TRIVIAL = {"copy_input": copied, "nearest_demonstration": nearest, "all_zeros": blank}
