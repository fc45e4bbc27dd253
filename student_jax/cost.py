"""FLOPs of the building blocks, and the table that turns them into ATP: 1 ATP = 10 MFLOP."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FLOP_PER_ATP = 10e6


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations of one plugin per sample; a multiply-add is two, element-wise work is left out."""

    init: float
    """The first valid state: always paid, whatever the budget."""
    step: float
    """One refinement, its energy included: what a budget buys."""
    output: float
    """Reading the features out of the returned state: always paid."""

    @property
    def step_atp(self) -> float:
        return self.step / FLOP_PER_ATP

    @property
    def base_atp(self) -> float:
        return (self.init + self.output) / FLOP_PER_ATP


def linear(rows: int, inputs: int, outputs: int) -> float:
    """FLOPs of a matrix product [rows, inputs] @ [inputs, outputs]."""
    return 2.0 * rows * inputs * outputs


def block(tokens: int, width: int, *, mlp: int) -> float:
    """FLOPs of one transformer block over one sequence: four projections, attention, a two-matrix MLP `mlp` wide."""
    attention = 2 * linear(tokens, width, tokens)
    return linear(tokens, width, 4 * width) + attention + 2 * linear(tokens, width, mlp)


def shares(atp: Float[Array, " b"], trust: Float[Array, "b m"]) -> Float[Array, "b m"]:
    """Split a budget over m active modules: B_i = max(0.05 B, B T_i / sum T), rescaled so that their sum is at most B.

    A budget or trust that is negative or not a number counts as zero; with no trust at all the split is even.
    """
    atp = jnp.where(atp > 0, atp, 0.0)[:, None]
    trust = jnp.where(trust > 0, trust, 0.0)
    total = jnp.sum(trust, axis=1, keepdims=True)
    fraction = jnp.where(total > 0, trust / jnp.where(total > 0, total, 1.0), 1.0 / trust.shape[1])
    fraction = jnp.maximum(fraction, 0.05)
    return atp * (fraction / jnp.maximum(jnp.sum(fraction, axis=1, keepdims=True), 1.0))


def affordable(atp: Float[Array, " b"], step_atp: float, *, max_steps: int) -> Int[Array, " b"]:
    """Whole steps that `atp` pays for, at most `max_steps`; their price never exceeds `atp`, rounding included."""
    steps = jnp.clip(jnp.floor(jnp.where(atp > 0, atp, 0.0) / step_atp), 0, max_steps)
    return jnp.where(steps * step_atp > atp, steps - 1, steps).astype(jnp.int32).clip(0)
