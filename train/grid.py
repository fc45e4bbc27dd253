"""A student of grids: cross-entropy of every cell at every step, and how a validation counts what is exactly right.

Batches: video uint8 [b, 2 q, 1, s, s, 3] (q pairs, each asked in turn), answers uint8 [b, q, n, n] with 10 outside the
grid, asked bool [b, q] (which pairs there are), valid bool [b]; of small puzzles family int32 [b].
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bridge import arc, families
from student_jax import irp
from student_jax.student import Student
from train import losses, vision

Batch = dict[str, Array]
Terms = dict[str, losses.Term]
WELL = 0.9
"""Share of exact answers from which on a family counts as learned."""


def unroll(student: Student, batch: Batch, key: Array) -> list[irp.State]:
    """The states of the Grid IRP after 0, 1, ... steps."""
    given = vision.inputs(batch)
    mask = jnp.repeat(batch["asked"], 2, axis=1)[:, :, None] & given.frame_mask
    given = student.prepared(dataclasses.replace(given, frame_mask=mask), key, name="grid")
    return irp.unroll(student.grid, given, key, student.grid.description.max_steps)


def terms(student: Student, batch: Batch, key: Array) -> tuple[Terms, Terms]:
    """`cells`: mean cross-entropy of the canvas; `energy`: of telling whether the whole grid is exactly right."""
    states, answers = unroll(student, batch, key), batch["answers"].astype(jnp.int32)
    valid = batch["asked"] & batch["valid"][:, None]
    weights = losses.rising(len(states) - 1)
    logits = [student.grid.output(state)["grid_logits"] for state in states]
    wrong = [~right(each, answers) for each in logits]
    doubt = [student.grid.doubt(jax.lax.stop_gradient(state)) for state in states]
    parts = {
        "cells": [losses.masked(cross_entropy(each, answers), valid) for each in logits],
        "energy": [losses.masked(surprise(d, w), valid) for d, w in zip(doubt, wrong, strict=True)],
    }
    extras = {f"wrong/step_{k}": losses.masked(each.astype(jnp.float32), valid) for k, each in enumerate(wrong)}
    return {name: losses.weighted(each, weights) for name, each in parts.items()}, extras


def cross_entropy(logits: Float[Array, "b q n n c"], answers: Array) -> Float[Array, "b q"]:
    """Mean over the cells of the canvas; what lies outside the answer is a code of its own."""
    told = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(told, answers[..., None], axis=-1)[..., 0].mean(axis=(2, 3))


def surprise(logit: Float[Array, "b q"], wrong: Bool[Array, "b q"]) -> Float[Array, "b q"]:
    """Binary cross-entropy of the doubt."""
    return jnp.logaddexp(0.0, jnp.where(wrong, -logit, logit))


def right(logits: Float[Array, "b q n n c"], answers: Array) -> Bool[Array, "b q"]:
    """Whether every cell and the size are right."""
    return (logits.argmax(axis=-1) == answers).all(axis=(2, 3))


def measure(student: Student, batch: Batch, key: Array) -> dict[str, Array]:
    """Per sample and query: exact bool [k, b, q] after each step, size bool [b, q], cells float32 [b, q] (share of
    those inside the true grid), surprise [b, q] (cross-entropy), doubt [b, q]; asked [b, q]; family [b] of puzzles."""
    states, answers = unroll(student, batch, key), batch["answers"].astype(jnp.int32)
    logits = [student.grid.output(state)["grid_logits"] for state in states]
    said, inside = logits[-1].argmax(axis=-1), answers != arc.OUTSIDE
    hits = ((said == answers) & inside).sum(axis=(2, 3)) / jnp.maximum(inside.sum(axis=(2, 3)), 1)
    return {
        "exact": jnp.stack([right(each, answers) for each in logits]),
        "size": ((said != arc.OUTSIDE) == inside).all(axis=(2, 3)),
        "cells": hits,
        "surprise": cross_entropy(logits[-1], answers),
        "doubt": jax.nn.sigmoid(student.grid.doubt(states[-1])),
        "asked": batch["asked"] & batch["valid"][:, None],
    } | {name: batch[name] for name in ("family",) if name in batch}


def summarise(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """`exact`: share of grids that are right in every cell, of all and by step; `likelihood`: exp of the mean log
    probability of a cell."""
    _, exact, rest = gathered(parts)
    summary = {
        "exact": exact[-1].mean(),
        "likelihood": np.exp(-rest["surprise"].mean()),
        "size_accuracy": rest["size"].mean(),
        "cell_accuracy": rest["cells"].mean(),
        "energy_rank_correlation": vision.rank_correlation(rest["doubt"], 1.0 - exact[-1]),
        **{f"exact/step_{k}": each.mean() for k, each in enumerate(exact)},
    }
    return {name: float(value) for name, value in summary.items()}


def by_family(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """`summarise`, `exact` by family too, and `learned`: families that reach WELL."""
    asked, exact, _ = gathered(parts)
    family = np.concatenate([part["family"] for part in parts])
    family = np.broadcast_to(family[:, None], asked.shape)[asked]
    rates = {families.FAMILIES[i].name: float(exact[-1][family == i].mean()) for i in np.unique(family)}
    learned = {"learned": float(sum(rate >= WELL for rate in rates.values()))}
    return summarise(parts) | learned | {f"exact/{name}": rate for name, rate in rates.items()}


def gathered(parts: Sequence[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Which queries there were, bool [n, q]; of those exact [k, m] and the rest [m]."""
    asked = np.concatenate([part["asked"] for part in parts])
    exact = np.concatenate([part["exact"] for part in parts], axis=1)[:, asked]
    names = ("size", "cells", "surprise", "doubt")
    return asked, exact, {name: np.concatenate([part[name] for part in parts])[asked] for name in names}
