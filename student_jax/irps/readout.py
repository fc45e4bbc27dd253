"""From the student's token map to the teacher's tokens: sample at their centres, then predict token and attention."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from student_jax import config, cost, layers


class Readout(nnx.Module):
    """Heads shared by all refinement steps, over a [source x source] map of the student's tokens.

    Where both grids coincide and there is one tile, a teacher token reads the student token at its own place. Otherwise
    it reads the bilinear mixture at its centre, told where in its tile and in the student's cell it lies.
    """

    def __init__(
        self,
        width: int,
        source: int,
        *,
        target: config.Target,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        heads: Literal["tokens", "tokens and attention"] = "tokens and attention",
    ):
        self.source = source
        self.target = target
        self.norm = layers.RmsNorm(width)
        self.token = layers.Linear(width, target.width, dtype=dtype, rngs=rngs)
        if heads == "tokens and attention":
            self.attention = layers.Linear(width, 1, dtype=jnp.float32, rngs=rngs, scale=0.0)
        if not self.identity:
            noise = jax.random.normal(rngs.params(), (target.grid**2, width), jnp.float32)
            self.position = nnx.Param(0.02 * noise)
            self.place = layers.Linear(5, width, dtype=jnp.float32, rngs=rngs)
            self.mix_norm = layers.RmsNorm(width)
            self.mix = layers.Mlp(width, width, dtype=dtype, rngs=rngs)

    @property
    def identity(self) -> bool:
        return self.target.tiles == 1 and self.target.grid == self.source

    def __call__(self, x: Float[Array, "n p d"]) -> tuple[Float[Array, "n k c"], Float[Array, "n k"]]:
        """Teacher tokens in the standardised basis, and the logarithm of the attention (its exp sums to 1 per tile)."""
        x = self._centres(x)
        logits = self.attention(x).reshape(x.shape[0], self.target.tiles, self.target.grid**2)
        return self.token(x), jax.nn.log_softmax(logits, axis=-1).reshape(x.shape[0], self.target.tokens)

    def tokens(self, x: Float[Array, "n p d"]) -> Float[Array, "n k c"]:
        """The teacher tokens alone."""
        return self.token(self._centres(x))

    def folded(self, basis: Float[Array, "c c"], mean: Float[Array, " c"]) -> "Readout":
        """The same heads for inference, with the change to the teacher's basis in the token head."""
        other = nnx.clone(self)
        other.token.kernel[...] = self.token.kernel[...] @ basis
        other.token.bias[...] = self.token.bias[...] @ basis + mean
        return other

    def _centres(self, x: Float[Array, "n p d"]) -> Float[Array, "n k d"]:
        return self.norm(x if self.identity else self._place(x))

    def _place(self, x: Float[Array, "n p d"]) -> Float[Array, "n k d"]:
        position = jnp.tile(self.position[...], (self.target.tiles, 1))
        place = self.place(jnp.asarray(places(self.target, self.source)))
        x = sample(x, self.target, self.source) + (position + place)[None]
        return x + self.mix(self.mix_norm(x))

    def flops(self) -> float:
        """Per frame; the bilinear sampling is four multiply-adds a value and left out."""
        width, tokens = self.norm.scale.shape[0], self.target.tokens
        mixing = 0.0 if self.identity else 2 * cost.linear(tokens, width, width)
        outputs = self.target.width + hasattr(self, "attention")
        return mixing + cost.linear(tokens, width, outputs)


def sample(x: Float[Array, "n p d"], target: config.Target, source: int) -> Float[Array, "n k d"]:
    """Bilinear values of a [source x source] token map at the centres of the teacher's tokens, in their order."""
    n, _, width = x.shape
    grid_map = x.reshape(n, source, source, width)

    def read(rows: int, columns: int) -> Array:
        y = jnp.einsum("yr,nrcd->nycd", interpolation(rows * target.grid, source), grid_map)
        y = jnp.einsum("xc,nycd->nyxd", interpolation(columns * target.grid, source), y)
        y = y.reshape(n, rows, target.grid, columns, target.grid, width)
        return y.swapaxes(2, 3).reshape(n, rows * columns * target.grid**2, width)

    tiles = read(target.rows, target.columns)
    return jnp.concatenate([tiles, read(1, 1)], axis=1) if target.thumbnail else tiles


def interpolation(points: int, source: int) -> np.ndarray:
    """Linear-interpolation matrix [points, source] between cell centres; constant beyond the outermost ones."""
    at = np.clip((np.arange(points) + 0.5) * source / points - 0.5, 0, source - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(source)), 0).astype(np.float32)


def places(target: config.Target, source: int) -> np.ndarray:
    """Per teacher token [tokens, 5]: sines, then cosines, of its phase (y, x) in the student's cell; 1 if thumbnail."""

    def phases(rows: int, columns: int) -> np.ndarray:
        y = (np.arange(rows * target.grid) + 0.5) * source / (rows * target.grid)
        x = (np.arange(columns * target.grid) + 0.5) * source / (columns * target.grid)
        angle = 2 * np.pi * np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
        angle = angle.reshape(rows, target.grid, columns, target.grid, 2).swapaxes(1, 2).reshape(-1, 2)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)

    tiles = phases(target.rows, target.columns)
    tiles = np.pad(tiles, ((0, 0), (0, 1)))
    thumbnail = np.pad(phases(1, 1), ((0, 0), (0, 1)), constant_values=1)
    return np.concatenate([tiles, thumbnail[: target.grid**2 * target.thumbnail]]).astype(np.float32)
