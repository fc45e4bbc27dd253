"""Where objects are, read from a map of tokens: attention finds the cell, the attended token says where in it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from student_jax import cost, layers


class Objects(nnx.Module):
    """Tokens [..., p, d] of a square grid -> [..., n, 3]: row and column in [0, 1], logit of being visible.

    Per object: the soft-argmax of the tokens' centres, moved by at most half a cell. Reading the move and the
    visibility from every token and then averaging them by the attention equals reading them from the attended token,
    and is one product.
    """

    def __init__(self, width: int, grid: int, *, count: int, rngs: nnx.Rngs):
        self.grid = grid
        self.norm = layers.RmsNorm(width)
        self.head = layers.Linear(width, 4 * count, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "*n p d"]) -> Float[Array, "*n m 3"]:
        y = self.head(self.norm(x))
        y = y.reshape(*y.shape[:-1], -1, 4)  # [..., p, m, 4]
        weight = jax.nn.softmax(y[..., :1], axis=-3)
        read = jnp.sum(weight * y[..., 1:], axis=-3)
        centre = centres(self.grid).reshape((1,) * (y.ndim - 3) + (self.grid**2, 1, 2))
        place = jnp.sum(weight * centre, axis=-3) + 0.5 / self.grid * jnp.tanh(read[..., :2])
        return jnp.concatenate([place, read[..., 2:]], axis=-1)

    def flops(self) -> float:
        """Per frame."""
        return cost.linear(self.grid**2, *self.head.kernel.shape)


def centres(grid: int) -> np.ndarray:
    """Row and column [grid * grid, 2] in [0, 1] of the cells' centres, row-major."""
    at = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    return np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2)
