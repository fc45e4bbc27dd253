"""Blocks of neighbouring image tokens of a tile, which are coded together: 2 x 2 where a tile's side is even."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 2
HAAR = {1: np.ones((1, 1)), 2: np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2}
"""By side, orthonormal [band, position row by row]: the mean, then differences across, down and between diagonals.
Neighbours differ little and alike in all directions, so the bands hardly correlate, and most variance is the mean's."""


def side(grid: int) -> int:
    """Tokens on a side of a block in tiles of grid x grid."""
    return SIDE if grid % SIDE == 0 else 1


def gathered(tokens: Any, grid: int) -> Any:
    """Tokens [..., n, d] of whole tiles, each row by row, as blocks [..., n / side², side² d]: a block's tokens one
    after another. Of numpy or of jax."""
    across = grid // side(grid)
    cut = tokens.reshape(*tokens.shape[:-2], -1, across, side(grid), across, side(grid), tokens.shape[-1])
    return cut.swapaxes(-4, -3).reshape(*tokens.shape[:-2], -1, side(grid) ** 2 * tokens.shape[-1])


def spread(found: Any, grid: int) -> Any:
    """The tokens of `gathered`, in their order. ValueError where there is a part of a tile."""
    across = grid // side(grid)
    if found.shape[-2] % across**2:
        raise ValueError(f"expected blocks of whole tiles, {across**2} each, got {found.shape[-2]}")
    width = found.shape[-1] // side(grid) ** 2
    cut = found.reshape(*found.shape[:-2], -1, across, across, side(grid), side(grid), width)
    return cut.swapaxes(-4, -3).reshape(*found.shape[:-2], -1, width)
