"""The user's original student of ARC's grids, kept as a baseline: a transformer over the teacher's own tokens, their
mean, and an MLP to 30 x 30 cells. It needs the teacher at hand and says no size."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from student_jax import config, layers, sizes

SIDE, COLOURS = 30, 10


class Seed(nnx.Module):
    """Projection with norm and GELU, learned positions, pre-norm blocks with dropout, masked mean, decoder; `tell` is
    the learnable projection back to the teacher's width that its feature loss compares."""

    def __init__(self, settings: sizes.SeedConfig, target: config.Target, *, rngs: nnx.Rngs):
        width, dtype = settings.width, settings.dtype
        self.config = settings
        self.project = layers.Linear(target.width, width, dtype=dtype, rngs=rngs)
        self.norm = layers.RmsNorm(width)
        tokens = settings.frames * target.tokens
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (tokens, width), jnp.float32))
        scale = (2 * settings.layers) ** -0.5
        self.blocks = nnx.List([
            layers.Block(width, settings.heads, settings.mlp, dtype=dtype, rngs=rngs, scale=scale)
            for _ in range(settings.layers)
        ])  # fmt: skip
        pairs = itertools.pairwise((width, *settings.decoder, SIDE * SIDE * COLOURS))
        self.decoder = nnx.List([layers.Linear(before, after, dtype=dtype, rngs=rngs) for before, after in pairs])
        self.tell = layers.Linear(width, target.width, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"], key: Array | None = None
    ) -> tuple[Float[Array, "b 30 30 10"], Float[Array, "b d"]]:
        """(logits of every cell's colour, the pooled state in the teacher's width). tokens: the teacher's, of all
        frames in order; mask: which there are; key: draws dropout, None for none."""
        x = jax.nn.gelu(self.norm(self.project(tokens)), approximate=True) + self.position[...][None, : tokens.shape[1]]
        for index, block in enumerate(self.blocks):
            x = x + _dropped(block(x, mask) - x, key, index, self.config.dropout)
        pooled = y = layers.masked_mean(x, mask)
        for index, layer in enumerate(self.decoder):
            y = layer(y if index == 0 else jax.nn.gelu(y, approximate=True))
        return y.reshape(-1, SIDE, SIDE, COLOURS), self.tell(pooled)


def _dropped(x: Float[Array, "b n d"], key: Array | None, index: int, rate: float) -> Float[Array, "b n d"]:
    if key is None or not rate:
        return x
    kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0)
