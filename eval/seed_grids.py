"""The user's original student on ARC's test tasks: from the teacher's tokens, its answers cut to the true size."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import store
from eval.arc_grids import Attempts, Query
from eval.ticker import Tick
from student_jax.student import Student
from train import data, seed_tokens

BATCH = 16


def solve(student: Student, reader: store.Reader, asked: Sequence[Query], tick: Tick, *, split: str) -> list[Attempts]:
    """One answer a query, of the true size: it cannot tell sizes, so it is told them. DataError where the store lacks
    the split, or some of these tasks."""
    graph, state = nnx.split(student)
    state, found = nnx.to_pure_dict(state), {}
    tokens = reader.manifest.teacher.tokens
    read = functools.partial(reader.read, "image_tokens", length=tokens)
    wanted = {(query.task.id, query.index) for query in asked}
    kept = [one for one in seed_tokens.asked(reader, split, leave_one_out=False) if (one.task, one.pair) in wanted]
    if missing := wanted - {(one.task, one.pair) for one in kept}:
        raise data.DataError(
            f"the store lacks {len(missing)} of the queries, task {min(missing)[0]} among them; extract "
            "all tasks to compare with a student that reads it"
        )
    for first in range(0, len(kept), BATCH):
        chosen = kept[first : first + BATCH]
        rows = [chosen[i % len(chosen)] for i in range(BATCH)]
        given = seed_tokens.gathered(read, rows, tokens)
        codes = np.asarray(_program(graph)(state, given["tokens"], given["mask"]))
        for one, said in zip(chosen, codes, strict=False):
            found[one.task, one.pair] = said
        tick("seed", len(chosen), len(kept))
    return [_attempt(query, found[query.task.id, query.index]) for query in asked]


def _attempt(query: Query, codes: np.ndarray) -> Attempts:
    height, width = query.answer.shape
    return Attempts(query, (codes[:height, :width].astype(np.int8),), (1,), codes)


@functools.cache
def _program(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def run(state: dict, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        logits, _ = nnx.merge(graph, state).seed(tokens.astype(jnp.float32), mask)
        return logits.argmax(axis=-1).astype(jnp.uint8)

    return run
