"""Training the user's original student, with the mistakes of its first attempt repaired or, one by one, made again.

Batches: `seed_tokens.Tokens`. The score is told the true size, which this student cannot tell: a kindness to it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bridge import arc
from student_jax import layers
from student_jax.student import Student
from train import losses

Batch = dict[str, Array]
Terms = dict[str, losses.Term]


def make_terms(mistakes: Sequence[str]):
    """The losses. mistakes: `padding` (what lies outside the grid counts as colour 0), `sums` (the feature loss is
    summed over channels instead of averaged); `projector` is the stage's (what is not trained)."""

    def terms(student: Student, batch: Batch, key: Array) -> tuple[Terms, Terms]:
        tokens = batch["tokens"].astype(jnp.float32)
        logits, told = student.seed(tokens, batch["mask"], key)
        surprise = cross_entropy(logits, batch["answers"], padded="padding" in mistakes)
        apart = distance(told, layers.masked_mean(tokens, batch["mask"]), summed="sums" in mistakes)
        named = {"cells": losses.masked(surprise, batch["valid"]), "features": losses.masked(apart, batch["valid"])}
        return named, {}

    return terms


def cross_entropy(logits: Float[Array, "b s s c"], answers: Array, *, padded: bool) -> Float[Array, " b"]:
    """Mean over the cells of the true grid; `padded`: over all 900, colour 0 outside it."""
    inside = answers != arc.OUTSIDE
    truth = jnp.where(inside, answers, 0).astype(jnp.int32)
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), truth[..., None], axis=-1)[..., 0]
    counted = jnp.ones_like(inside) if padded else inside
    return jnp.where(counted, each, 0.0).sum(axis=(1, 2)) / counted.sum(axis=(1, 2))


def distance(told: Float[Array, "b d"], target: Float[Array, "b d"], *, summed: bool) -> Float[Array, " b"]:
    """Mean squared error + 0.5 (1 - cosine); `summed`: the sum of squares instead of their mean."""
    square = jnp.square(told - jax.lax.stop_gradient(target))
    lengths = jnp.linalg.norm(told, axis=-1) * jnp.linalg.norm(target, axis=-1)
    cosine = (told * target).sum(axis=-1) / jnp.maximum(lengths, 1e-6)
    return (square.sum(axis=-1) if summed else square.mean(axis=-1)) + 0.5 * (1.0 - cosine)


def measure(student: Student, batch: Batch, key: Array) -> dict[str, Array]:
    """Per sample [b]: share of the true grid's cells that are right, whether all are, mean log probability."""
    logits, _ = student.seed(batch["tokens"].astype(jnp.float32), batch["mask"])
    right = hits(logits, batch["answers"])
    surprise = cross_entropy(logits, batch["answers"], padded=False)
    return {"cells": right, "exact": right == 1.0, "surprise": surprise, "valid": batch["valid"]}


def hits(logits: Float[Array, "b s s c"], answers: Array) -> Float[Array, " b"]:
    """Share of the true grid's cells that are right."""
    inside: Bool[Array, "b s s"] = answers != arc.OUTSIDE
    return ((logits.argmax(axis=-1) == answers) & inside).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))


def summarise(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """Means over a validation's queries."""
    valid = np.concatenate([part["valid"] for part in parts])
    cells, exact, surprise = (
        np.concatenate([part[name] for part in parts])[valid] for name in ("cells", "exact", "surprise")
    )
    return {
        "likelihood": float(np.exp(-surprise.mean())),
        "cell_accuracy": float(cells.mean()),
        "exact": float(exact.mean()),
    }
