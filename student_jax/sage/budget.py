"""The compute budget in ATP: how it is split, what it pays for, and how long a module should think."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from student_jax import cost

FLOOR = 0.05
"""The least share of what is left that a module may count on."""
GUARD = 1.0 - 2.0**-22
"""Of what is left after a payment: the rounding of a subtraction can never become an overdraft."""


def shares(atp: Float[Array, " b"], weights: Float[Array, "b m"]) -> Float[Array, "b m"]:
    """Split a budget over m modules: B_i = max(0.05 B, B w_i / sum w), rescaled so that their sum is at most B.

    A budget or weight that is negative or not a number counts as zero; with no weight at all the split is even.
    """
    atp = jnp.where(atp > 0, atp, 0.0)[:, None]
    weights = jnp.where(weights > 0, weights, 0.0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    fraction = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 1.0 / weights.shape[1])
    fraction = jnp.maximum(fraction, FLOOR)
    return atp * (fraction / jnp.maximum(jnp.sum(fraction, axis=1, keepdims=True), 1.0))


def affordable(atp: Float[Array, " b"], step_atp: float, *, max_steps: int) -> Int[Array, " b"]:
    """Whole steps that `atp` pays for, at most `max_steps`; their price never exceeds `atp`, rounding included."""
    steps = jnp.clip(jnp.floor(jnp.where(atp > 0, atp, 0.0) / step_atp), 0, max_steps)
    return jnp.where(steps * step_atp > atp, steps - 1, steps).astype(jnp.int32).clip(0)


def pay(left: Float[Array, " b"], steps: Int[Array, " b"], step_atp: float) -> Float[Array, " b"]:
    """What is left after `steps`, for the modules that are still to run: what one module does not use reaches them."""
    return jnp.maximum(left - steps * jnp.float32(step_atp), 0.0) * GUARD


def thrift(atp: Float[Array, " b"], full: float) -> Float[Array, " b"]:
    """How dear a step is: 1 where the budget pays for all of them (`full` ATP), more the tighter it is, 10 at most."""
    return jnp.clip(full / jnp.maximum(atp, 1e-6), 1.0, 10.0)


def wanted(log_worth: Float[Array, "b k"], thrift: Float[Array, " b"], *, price: float) -> Int[Array, " b"]:
    """Steps in 0..k-1 that a module should take: where its halting distribution is largest.

    log_worth: logarithm of p(k), proportional to exp(-(err_k - min err) / tau - price k), as it is taught
    (SAGE_IRP.md, section 3). A tighter budget raises the price.
    """
    depth = jnp.arange(log_worth.shape[1], dtype=jnp.float32)[None]
    return jnp.argmax(log_worth - price * (thrift[:, None] - 1.0) * depth, axis=1).astype(jnp.int32)


def target(errors: Float[Array, "b k"], *, tau: float, price: float) -> Float[Array, "b k"]:
    """The halting distribution that `wanted` is taught, from the error after 0..k-1 steps, in units of a usual one."""
    depth = jnp.arange(errors.shape[1], dtype=jnp.float32)[None]
    best = jnp.min(errors, axis=1, keepdims=True)
    return jax.nn.softmax(-(errors - best) / tau - price * depth, axis=1)


def full(table: dict[str, cost.Flops], steps: dict[str, int]) -> float:
    """ATP of all steps of all modules."""
    return sum(table[name].step_atp * steps[name] for name in steps)
