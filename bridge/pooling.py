"""Means over neighbouring image tokens of a tile: four become one."""

from __future__ import annotations

import numpy as np

from bridge.manifest import Teacher

SIDE = 2


def side(teacher: Teacher) -> int:
    """Tokens on a side of a neighbourhood: 2, or 1 (nothing is pooled) where a tile has an odd number on a side."""
    return SIDE if teacher.grid % SIDE == 0 else 1


def image(tokens: np.ndarray, teacher: Teacher, pool: int) -> np.ndarray:
    """Rows float-like [n, d] of whole tiles, each row by row, as float32 [n / pool², d]."""
    grid, width = teacher.grid, tokens.shape[-1]
    if pool == 1:
        return tokens.astype(np.float32)
    cut = tokens.astype(np.float32).reshape(-1, grid // pool, pool, grid // pool, pool, width)
    return cut.mean(axis=(2, 4)).reshape(-1, width)


def prompt(tokens: np.ndarray, mask: np.ndarray, teacher: Teacher, pool: int) -> np.ndarray:
    """A prompt's positions float-like [n, d]: the pooled image tokens (where mask [n]), then all others, in order."""
    return np.concatenate([image(tokens[mask], teacher, pool), tokens[~mask].astype(np.float32)])
