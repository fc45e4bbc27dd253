"""RE-ARC's generators, where they are installed; elsewhere a pretended package of the same layout."""

import sys

import numpy as np
import pytest

from bridge import rearc

GENERATORS = """
def generate_aa(rng, low, high):
    grid = tuple(tuple(rng.randrange(1, 4) for _ in range(2)) for _ in range(2))
    wrong = rng.random() < 0.3
    return {"input": grid, "output": ((9,),) if wrong else grid[::-1]}

def generate_bb(rng, low, high):
    return {"input": ((1,),), "output": ((2,),)}
"""
VERIFIERS = """
def verify_aa(grid):
    return grid[::-1]

def verify_bb(grid):
    return ((2,),)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Its layout, with two rules; importing the package itself would fail."""
    folder = tmp_path / "reasoning_gym" / "arc" / "rearc_utils"
    folder.mkdir(parents=True)
    (tmp_path / "reasoning_gym" / "__init__.py").write_text("raise RuntimeError('never imported')")
    (folder / "__init__.py").write_text("")
    (folder / "generators.py").write_text(GENERATORS)
    (folder / "verifiers.py").write_text(VERIFIERS)
    monkeypatch.syspath_prepend(tmp_path)
    forget(monkeypatch)
    yield
    forget(monkeypatch)


def forget(monkeypatch):
    rearc._modules.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("reasoning_gym", "rearc_utils")]:
        monkeypatch.delitem(sys.modules, name)


def test_instances_are_verified_different_and_seeded(package):
    assert rearc.available()
    one, again, other = rearc.task("aa", 0), rearc.task("aa", 0), rearc.task("aa", 1)
    pairs = (*one.train, *one.test)
    assert len(pairs) == 4
    assert all(np.array_equal(pair.input[::-1], pair.output) for pair in pairs)
    assert len({pair.input.tobytes() for pair in pairs}) == 4
    same = [np.array_equal(a.input, b.input) for a, b in zip(pairs, (*again.train, *again.test), strict=True)]
    assert all(same)
    assert not np.array_equal(pairs[0].input, other.train[0].input)


def test_what_cannot_be_had_says_why(package, monkeypatch):
    with pytest.raises(rearc.ReArcError, match="fewer than 4"):
        rearc.task("bb", 0)
    with pytest.raises(rearc.ReArcError, match="no task cc"):
        rearc.task("cc", 0)
    monkeypatch.setattr(rearc.importlib.util, "find_spec", lambda name: None)
    rearc._modules.cache_clear()
    assert not rearc.available()
    with pytest.raises(rearc.ReArcError, match="--no-deps"):
        rearc.task("aa", 0)
