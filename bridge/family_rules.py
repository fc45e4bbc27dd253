"""The rules of `families`, from an input grid to its output, and makers of inputs on which a rule shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Grid = np.ndarray
Rule = Callable[[Grid], Grid]
Make = Callable[[np.random.Generator, int], Grid]
"""(rng, cells of a side at most) -> an input."""
Draw = Callable[[np.random.Generator], tuple[Rule, Make]]
"""rng -> (the rule of an episode, a maker of inputs on which the rule shows)."""


# Inputs


def size(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Height and width."""
    return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))


def colours(rng: np.random.Generator, count: int) -> list[int]:
    """Different ones of 1..9; 0 is the background."""
    return (1 + rng.permutation(9)[:count]).tolist()


def scattered(rng: np.random.Generator, most: int, some: Sequence[int], *, share: float = 0.5, low: int = 2) -> Grid:
    """Cells of these colours on a background of 0, each colour at least once."""
    while True:
        shape = size(rng, low, most)
        filled = rng.random(shape) < share
        grid = np.where(filled, rng.choice(np.asarray(some), size=shape), 0).astype(np.int8)
        if set(some) <= set(grid.reshape(-1).tolist()):
            return grid


def busy(rng: np.random.Generator, most: int) -> Grid:
    """Any colours, few of them background."""
    return scattered(rng, most, colours(rng, int(rng.integers(2, 4))), share=0.8)


def sparse(rng: np.random.Generator, most: int, some: Sequence[int]) -> Grid:
    """One to three single cells of these colours."""
    grid = np.zeros(size(rng, 3, most), np.int8)
    places = rng.permutation(grid.size)[: int(rng.integers(1, 4))]
    grid.reshape(-1)[places] = rng.choice(np.asarray(some), size=len(places))
    grid.reshape(-1)[places[0]] = some[0]
    return grid


# Parametric rules


def recolour(rng: np.random.Generator):
    """One colour becomes another; the rest stays."""
    old, new, other = colours(rng, 3)
    return lambda g: np.where(g == old, new, g).astype(np.int8), lambda rng, most: scattered(rng, most, [old, other])


def swap(rng: np.random.Generator):
    """Two colours change places."""
    a, b, other = colours(rng, 3)
    table = np.arange(10, dtype=np.int8)
    table[[a, b]] = b, a
    return lambda g: table[g], lambda rng, most: scattered(rng, most, [a, b, other], share=0.7)


def permute(rng: np.random.Generator):
    """Three colours become three others, each its own."""
    old, new = colours(rng, 3), colours(rng, 3)
    while any(a == b for a, b in zip(old, new, strict=True)):
        new = colours(rng, 3)
    table = np.arange(10, dtype=np.int8)
    table[old] = new
    return lambda g: table[g], lambda rng, most: scattered(rng, most, old, share=0.8)


def keep(rng: np.random.Generator):
    """Only one colour stays."""
    kept, *others = colours(rng, 3)
    return lambda g: np.where(g == kept, g, 0).astype(np.int8), lambda rng, most: scattered(
        rng, most, [kept, *others], share=0.7
    )


def background(rng: np.random.Generator):
    """What is empty takes a colour."""
    (filled,) = colours(rng, 1)
    others = [c for c in colours(rng, 9) if c != filled][:2]
    return lambda g: np.where(g == 0, filled, g).astype(np.int8), lambda rng, most: scattered(
        rng, most, others, share=0.4
    )


def border(rng: np.random.Generator):
    """The outermost cells take a colour."""
    (frame,) = colours(rng, 1)

    def rule(grid: Grid) -> Grid:
        out = grid.copy()
        out[[0, -1]] = frame
        out[:, [0, -1]] = frame
        return out

    others = [c for c in colours(rng, 9) if c != frame][:2]
    return rule, lambda rng, most: scattered(rng, most, others, share=0.5, low=3)


def row_of(rng: np.random.Generator):
    """A cell of one colour fills its row."""
    long, *others = colours(rng, 3)

    def rule(grid: Grid) -> Grid:
        return np.where((grid == long).any(axis=1, keepdims=True), long, grid).astype(np.int8)

    return rule, lambda rng, most: sparse(rng, most, [long, *others])


def column_of(rng: np.random.Generator):
    """A cell of one colour fills its column."""
    rule, make = row_of(rng)
    return lambda g: rule(g.T).T.copy(), lambda rng, most: make(rng, most).T.copy()


def halo(rng: np.random.Generator):
    """Empty cells beside a cell of one colour take another."""
    centre, ring = colours(rng, 2)

    def rule(grid: Grid) -> Grid:
        near = np.pad(grid == centre, 1)
        beside = near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:]
        return np.where(beside & (grid == 0), ring, grid).astype(np.int8)

    return rule, lambda rng, most: sparse(rng, most, [centre])


def crop(rng: np.random.Generator):
    """What remains is the smallest rectangle around one colour."""
    wanted, other = colours(rng, 2)

    def rule(grid: Grid) -> Grid:
        rows, columns = (np.flatnonzero((grid == wanted).any(axis=axis)) for axis in (1, 0))
        return grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()

    return rule, lambda rng, most: scattered(rng, most, [wanted, other], share=0.4, low=3)


# Rules that are always the same


def fixed(rule: Rule, make: Make = busy) -> Draw:
    """A family without parameters."""
    return lambda rng: (lambda grid: np.ascontiguousarray(rule(grid)), make)


def gravity(grid: Grid) -> Grid:
    """Coloured cells fall to the bottom of their column, in their order."""
    out = np.zeros_like(grid)
    for column in range(grid.shape[1]):
        cells = grid[:, column][grid[:, column] != 0]
        out[len(grid) - len(cells) :, column] = cells
    return out


def shift(grid: Grid) -> Grid:
    """One cell to the right; what leaves comes back on the left."""
    return np.roll(grid, 1, axis=1)


def double(grid: Grid) -> Grid:
    """Every cell becomes two by two."""
    return grid.repeat(2, axis=0).repeat(2, axis=1)


def small(rng: np.random.Generator, most: int) -> Grid:
    """Sides up to half of what may be."""
    return busy(rng, most // 2)


def loose(rng: np.random.Generator, most: int) -> Grid:
    """Half empty, for what falls."""
    return scattered(rng, most, colours(rng, 2), share=0.45, low=3)


def commonest(grid: Grid) -> Grid:
    """All of it takes the colour that is most common."""
    return np.full_like(grid, np.bincount(grid.reshape(-1), minlength=10).argmax())
