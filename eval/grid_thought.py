"""A student of grids within a budget: what it answers, what each module spent, and why it stopped."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from student_jax import irp
from student_jax.sage import budget
from student_jax.student import Student


@dataclasses.dataclass(frozen=True)
class Thought:
    """What came of b queries."""

    codes: np.ndarray  # uint8 [b, n, n], 10 outside the grid
    energy: np.ndarray  # float32 [b], predicted chance of not being exactly right
    atp: np.ndarray  # float32 [b], spent on refinement
    accounts: dict[str, Any]  # {module: orchestrator.Account}


class Thinker:
    """A student as it is used: all modules within a budget of ATP, everything trusted alike."""

    def __init__(self, student: Student):
        self.student = student
        self._graph, state = nnx.split(student.resting())
        self._state = nnx.to_pure_dict(state)

    def __call__(self, video: np.ndarray, *, atp: float, shown: np.ndarray | None = None) -> Thought:
        """video: uint8 [b, f, 1, s, s, 3], pairs and then the query; shown: bool [b, f], which frames are given."""
        mask = np.ones(video.shape[:2], bool) if shown is None else shown
        spend = np.full(len(video), atp, np.float32)
        return Thought(*jax.device_get(_program(self._graph)(self._state, video, mask[:, :, None], spend)))

    def full(self, video: np.ndarray) -> float:
        """ATP of all refinement steps for pictures of this shape."""
        none = np.zeros((1, 1))
        table = self.student.table(irp.Inputs(video[:1], none[:, None], none, none, none))
        return budget.full(table, {name: part.description.max_steps for name, part in self.student.modules.items()})


@functools.cache
def _program(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def run(state: dict, video: jax.Array, mask: jax.Array, atp: jax.Array) -> tuple:
        student, rows = nnx.merge(graph, state), video.shape[0]
        none = jnp.zeros((rows, 1), jnp.int32)
        inputs = irp.Inputs(video, jnp.zeros((rows, 1, 1)), none, none.astype(bool), mask)
        said = student(inputs, atp, jnp.ones((rows, len(student.modules))), jax.random.key(0))
        codes = said.features["grid_logits"].argmax(axis=-1)[:, 0].astype(jnp.uint8)
        return codes, said.energies["grid"], said.atp, said.accounts

    return run
