"""Students on ARC's published evaluation tasks: two attempts a query, voted over the square's symmetries and
recolourings."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import arc, arc_content
from bridge.arc import Pair, Task
from eval import grid_wall
from eval.puzzles import rectangle
from eval.ticker import Tick
from student_jax import irp
from student_jax.student import Student
from train import arc_tasks

BATCH = 16
VIEWS = 8
"""Ways in which a task is seen: all eight symmetries, all but the first under a recolouring."""


@dataclasses.dataclass(frozen=True)
class View:
    """One way of seeing a task."""

    element: int
    colours: np.ndarray  # int8 [10], what each colour becomes

    def of(self, grid: np.ndarray) -> np.ndarray:
        """The grid as it is seen."""
        return np.ascontiguousarray(self.colours[arc_content.dihedral(grid, self.element)])

    def back(self, grid: np.ndarray) -> np.ndarray:
        """The grid that is seen so."""
        turned = np.rot90(np.argsort(self.colours).astype(np.int8)[grid], -(self.element % 4))
        return np.ascontiguousarray(turned.T if self.element >= 4 else turned)


def views(count: int, *, seed: int) -> list[View]:
    """The task as it is, then its symmetries in turn, recoloured (0 stays) from the second on."""
    rng, made = np.random.default_rng(seed), []
    for number in range(count):
        shuffled = np.arange(1, 10) if number == 0 else 1 + rng.permutation(9)
        made.append(View(number % 8, np.concatenate([[0], shuffled]).astype(np.int8)))
    return made


@dataclasses.dataclass(frozen=True)
class Query:
    """One test input of one task."""

    task: Task
    index: int

    @property
    def answer(self) -> np.ndarray:
        """What is right, int8 [h, w]."""
        return self.task.test[self.index].output

    def frames(self, view: View, size: int) -> np.ndarray:
        """uint8 [2 k + 1, size, size]: the demonstrations and the query as they are seen; never the query's output."""
        grids = [view.of(grid) for pair in self.task.train for grid in (pair.input, pair.output)]
        grids.append(view.of(self.task.test[self.index].input))
        made = np.full((len(grids), size, size), arc.OUTSIDE, np.uint8)
        for canvas, grid in zip(made, grids, strict=True):
            canvas[: grid.shape[0], : grid.shape[1]] = grid
        return made

    @property
    def canvas(self) -> int:
        """The smallest canvas that holds everything that is shown."""
        shown = (*self.task.train, Pair(self.task.test[self.index].input, None))
        largest = max(max(g.shape) for pair in shown for g in (pair.input, pair.output) if g is not None)
        return next(size for size in arc_tasks.CANVASES if size >= largest)


@dataclasses.dataclass(frozen=True)
class Attempts:
    """What was said of one query: different grids, the most voted first, with their votes."""

    query: Query
    grids: tuple[np.ndarray, ...]
    votes: tuple[int, ...]
    plain: np.ndarray
    """Codes uint8 [n, n] of the task as it is, unvoted."""

    def solved(self, tries: int) -> bool:
        """Whether one of the first tries is exactly right."""
        return any(np.array_equal(grid, self.query.answer) for grid in self.grids[:tries])


def queries(tasks: Sequence[Task]) -> list[Query]:
    """Every test input."""
    return [Query(task, index) for task in tasks for index in range(len(task.test))]


def solve(student: Student, asked: Sequence[Query], seen: Sequence[View], tick: Tick) -> list[Attempts]:
    """Every query seen in every way, and the votes counted."""
    graph, state = nnx.split(student.resting())
    state, said = nnx.to_pure_dict(state), collections.defaultdict(dict)
    for batch in batches(asked, seen):
        codes = told(graph, state, batch, asked, seen)
        for (number, way), each in zip(batch, codes, strict=True):
            said[number][way] = each
        tick("queries", len(batch), len(asked) * len(seen))
    return [vote(query, [said[number][way] for way in range(len(seen))], seen) for number, query in enumerate(asked)]


