"""Pictures are PNGs, the same for the same input, and the colours are the teacher's."""

import dataclasses

import numpy as np
import pytest

from eval import pictures
from eval.layout import Layout

RNG = np.random.default_rng(0)


def example():
    tokens, attention = RNG.normal(size=(16, 5)), np.full(16, 1 / 16)
    return pictures.Example("task", np.zeros((8, 8, 3), np.uint8), tokens, tokens + 0.1, attention, attention)


CASES = {
    "token_maps": lambda: pictures.token_maps([EXAMPLE], Layout(grid=4)),
    "energy": lambda: pictures.energy(np.linspace(0, 0.5, 30), np.linspace(0, 0.6, 30)),
    "steps": lambda: pictures.steps(np.array([0.3, 0.2]), np.array([0.25, 0.15]), np.array([0.35, 0.25])),
    "channels": lambda: pictures.channels({"student": np.linspace(-3, 1, 9)}, 0.95),
    "located": lambda: pictures.located([LOCATED], ("top", "side")),
    "latency": lambda: pictures.latency({"student": np.array([0.01, 0.02]), "teacher": np.array([0.1, 0.2])}),
}
EXAMPLE = example()
LOCATED = pictures.Located("1 pixel", np.zeros((2, 8, 8, 3), np.uint8), *np.full((2, 2, 3, 2), 0.5))


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_deterministic_pngs(name):
    first, second = CASES[name](), CASES[name]()
    assert first.startswith(b"\x89PNG")
    assert first == second


def test_what_is_shown_is_spread_over_the_errors():
    assert pictures.spread(np.arange(101.0)[::-1]).tolist() == [95, 65, 35, 5]


def test_an_object_is_drawn_only_where_it_is_in_sight():
    hidden = dataclasses.replace(LOCATED, truth=np.full((2, 3, 2), 1.5))
    lost = dataclasses.replace(hidden, told=np.zeros((2, 3, 2)))
    names = ("top", "side")
    assert pictures.located([hidden], names) == pictures.located([lost], names) != pictures.located([LOCATED], names)


def test_colours_are_fitted_on_the_teacher_alone():
    teacher = RNG.normal(size=(50, 6)) * np.array([9, 5, 3, 1, 1, 1])
    alone = pictures.colours(teacher, [teacher])[0]
    beside = pictures.colours(teacher, [teacher, 100 * RNG.normal(size=(50, 6))])[0]
    assert alone.shape == (50, 3)
    assert np.array_equal(alone, beside)
    assert alone.min() == 0
    assert alone.max() == 1


def test_first_colour_follows_the_widest_direction():
    teacher = RNG.normal(size=(200, 4)) * np.array([1, 1, 8, 1])
    red = pictures.colours(teacher, [teacher])[0][:, 0]
    assert abs(np.corrcoef(red, teacher[:, 2])[0, 1]) > 0.95
