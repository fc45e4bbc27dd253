"""Losses as (sum, count) pairs, so that masked means reduce right over batches and devices. All float32."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

Term = tuple[Float[Array, ""], Float[Array, ""]]
Loss = Term | list[Term]
"""A list stands for the mean of its terms' means."""
Terms = dict[str, Loss]


def mean(loss: Loss) -> Float[Array, ""]:
    """sum / count; 0 where nothing was counted."""
    if isinstance(loss, list):
        return sum(mean(term) for term in loss) / len(loss)
    total, count = loss
    return total / jnp.maximum(count, 1.0)


def counts(terms: Terms) -> dict[str, Any]:
    """How many each term counts, without what it sums: of the parts of a batch they add up to those of the whole."""
    return {name: [count for _, count in loss] if isinstance(loss, list) else loss[1] for name, loss in terms.items()}


def among(loss: Loss, count: Any) -> Loss:
    """A loss over part of a batch as its share of the whole batch's: with the whole's counts, from `counts`."""
    if isinstance(loss, list):
        return [(total, whole) for (total, _), whole in zip(loss, count, strict=True)]
    return loss[0], count


def rising(steps: int) -> Float[Array, " k"]:
    """Weights of the states 0..steps, proportional to 1, 2, ..., steps + 1, with sum 1.

    A later state weighs more than an earlier one, so that capacity is never spent on being good too early.
    """
    weights = jnp.arange(1, steps + 2, dtype=jnp.float32)
    return weights / weights.sum()


def token_error(predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"]) -> Float[Array, "b f"]:
    """Mean squared error of each frame over its tokens and channels."""
    squared = jnp.square(predicted.astype(jnp.float32) - jax.lax.stop_gradient(target.astype(jnp.float32)))
    return squared.mean(axis=(2, 3))


def token_mse(predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"], mask: Bool[Array, "b f"]) -> Term:
    """Mean squared error over the elements of valid frames."""
    return masked(token_error(predicted, target), mask)


def token_cosine(predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"], mask: Bool[Array, "b f"]) -> Term:
    """1 - cosine over the channels of each token, in [0, 2]."""
    return masked(1.0 - cosine(predicted, jax.lax.stop_gradient(target)).mean(axis=2), mask)


def cosine(a: Num[Array, "*n d"], b: Num[Array, "*n d"]) -> Float[Array, "*n"]:
    """Cosine over the last axis, in [-1, 1]; 0 where either vector is (nearly) zero."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squares = jnp.square(a).sum(axis=-1) * jnp.square(b).sum(axis=-1)
    return (a * b).sum(axis=-1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


def attention_kl(
    log_predicted: Float[Array, "b f t"], target: Float[Array, "b f t"], mask: Bool[Array, "b f"], *, tiles: int = 1
) -> Term:
    """KL(teacher || student) in nats, mean over tiles; tokens are tile-major, both distributions sum to 1 per tile.

    The teacher's is renormalised, so that its rounding cannot make a divergence negative.
    """
    shape = (*target.shape[:2], tiles, target.shape[2] // tiles)
    p = jnp.maximum(jax.lax.stop_gradient(target).reshape(shape), 1e-12)
    p = p / p.sum(axis=-1, keepdims=True)
    divergence = (p * (jnp.log(p) - log_predicted.reshape(shape))).sum(axis=-1)
    return masked(divergence.mean(axis=-1), mask)


def step_rise(errors: Sequence[Float[Array, "b f"]], mask: Bool[Array, "b f"], *, fall: float) -> Term:
    """How far each refinement step misses a relative `fall` of the error per step, over the error before it.

    0 where every step brings the error down by that share. Only the later step receives a gradient: making the earlier
    one worse must not pay.
    """
    before = [jnp.maximum(jax.lax.stop_gradient(error), 1e-8) for error in errors[:-1]]
    miss = [jax.nn.relu(b / a - (1.0 - fall)) for a, b in zip(before, errors[1:], strict=True)]
    return masked(sum(miss), mask)


def log_error(predicted: Float[Array, "b f"], error: Float[Array, "b f"], mask: Bool[Array, "b f"]) -> Term:
    """Huber loss (quadratic up to a factor e, linear beyond) of a predicted log error per frame.

    The error itself is a target and receives no gradient; linear tails keep an untrained head out of the clipping norm.
    """
    miss = predicted - jnp.log(jnp.maximum(jax.lax.stop_gradient(error), 1e-8))
    size = jnp.abs(miss)
    return masked(jnp.where(size <= 1.0, 0.5 * jnp.square(miss), size - 0.5), mask)


def row_mse(predicted: Float[Array, "b c"], target: Float[Array, "b c"], mask: Bool[Array, " b"]) -> Term:
    """Mean squared error over the channels of valid rows."""
    return masked(jnp.square(predicted - jax.lax.stop_gradient(target)).mean(axis=-1), mask)


def chunk_error(predicted: Float[Array, "*n h a"], target: Float[Array, "*n h a"]) -> Float[Array, "*n"]:
    """Mean squared error of each action chunk, in normalised units."""
    return jnp.square(predicted - jax.lax.stop_gradient(target)).mean(axis=(-2, -1))


def places(told: Float[Array, "b f n 3"], truth: Float[Array, "b f n 2"], mask: Bool[Array, " b"]) -> Term:
    """Where objects are (row, column in 0..1, in tenths of a frame, Huber) and whether they are in sight at all.

    told: row, column and logit of being visible; truth: row and column, outside 0..1 (or NaN) where out of sight.
    """
    seen = ((truth > 0) & (truth < 1)).all(axis=-1)
    miss = 10.0 * (told[..., :2] - jnp.where(seen[..., None], truth, 0.5))
    huber = jnp.where(jnp.abs(miss) <= 1.0, 0.5 * jnp.square(miss), jnp.abs(miss) - 0.5).sum(axis=-1)
    visible = jnp.logaddexp(0.0, jnp.where(seen, -told[..., 2], told[..., 2]))
    return masked((jnp.where(seen, huber, 0.0) + 0.1 * visible).mean(axis=(1, 2)), mask)


def weighted(terms: Sequence[Term], weights: Float[Array, " k"]) -> Term:
    """One term from those of several states with the same count; the weights sum to 1."""
    return sum(weight * term[0] for weight, term in zip(weights, terms, strict=True)), terms[0][1]


def share(values: Float[Array, "*n"], mask: Bool[Array, "*n"], *, of: Bool[Array, "*n"]) -> Term:
    """Those in the mask, as a mean over all that count: with few of them the term is small, not noisy."""
    return masked(values, mask)[0], of.sum().astype(jnp.float32)


def masked(values: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Term:
    """The term of values where the mask is true."""
    return jnp.where(mask, values, 0.0).sum(), mask.sum().astype(jnp.float32)
