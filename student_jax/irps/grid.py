"""The Grid IRP: demonstrations and a query as frames in, the query's output grid out, cell by cell."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from student_jax import config, cost, irp, layers, remat, sizes
from student_jax.irps import extent, judge

LIMIT = 256.0  # of a hidden value
CODES = 11
"""Ten colours, then "outside the grid": the size is told by the cells."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Meta:
    """What stays the same through the refinement. A sample has q queries (one, or every pair in turn) and k pairs."""

    asked: Any  # float32 [b, q, p, d], the queries' cells as every step sees them again
    keys: Any  # compute dtype [b, k * p, heads, d / heads], of the pairs' cells
    values: Any  # likewise
    mask: Any  # bool [b, q * p, k * p], which of them a query may read


class GridIrp(nnx.Module):
    """Cells that keep their place: a token per cell (or block of cells) of every pair, input and output stacked.

    init_state: pairs, and the query without its output, pass the same blocks, each on its own. x = {"cells":
    [b, q, p, d]}. step: the query's cells read the pairs' cells and each other, and what they told last time. Logits of
    a colour, or of "outside", are read from every state. Positions count from both ends of the grid, whose size is seen
    in the pixels; with `symmetries` a cell is also given what lies at its image under the square's symmetries.

    Frames: in_1, out_1, ..., in_k, out_k, query. An even number of frames is k pairs each of which is asked in turn
    (q = k) while its own output is hidden: leave one out, for training.
    """

    def __init__(self, grid: sizes.GridConfig, vision: config.VisionConfig, *, rngs: nnx.Rngs):
        width, dtype = grid.width, grid.dtype
        if grid.cells % vision.grid:
            raise ValueError(f"GridConfig.cells {grid.cells} must be a multiple of the vision's {vision.grid} tokens.")
        self.config, self.most, self.block = grid, vision.grid, grid.cells // vision.grid
        self.patch = vision.patch if vision.crop else 0
        linear = functools.partial(layers.Linear, dtype=dtype, rngs=rngs)
        self.seen_norm = layers.RmsNorm(vision.width)
        self.before, self.after = linear(vision.width, width), linear(vision.width, width)
        if grid.symmetries:
            self.mirrored = linear(len(extent.IMAGES) * vision.width, width)
        self.no_output = nnx.Param(0.3 * jax.random.normal(rngs.params(), (width,), jnp.float32))
        tables = (2, 4, 2 * self.most, width)  # of input and output; rows and columns from either end
        self.position = nnx.Param(0.3 * jax.random.normal(rngs.params(), tables, jnp.float32))
        self.pair_blocks = nnx.List([self._block(rngs) for _ in range(grid.pair_blocks)])
        self.pair_norm = layers.RmsNorm(width)
        self.keys_values = linear(width, 2 * width)
        self.step_embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (grid.max_steps, width), jnp.float32))
        self.repeat = linear(CODES * self.block**2, width)
        self.carry = nnx.Param(jnp.full(width, 0.5, jnp.float32))
        self.carry_norm = layers.RmsNorm(width)
        self.reading = nnx.List([_Reading(grid, rngs=rngs) for _ in range(grid.step_blocks)])
        self.out_norm = layers.RmsNorm(width)
        self.out = layers.Linear(width, CODES * self.block**2, dtype=jnp.float32, rngs=rngs, scale=0.0)
        self.judge = judge.Judge(width, dtype=dtype, rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> layers.Block:
        grid = self.config
        scale = (2 * (grid.pair_blocks + grid.step_blocks)) ** -0.5
        return layers.Block(grid.width, grid.heads, grid.mlp, dtype=grid.dtype, rngs=rngs, scale=scale)

    @property
    def description(self) -> irp.Description:
        return irp.Description(
            name="grid",
            state_space="cell tokens float32 [b, queries, patches, width], each within +-256",
            noise="none",
            error="grid: 1 where the told grid is not exactly right, else 0, mean over a sample's queries",
            max_steps=self.config.max_steps,
        )

    def init_state(self, inputs: irp.Inputs, key: Array) -> irp.State:
        """Pairs and query, each encoded on its own. The key is ignored: there is no noise."""
        seen = self.seen_norm(irp.found(inputs, "vision"))
        b, f, p, _ = seen.shape
        pairs = f // 2
        shapes = extent.sizes(inputs.video, self.block * side(p))
        valid = inputs.frame_mask.reshape(b, f)
        stacked = self._stacked(seen[:, : 2 * pairs : 2], shapes[:, : 2 * pairs : 2])
        stacked = stacked + self._told_output(seen[:, 1 : 2 * pairs : 2], shapes[:, 1 : 2 * pairs : 2])
        queries = seen[:, 2 * pairs :] if f % 2 else seen[:, ::2]
        asked = self._stacked(queries, shapes[:, 2 * pairs :] if f % 2 else shapes[:, ::2])
        asked = asked + self.no_output[...].reshape(1, 1, 1, -1)
        encoded = self._encoded(jnp.concatenate([stacked, asked], axis=1))
        shown, asked = encoded[:, :pairs], encoded[:, pairs:]
        keys, values = self._keys_values(shown)
        whole = valid[:, : 2 * pairs : 2] & valid[:, 1 : 2 * pairs : 2]
        mask = _mask(whole, p, hidden=np.zeros((1, pairs), bool) if f % 2 else np.eye(pairs, dtype=bool))
        rows = jnp.zeros(b, jnp.int32), jnp.ones(b, jnp.float32)
        return irp.State({"cells": asked}, *rows, Meta(asked, keys, values, mask))

    def _stacked(self, seen: Float[Array, "b n p d"], shapes: Int[Array, "b n 2"]) -> Float[Array, "b n p w"]:
        """Cells of inputs, where they lie, and what lies at their images."""
        x = self.before(seen) + self._positions(0, shapes, seen.shape[2])
        if not self.config.symmetries:
            return x
        b, n, p, _ = seen.shape
        index, inside = extent.images(shapes, side(p), self.block)
        found = jnp.take_along_axis(seen[:, :, None], index[..., None], axis=3)
        found = jnp.where(inside[..., None], found, 0.0).swapaxes(2, 3).reshape(b, n, p, -1)
        return x + self.mirrored(found)

    def _told_output(self, seen: Float[Array, "b n p d"], shapes: Int[Array, "b n 2"]) -> Float[Array, "b n p w"]:
        return self.after(seen) + self._positions(1, shapes, seen.shape[2])

    def _positions(self, which: int, shapes: Int[Array, "b n 2"], tokens: int) -> Float[Array, "b n p w"]:
        """Of every cell: its row and column from the start, and from the end of a grid of this size."""
        tables = self.position[...][which]
        index = extent.places(-(-shapes // self.block), side(tokens), self.most)  # [b, n, p, 4]
        return sum(tables[axis][index[..., axis]] for axis in range(4))

    def _encoded(self, x: Float[Array, "b n p d"]) -> Float[Array, "b n p d"]:
        flat = x.reshape(-1, *x.shape[2:])
        for block in self.pair_blocks:
            flat = block(flat)
        return flat.reshape(x.shape)

    def _keys_values(self, shown: Float[Array, "b k p d"]) -> tuple[Array, Array]:
        b, k, p, _ = shown.shape
        split = self.keys_values(self.pair_norm(shown)).reshape(b, k * p, 2, self.config.heads, -1)
        split = split.astype(jnp.dtype(self.config.dtype))
        return split[:, :, 0], split[:, :, 1]

    def step(self, state: irp.State, inputs: irp.Inputs) -> irp.State:
        """One refinement; past the last one the last embedding is used again."""
        index, meta = jnp.minimum(state.step, self.config.max_steps - 1), state.meta
        embedding = self.step_embedding[...][index][:, None]
        said = jax.nn.softmax(self.logits(state), axis=-1)
        b, q, p = said.shape[:3]
        x = meta.asked + embedding[:, None] + self.repeat(said.reshape(b, q, p, -1))
        x = x + self.carry[...].reshape(1, 1, 1, -1) * self.carry_norm(state.x["cells"])
        for block in self.reading:
            x = block(x, meta)
        return dataclasses.replace(state, x={"cells": x}, step=state.step + 1)

    def logits(self, state: irp.State) -> Float[Array, "b q p n c"]:
        """Of every code, for the n cells of every token."""
        x = self.out(self.out_norm(state.x["cells"]))
        return x.reshape(*x.shape[:3], self.block**2, CODES)

    def project(self, state: irp.State) -> irp.State:
        """Clip to +-LIMIT; a NaN stays one and is reported."""
        return dataclasses.replace(state, x={"cells": jnp.clip(state.x["cells"], -LIMIT, LIMIT)})

    def energy(self, state: irp.State) -> Float[Array, " b"]:
        """Predicted share of a sample's queries whose grid is not exactly right."""
        return jax.nn.sigmoid(self.doubt(state)).mean(axis=1)

    def doubt(self, state: irp.State) -> Float[Array, "b q"]:
        """Logit of a grid's not being exactly right. Train it on `jax.lax.stop_gradient(state)`."""
        return self.judge(state.x["cells"])

    def output(self, state: irp.State) -> dict[str, Array]:
        """`grid_logits` float32 [b, q, s, s, 11] over the canvas of s x s cells; code 10 is outside the grid."""
        return {"grid_logits": self._canvas(self.logits(state))}

    def _canvas(self, x: Float[Array, "b q p n c"]) -> Float[Array, "b q s s c"]:
        b, q, p, _, codes = x.shape
        wide, cells = side(p), self.block * side(p)
        x = x.reshape(b, q, wide, wide, self.block, self.block, codes)
        return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, q, cells, cells, codes)

    def flops(self, inputs: irp.Inputs) -> cost.Flops:
        """Per sample, from the number of frames."""
        frames = inputs.video.shape[1] * inputs.video.shape[2]
        grid, seen = self.config, self.before.kernel.shape[0]
        p = (inputs.video.shape[3] // self.patch if self.patch else self.most) ** 2
        pairs = frames // 2
        queries = 1 if frames % 2 else pairs
        mirrored = cost.linear(p, len(extent.IMAGES) * seen, grid.width) if grid.symmetries else 0.0
        stacked = cost.linear(p, seen, grid.width)
        encode = (pairs + queries) * (stacked + mirrored + grid.pair_blocks * cost.block(p, grid.width, mlp=grid.mlp))
        keys = cost.linear(pairs * p, grid.width, 2 * grid.width)
        crossing = cost.linear(p, grid.width, 2 * grid.width) + 2 * cost.linear(p, grid.width, pairs * p)
        read = cost.block(p, grid.width, mlp=grid.mlp) + crossing
        told = cost.linear(p, CODES * self.block**2, grid.width)
        told += cost.linear(p, grid.width, CODES * self.block**2)
        error = self.judge.flops(p)
        return cost.Flops(
            init=encode + pairs * stacked + keys + queries * error,
            step=queries * (grid.step_blocks * read + told + error),
            output=queries * cost.linear(p, grid.width, CODES * self.block**2),
        )


def side(tokens: int) -> int:
    """Tokens along a side of a square canvas."""
    return math.isqrt(tokens)


def _mask(valid: Bool[Array, "b k"], tokens: int, *, hidden: np.ndarray) -> Bool[Array, "b i j"]:
    """Which pairs' cells each query's cells may read: those of valid pairs that are not hidden [q, k] from it."""
    mask = valid[:, None] & ~hidden[None]
    return jnp.repeat(jnp.repeat(mask, tokens, axis=1), tokens, axis=2)


class _Reading(nnx.Module):
    """The query's cells read the pairs, then each other, then an MLP."""

    def __init__(self, grid: sizes.GridConfig, *, rngs: nnx.Rngs):
        scale = (3 * grid.step_blocks) ** -0.5
        options = {"dtype": grid.dtype, "rngs": rngs, "scale": scale}
        self.norms = nnx.List([layers.RmsNorm(grid.width) for _ in range(3)])
        self.cross = layers.CrossAttention(grid.width, grid.heads, **options)
        self.attention = layers.Attention(grid.width, grid.heads, **options)
        self.mlp = layers.Mlp(grid.width, grid.mlp, **options)

    def __call__(self, x: Float[Array, "b q p d"], meta: Meta) -> Float[Array, "b q p d"]:
        return remat.part(self._advance)(x, meta)

    def _advance(self, x: Float[Array, "b q p d"], meta: Meta) -> Float[Array, "b q p d"]:
        b, q, p, width = x.shape
        joined = self.norms[0](x).reshape(b, q * p, width)
        x = x + self.cross(joined, meta.keys, meta.values, meta.mask).reshape(x.shape)
        alone = self.norms[1](x).reshape(b * q, p, width)
        x = x + self.attention(alone).reshape(x.shape)
        return x + self.mlp(self.norms[2](x))
