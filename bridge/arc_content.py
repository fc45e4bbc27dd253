"""What makes two ARC tasks the same task: symmetries of a pair, content hashes, overlaps found by content.

A split keeps tasks that overlap on one side.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bridge.arc import Pair, Task


def dihedral(grid: np.ndarray, element: int) -> np.ndarray:
    """The grid [h, w] under one of the square's eight symmetries 0..7: quarter turns, from 4 on of its transpose."""
    if not 0 <= element < 8:
        raise ValueError(f"the square has symmetries 0..7, got {element}")
    return np.rot90(grid.T if element >= 4 else grid, element % 4)


def content_hash(task: Task) -> str:
    """Digest of the task's exact pairs, whatever its id, the order of its pairs or which of them it asks about."""
    pairs = sorted(_exact(grids) for grids in map(_grids, _pairs(task)))
    return hashlib.sha256(b"".join(pairs)).hexdigest()


def overlaps(first: Iterable[Task], second: Iterable[Task]) -> list[tuple[str, str]]:
    """Sorted (id in first, id in second) of tasks with a pair in common, equal up to one symmetry and one recolouring.

    That is the right notion of a leak for whoever trains with `arc.augment`: it would make the other's pair exactly.
    """
    tables = [_by_invariant(first), _by_invariant(second)]
    found = set()
    for key in tables[0].keys() & tables[1].keys():
        ids: list[dict[bytes, set[str]]] = [collections.defaultdict(set), collections.defaultdict(set)]
        for table, into in zip(tables, ids, strict=True):
            for task_id, grids in table[key]:
                into[_canonical(grids)].add(task_id)
        found |= {(a, b) for form in ids[0].keys() & ids[1].keys() for a in ids[0][form] for b in ids[1][form]}
    return sorted(found)


def held_out(tasks: Sequence[Task], size: int, *, seed: int) -> set[str]:
    """At most `size` ids, the first in the order of sha256("seed:id"); tasks that share a pair are taken together."""
    families = {task.id: {task.id} for task in tasks}
    for a, b in overlaps(tasks, tasks):
        joined = families[a] | families[b]
        families |= dict.fromkeys(joined, joined)
    chosen: set[str] = set()
    for task_id in sorted(families, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()):
        if len(chosen | families[task_id]) <= size:
            chosen |= families[task_id]
    return chosen


def _pairs(task: Task) -> tuple[Pair, ...]:
    return task.train + task.test


def _grids(pair: Pair) -> tuple[np.ndarray, ...]:
    return (pair.input,) if pair.output is None else (pair.input, pair.output)


def _exact(grids: tuple[np.ndarray, ...]) -> bytes:
    return hashlib.sha256(b"".join(bytes(g.shape) + g.tobytes() for g in grids)).digest()


def _by_invariant(tasks: Iterable[Task]) -> dict[tuple, list[tuple[str, tuple[np.ndarray, ...]]]]:
    """Complete pairs keyed by what no symmetry or recolouring changes, so that few canonical forms are needed."""
    table = collections.defaultdict(list)
    for task in tasks:
        for grids in map(_grids, _pairs(task)):
            if len(grids) == 2:
                sides = tuple(tuple(sorted(g.shape)) for g in grids)
                counts = np.stack([np.bincount(g.ravel(), minlength=10) for g in grids], axis=1)
                table[sides, tuple(sorted(map(tuple, counts.tolist())))].append((task.id, grids))
    return table


def _canonical(grids: tuple[np.ndarray, ...]) -> bytes:
    """The least of the pair's eight images, each with colours renamed in the order of their first appearance."""
    return min(_renamed([dihedral(g, k) for g in grids]) for k in range(8))


def _renamed(grids: list[np.ndarray]) -> bytes:
    flat = b"".join(g.astype(np.uint8).tobytes() for g in grids)
    names = bytearray(10)
    for name, colour in enumerate(dict.fromkeys(flat)):
        names[colour] = name
    return b"".join(bytes(g.shape) for g in grids) + flat.translate(bytes(names).ljust(256))
