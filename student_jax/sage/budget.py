"""The compute budget in ATP: how it is split, what it pays for, and how long a module should think."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from student_jax import cost

FLOOR = 0.05
"""The least share of what is left that a module may count on."""
SLACK = 1.0 + 2.0**-20
"""On a module's share, so that rounding never denies a step that an even split pays for exactly."""


def usable(atp: Float[Array, " b"], full: float) -> Float[Array, " b"]:
    """The part of a budget that can be spent: whole grains, at most what all steps cost; nothing where it is negative
    or not a number."""
    return jnp.floor(jnp.where(atp > 0, jnp.minimum(atp, full), 0.0) / cost.GRAIN) * cost.GRAIN


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


def thrift(atp: Float[Array, " b"], full: float) -> Float[Array, " b"]:
    """How dear a step is: 1 where the budget pays for all of them (`full` ATP), more the tighter it is, 10 at most."""
    return jnp.clip(full / jnp.maximum(atp, 1e-6), 1.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Choices:
    """Every way in which m modules can take their steps, c of them, and what each costs."""

    steps: np.ndarray  # int32 [c, m]
    costs: np.ndarray  # float32 [c, m], ATP

    @classmethod
    def of(cls, prices: Sequence[float], most: Sequence[int]) -> "Choices":
        """prices: ATP of a step of each module; most: its steps at most."""
        grid = np.meshgrid(*(np.arange(count + 1) for count in most), indexing="ij")
        steps = np.stack([part.reshape(-1) for part in grid], axis=1).astype(np.int32)
        return cls(steps, steps * np.asarray(prices, np.float32))


def choose(
    log_error: Float[Array, "b c"],
    choices: Choices,
    *,
    left: Float[Array, " b"],
    caps: Float[Array, "b m"],
    taken: Int[Array, "b t"],
    price: float,
) -> Int[Array, " b"]:
    """Which choice is best, int32 [b]: the least predicted log error plus `price` times the share of all ATP that is
    still to be spent, among those that agree with the steps `taken` by the first t modules, whose further steps cost at
    most `left` together and `caps` each. Taking no further step is always among them."""
    done = taken.shape[1]
    costs = jnp.asarray(choices.costs)[None, :, done:]
    total, agreed = costs.sum(axis=-1), jnp.all(taken[:, None] == jnp.asarray(choices.steps)[None, :, :done], axis=-1)
    possible = agreed & (total <= left[:, None]) & jnp.all(costs <= caps[:, None, done:], axis=-1)
    possible |= agreed & (total == 0.0)
    score = log_error + price * total / float(choices.costs.sum(axis=1).max())
    return jnp.argmin(jnp.where(possible, score, jnp.inf), axis=1).astype(jnp.int32)


def full(table: dict[str, cost.Flops], steps: dict[str, int]) -> float:
    """ATP of all steps of all modules."""
    return sum(table[name].step_atp * steps[name] for name in steps)
