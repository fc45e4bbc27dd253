"""Families of small puzzles whose rule must be read from three demonstrations: ARC's form, our own generators.

Fixed in advance: `FAMILIES` are what is trained and reported, `HELD_OUT` are never trained. A parametric family draws
its rule anew for every episode (which colour becomes which); the others have one rule. Nothing but the grids says which
family it is. An episode is an `arc.Task`: three demonstrations and one query, sides 2..6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from bridge import family_rules as rules
from bridge.arc import Pair, Task
from bridge.family_rules import Draw

MOST = 6
"""Cells of a side at most, inputs and outputs."""
SHOWN = 3
SPLITS = {"train": 0, "validation": 1, "test": 2}


class FamilyError(ValueError):
    """No family of that name."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of puzzle."""

    name: str
    parametric: bool
    """Whether its rule is drawn anew for every episode."""
    draw: Draw


FAMILIES = (
    *(Family(rule.__name__, True, rule) for rule in (
        rules.recolour, rules.swap, rules.permute, rules.keep, rules.background, rules.border, rules.row_of,
        rules.column_of, rules.halo, rules.crop,
    )),
    Family("flip_horizontal", False, rules.fixed(lambda g: g[:, ::-1])),
    Family("flip_vertical", False, rules.fixed(lambda g: g[::-1])),
    Family("transpose", False, rules.fixed(lambda g: g.T)),
    Family("gravity", False, rules.fixed(rules.gravity, rules.loose)),
    Family("shift", False, rules.fixed(rules.shift)),
    Family("double", False, rules.fixed(rules.double, rules.small)),
)  # fmt: skip
"""Sixteen, ten with parameters."""
HELD_OUT = (
    Family("half_turn", False, rules.fixed(lambda g: g[::-1, ::-1])),
    Family("anti_transpose", False, rules.fixed(lambda g: g[::-1, ::-1].T)),
    Family("shift_down", False, rules.fixed(lambda g: np.roll(g, 1, axis=0))),
    Family("commonest", False, rules.fixed(rules.commonest, rules.loose)),
)
"""Never trained: what a student makes of rules that it has not met."""


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
