"""Families of small puzzles whose rule must be read from three demonstrations: ARC's form, our own generators.

Fixed in advance: `FAMILIES` are what is trained and reported, `HELD_OUT` are never trained. A parametric family draws
its rule anew for every episode (which colour becomes which); the others have one rule. Nothing but the grids says which
family it is. An episode is an `arc.Task`: three demonstrations and one query, sides 2..6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bridge.arc import Pair, Task

MOST = 6
"""Cells of a side at most, inputs and outputs."""
SHOWN = 3
SPLITS = {"train": 0, "validation": 1, "test": 2}
Grid = np.ndarray
Rule = Callable[[Grid], Grid]
Make = Callable[[np.random.Generator, int], Grid]
"""(rng, cells of a side at most) -> an input."""
Draw = Callable[[np.random.Generator], tuple[Rule, Make]]
"""rng -> (the rule of an episode, a maker of inputs on which the rule shows)."""


class FamilyError(ValueError):
    """No family of that name."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of puzzle."""

    name: str
    parametric: bool
    """Whether its rule is drawn anew for every episode."""
    draw: Draw


def episode(family: Family, rng: np.random.Generator, *, shown: int = SHOWN, most: int = MOST) -> Task:
    """Demonstrations and one query that share a rule; all inputs differ, none is its own output, none is larger than
    `most` cells a side."""
    rule, make = family.draw(rng)
    pairs: list[Pair] = []
    while len(pairs) <= shown:
        grid = make(rng, most)
        output = rule(grid)
        known = any(np.array_equal(grid, pair.input) for pair in pairs)
        if not known and not np.array_equal(grid, output) and max(output.shape) <= most:
            pairs.append(Pair(grid, output))
    return Task(family.name, "families", tuple(pairs[:shown]), (pairs[shown],))


def episodes(names: Sequence[str], split: str, count: int, *, seed: int = 0, most: int = MOST) -> Iterator[Task]:
    """`count` episodes of each family in turn; the same seed gives the same ones, and splits never share a stream."""
    for number in range(count):
        for name in names:
            yield episode(find(name), stream(name, split, number, seed=seed), most=most)


def stream(name: str, split: str, number: int, *, seed: int = 0) -> np.random.Generator:
    """The randomness of one episode."""
    return np.random.default_rng([seed, SPLITS[split], number, *name.encode()])


def find(name: str) -> Family:
    """The family of a name; FamilyError lists those there are."""
    for family in (*FAMILIES, *HELD_OUT):
        if family.name == name:
            return family
    raise FamilyError(f"no family {name!r}; there are {', '.join(each.name for each in (*FAMILIES, *HELD_OUT))}")


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


FAMILIES = (
    *(Family(rule.__name__, True, rule) for rule in (
        recolour, swap, permute, keep, background, border, row_of, column_of, halo, crop,
    )),
    Family("flip_horizontal", False, fixed(lambda g: g[:, ::-1])),
    Family("flip_vertical", False, fixed(lambda g: g[::-1])),
    Family("transpose", False, fixed(lambda g: g.T)),
    Family("gravity", False, fixed(gravity, loose)),
    Family("shift", False, fixed(shift)),
    Family("double", False, fixed(double, small)),
)  # fmt: skip
"""Sixteen, ten with parameters."""
HELD_OUT = (
    Family("half_turn", False, fixed(lambda g: g[::-1, ::-1])),
    Family("anti_transpose", False, fixed(lambda g: g[::-1, ::-1].T)),
    Family("shift_down", False, fixed(lambda g: np.roll(g, 1, axis=0))),
    Family("commonest", False, fixed(commonest, loose)),
)
"""Never trained: what a student makes of rules that it has not met."""
