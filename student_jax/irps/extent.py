"""How large the grids of a picture are, and where their cells lie: read from pixels, exactly."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

WHITE = 250
"""A cell none of whose channels ever falls below this is outside the grid."""
IMAGES = ("half_turn", "flip_horizontal", "flip_vertical", "transpose", "anti_transpose", "quarter", "three_quarters")
"""The square's symmetries but the identity, in the order of `images`."""


def sizes(video: UInt8[Array, "b t v h w 3"], cells: int) -> Int[Array, "b f 2"]:
    """Height and width in cells of every frame's grid, which lies at the top left of a white canvas of cells x cells.

    ValueError where the picture does not divide into that many cells.
    """
    b, t, v, h, w = video.shape[:5]
    if h % cells or w % cells:
        raise ValueError(f"Inputs.video of {h} x {w} pixels does not divide into {cells} x {cells} cells.")
    split = video.reshape(b, t * v, cells, h // cells, cells, w // cells, 3)
    inside = split.min(axis=(3, 5, 6)) < WHITE
    return jnp.stack([inside.any(axis=3).sum(axis=2), inside.any(axis=2).sum(axis=2)], axis=-1).astype(jnp.int32)


def places(shapes: Int[Array, "b n 2"], side: int, most: int) -> Int[Array, "b n p 4"]:
    """Of every token of a side x side canvas: row and column from the start, and from the end of a grid of this size
    (from 0 at its last row up; from `most` on beyond it, whatever the canvas)."""
    index = jnp.arange(side)
    ends = shapes[..., None] - 1 - index.reshape(1, 1, 1, side)  # [b, n, 2, side]
    ends = jnp.where(ends >= 0, ends, most - 1 - ends)
    b, n = shapes.shape[:2]
    wide = (b, n, side, side)
    row = jnp.broadcast_to(index.reshape(1, 1, side, 1), wide)
    column = jnp.broadcast_to(index.reshape(1, 1, 1, side), wide)
    last_row = jnp.broadcast_to(ends[:, :, 0, :, None], wide)
    last_column = jnp.broadcast_to(ends[:, :, 1, None, :], wide)
    return jnp.stack([row, column, last_row, last_column], axis=-1).reshape(b, n, side * side, 4)


def images(shapes: Int[Array, "b n 2"], side: int, block: int) -> tuple[Int[Array, "b n g p"], Bool[Array, "b n g p"]]:
    """Which token lies at each token's image under IMAGES of a grid of this size, and whether there is one."""
    shapes = -(-shapes // block)
    height, width = shapes[..., 0, None], shapes[..., 1, None]
    row, column = (jnp.asarray(part.reshape(1, 1, -1)) for part in np.indices((side, side)))
    found = (
        (height - 1 - row, width - 1 - column),
        (row, width - 1 - column),
        (height - 1 - row, column),
        (column, row),
        (height - 1 - column, width - 1 - row),
        (column, width - 1 - row),
        (height - 1 - column, row),
    )
    rows, columns = (jnp.stack(jnp.broadcast_arrays(*part), axis=2) for part in zip(*found, strict=True))
    inside = (rows >= 0) & (rows < height[:, :, None]) & (columns >= 0) & (columns < width[:, :, None])
    return jnp.where(inside, rows * side + columns, 0), inside
