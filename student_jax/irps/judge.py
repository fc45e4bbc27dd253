"""Energies: a head in which every token predicts the log of a named error, and the way from there to [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from student_jax import cost, layers


class Judge(nnx.Module):
    """Tokens [..., p, d] -> predicted log error [...]."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = layers.RmsNorm(width)
        self.up = layers.Linear(width, width // 4, dtype=dtype, rngs=rngs)
        self.out = layers.Linear(width // 4, 1, dtype=jnp.float32, rngs=rngs, scale=0.0)

    def __call__(self, x: Float[Array, "*n p d"]) -> Float[Array, "*n"]:
        return log_error(x, self.norm, self.up, self.out)

    def flops(self, tokens: int) -> float:
        """Of one item of `tokens` tokens."""
        return flops(tokens, *self.up.kernel.shape)


def log_error(
    x: Float[Array, "*n p d"], norm: layers.RmsNorm, up: layers.Linear, out: layers.Linear
) -> Float[Array, "*n"]:
    """Every token predicts its own log error; the mean over tokens is taken of e, not of log e."""
    hidden = jax.nn.gelu(up(norm(x)), approximate=True)
    predicted = jnp.clip(out(hidden)[..., 0], -20.0, 20.0)
    return jax.nn.logsumexp(predicted, axis=-1) - np.log(predicted.shape[-1])


def energy(log_error: Float[Array, "b f"], scale: Float[Array, ""], valid: Bool[Array, "b f"]) -> Float[Array, " b"]:
    """Predicted e / (e + scale), e the mean over a sample's valid parts; 1 when it has none."""
    total = jax.nn.logsumexp(log_error, axis=1, where=valid)
    error = total - jnp.log(jnp.maximum(jnp.sum(valid, axis=1), 1))
    return jnp.where(jnp.any(valid, axis=1), jax.nn.sigmoid(error - jnp.log(scale)), 1.0)


def flops(tokens: int, width: int, hidden: int) -> float:
    """Of one item of `tokens` tokens."""
    return cost.linear(tokens, width, hidden) + cost.linear(tokens, hidden, 1)
