"""Losses as (sum, count) pairs, so that masked means reduce right over batches and devices. All float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

Term = tuple[Float[Array, ""], Float[Array, ""]]


def mean(term: Term) -> Float[Array, ""]:
    """sum / count; 0 where nothing was counted."""
    total, count = term
    return total / jnp.maximum(count, 1.0)


def rising(steps: int) -> Float[Array, " k"]:
    """Weights of the states 0..steps, proportional to 1, 2, ..., steps + 1, with sum 1.

    A later state weighs more than an earlier one, so that capacity is never spent on being good too early.
    """
    weights = jnp.arange(1, steps + 2, dtype=jnp.float32)
    return weights / weights.sum()


def token_error(
    predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"], mask: Bool[Array, "b f"]
) -> Float[Array, " b"]:
    """Mean squared error per sample over the tokens of its valid frames and all channels; 0 where no frame is valid."""
    squared = jnp.square(predicted.astype(jnp.float32) - jax.lax.stop_gradient(target.astype(jnp.float32)))
    per_frame = squared.mean(axis=(2, 3)) * mask
    return per_frame.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)


def token_mse(predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"], mask: Bool[Array, "b f"]) -> Term:
    """Squared error over all elements of valid frames."""
    squared = jnp.square(predicted.astype(jnp.float32) - jax.lax.stop_gradient(target.astype(jnp.float32)))
    return _masked(squared.mean(axis=(2, 3)), mask)


def token_cosine(predicted: Float[Array, "b f t d"], target: Num[Array, "b f t d"], mask: Bool[Array, "b f"]) -> Term:
    """1 - cosine over the channels of each token, in [0, 2]."""
    return _masked(1.0 - cosine(predicted, jax.lax.stop_gradient(target)).mean(axis=2), mask)


def cosine(a: Num[Array, "*n d"], b: Num[Array, "*n d"]) -> Float[Array, "*n"]:
    """Cosine over the last axis, in [-1, 1]; 0 where either vector is (nearly) zero."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squares = jnp.square(a).sum(axis=-1) * jnp.square(b).sum(axis=-1)
    return (a * b).sum(axis=-1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


def attention_kl(
    predicted: Float[Array, "b f t"], target: Float[Array, "b f t"], mask: Bool[Array, "b f"], *, tiles: int = 1
) -> Term:
    """KL(teacher || student) in nats of two distributions over the tokens of each tile; tokens are tile-major.

    Both are renormalised per tile, so that the teacher's rounding cannot make a divergence negative.
    """
    shape = (*predicted.shape[:2], tiles, predicted.shape[2] // tiles)
    p, q = _normalise(jax.lax.stop_gradient(target).reshape(shape)), _normalise(predicted.reshape(shape))
    divergence = (p * (jnp.log(p) - jnp.log(q))).sum(axis=-1)
    return _masked(divergence.mean(axis=-1), mask)


def _normalise(weights: Float[Array, "*n t"]) -> Float[Array, "*n t"]:
    floored = jnp.maximum(weights.astype(jnp.float32), 1e-12)
    return floored / floored.sum(axis=-1, keepdims=True)


def log_error(predicted: Float[Array, " b"], error: Float[Array, " b"], valid: Bool[Array, " b"]) -> Term:
    """Squared error of a predicted log error; the error itself is a target and receives no gradient."""
    target = jnp.log(jnp.maximum(jax.lax.stop_gradient(error), 1e-8))
    return _masked(jnp.square(predicted.astype(jnp.float32) - target), valid)


def _masked(values: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Term:
    return jnp.where(mask, values, 0.0).sum(), mask.sum().astype(jnp.float32)