def batches(asked: Sequence[Query], seen: Sequence[View]) -> Iterator[list[tuple[int, int]]]:
    """(query, view) in batches that share canvas and number of demonstrations."""
    alike = collections.defaultdict(list)
    for number, query in enumerate(asked):
        alike[query.canvas, len(query.task.train)] += [(number, way) for way in range(len(seen))]
    for rows in alike.values():
        yield from (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))


def told(graph, state: dict, batch, asked: Sequence[Query], seen: Sequence[View]) -> np.ndarray:
    """Codes uint8 [rows, n, n]."""
    size = asked[batch[0][0]].canvas
    cells = np.stack([asked[number].frames(seen[way], size) for number, way in batch])
    video = arc_tasks.render(cells)[:, :, None]
    return np.asarray(_program(graph)(state, np.resize(video, (BATCH, *video.shape[1:]))))[: len(batch)]


@functools.cache
def _program(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def run(state: dict, video: jax.Array) -> jax.Array:
        student, rows = nnx.merge(graph, state), video.shape[0]
        none = jnp.zeros((rows, 1), jnp.int32)
        inputs = irp.Inputs(video, jnp.zeros((rows, 1, 1)), none, none.astype(bool), jnp.ones(video.shape[:3], bool))
        inputs = student.prepared(inputs, jax.random.key(0), name="grid")
        last = irp.unroll(student.grid, inputs, jax.random.key(0), student.grid.description.max_steps)[-1]
        return student.grid.output(last)["grid_logits"].argmax(axis=-1)[:, 0].astype(jnp.uint8)

    return run


def timed(student: Student, query: Query, seen: Sequence[View]) -> tuple[grid_wall.Timed, grid_wall.Timed]:
    """An answer to one view of a query, and to all of them at once: what a task costs."""
    graph, state = nnx.split(student.resting())
    cells = np.stack([query.frames(view, query.canvas) for view in seen])
    video, state = arc_tasks.render(cells)[:, :, None], nnx.to_pure_dict(state)
    one, whole = (grid_wall.measure(_program(graph), state, part) for part in (video[:1], video))
    return one, whole


def vote(query: Query, codes: Sequence[np.ndarray], seen: Sequence[View]) -> Attempts:
    """Grids by how many views told them; among equals the one that was told first. What is no rectangle has no vote."""
    count: dict[tuple, int] = {}
    kept: dict[tuple, np.ndarray] = {}
    for each, view in zip(codes, seen, strict=True):
        grid = rectangle(each)
        if grid is None:
            continue
        grid = view.back(grid)
        key = (grid.shape, grid.tobytes())
        count[key], kept[key] = count.get(key, 0) + 1, grid
    order = sorted(count, key=lambda key: -count[key])
    return Attempts(query, tuple(kept[key] for key in order), tuple(count[key] for key in order), codes[0])


def predictions(found: Sequence[Attempts]) -> dict[str, list[dict]]:
    """ARC Prize form: {task id: [{"attempt_1": grid, "attempt_2": grid}, ...]}."""
    made: dict[str, list[dict]] = {}
    for one in found:
        grids = [grid.tolist() for grid in one.grids[:2]] + [[[0]]] * 2
        made.setdefault(one.query.task.id, []).append({"attempt_1": grids[0], "attempt_2": grids[1]})
    return made


# Those who cannot think


def copied(query: Query) -> np.ndarray:
    """The test input."""
    return query.task.test[query.index].input


def blank(query: Query) -> np.ndarray:
    """All background, in the input's size."""
    return np.zeros_like(copied(query))


def nearest(query: Query) -> np.ndarray:
    """The output of the demonstration whose input has most cells in common with the test input, size first."""
    asked = copied(query)

    def alike(pair: Pair) -> tuple[bool, int]:
        height, width = (min(sides) for sides in zip(pair.input.shape, asked.shape, strict=True))
        same = pair.input[:height, :width] == asked[:height, :width]
        return pair.input.shape == asked.shape, int(same.sum())

    return max(query.task.train, key=alike).output


TRIVIAL = {"copy_input": copied, "all_zeros": blank, "nearest_demonstration": nearest}
