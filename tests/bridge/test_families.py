"""Every family's rule against its definition, what an episode promises, and that splits share nothing."""

import hashlib

import numpy as np
import pytest

from bridge import arc_content, families, family_rules

ALL = (*families.FAMILIES, *families.HELD_OUT)
NAMES = [family.name for family in families.FAMILIES]


def made(name, count=40, split="train"):
    return list(families.episodes([name], split, count))


def pairs(task):
    return [*task.train, *task.test]


def test_sixteen_were_fixed_in_advance():
    assert len(families.FAMILIES) == 16
    assert sum(family.parametric for family in families.FAMILIES) >= 8
    assert len({family.name for family in ALL}) == len(ALL) == 20


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_an_episode_keeps_its_promises(family):
    for task in made(family.name):
        assert (len(task.train), len(task.test)) == (3, 1)
        for pair in pairs(task):
            for grid in (pair.input, pair.output):
                assert grid.dtype == np.int8
                assert min(grid.shape) >= 1
                assert max(grid.shape) <= families.MOST
                assert 0 <= grid.min() <= grid.max() <= 9
            assert not np.array_equal(pair.input, pair.output)
        inputs = {(pair.input.shape, pair.input.tobytes()) for pair in pairs(task)}
        assert len(inputs) == 4, "no query is among its own demonstrations"


@pytest.mark.parametrize("name", ["recolour", "swap", "permute", "keep", "background"])
def test_what_a_colour_becomes_is_shown_before_it_is_asked(name):
    """Cell by cell the rule is a table of colours; the demonstrations hold every line of it that the query needs."""
    for task in made(name, 100):
        shown = {}
        for pair in task.train:
            shown.update(zip(pair.input.reshape(-1).tolist(), pair.output.reshape(-1).tolist(), strict=True))
        (query,) = task.test
        missing = set(query.input.reshape(-1).tolist()) - set(shown)
        assert not missing - {0}, (name, missing)
        assert all(
            shown.get(a, a) == b
            for a, b in zip(query.input.reshape(-1).tolist(), query.output.reshape(-1).tolist(), strict=True)
        )


def test_rules_by_hand():
    grid = np.array([[1, 0, 2], [0, 3, 0]], np.int8)
    rule = lambda name: families.find(name).draw(np.random.default_rng(0))[0](grid).tolist()  # noqa: E731
    assert rule("flip_horizontal") == [[2, 0, 1], [0, 3, 0]]
    assert rule("flip_vertical") == [[0, 3, 0], [1, 0, 2]]
    assert rule("transpose") == [[1, 0], [0, 3], [2, 0]]
    assert rule("gravity") == [[0, 0, 0], [1, 3, 2]]
    assert rule("shift") == [[2, 1, 0], [0, 0, 3]]
    assert rule("double")[0] == [1, 1, 0, 0, 2, 2]
    assert rule("half_turn") == [[0, 3, 0], [2, 0, 1]]
    assert rule("anti_transpose") == [[0, 2], [3, 0], [0, 1]]
    assert rule("commonest") == [[0] * 3] * 2


def test_parametric_rules_by_hand():
    def drawn(name):
        rng = np.random.default_rng(3)
        return families.find(name).draw(rng)[0], family_rules.colours(np.random.default_rng(3), 3)

    halo, (centre, ring, _) = drawn("halo")
    grid = np.zeros((3, 3), np.int8)
    grid[1, 1] = centre
    assert halo(grid).tolist() == [[0, ring, 0], [ring, centre, ring], [0, ring, 0]]
    crop, (wanted, other, _) = drawn("crop")
    grid = np.array([[other, 0, 0], [0, wanted, other], [0, 0, wanted]], np.int8)
    assert crop(grid).tolist() == [[wanted, other], [0, wanted]]
    row, (long, other, _) = drawn("row_of")
    assert row(np.array([[0, long], [other, 0]], np.int8)).tolist() == [[long, long], [other, 0]]
    column, _ = drawn("column_of")
    assert column(np.array([[0, long], [other, 0]], np.int8)).tolist() == [[0, long], [other, long]]


@pytest.mark.parametrize("family", [f for f in families.FAMILIES if f.parametric], ids=lambda f: f.name)
def test_a_parametric_rule_cannot_be_known_without_its_demonstrations(family):
    """The rule of another episode of the family gives another answer in most cases."""
    right = 0
    for number in range(200):
        rule, make = family.draw(families.stream(family.name, "train", number))
        other, _ = family.draw(families.stream(family.name, "train", number + 1000))
        grid = make(np.random.default_rng(number), families.MOST)
        try:
            right += np.array_equal(rule(grid), other(grid))
        except IndexError:  # nothing of the other episode's colour to crop
            continue
    assert right / 200 <= 0.15


def test_the_same_seed_gives_the_same_and_splits_draw_apart():
    def digest(split, seed=0):
        content = [
            p.input.tobytes() + p.output.tobytes()
            for t in families.episodes(NAMES, split, 3, seed=seed)
            for p in pairs(t)
        ]
        return hashlib.sha256(b"".join(content)).hexdigest()

    assert digest("train") == digest("train")
    assert len({digest("train"), digest("validation"), digest("test"), digest("train", seed=1)}) == 4
    train, test = (list(families.episodes(["permute", "crop"], split, 100)) for split in ("train", "test"))
    exact = lambda tasks: {(p.input.shape, p.input.tobytes(), p.output.tobytes()) for t in tasks for p in pairs(t)}  # noqa: E731
    assert not exact(train) & exact(test)
    assert arc_content.content_hash(train[0]) != arc_content.content_hash(test[0])


def test_an_unknown_family_lists_those_there_are():
    with pytest.raises(families.FamilyError, match="recolour, swap"):
        families.find("draw_a_cat")
