"""Pictures are PNGs, the same for the same input, and the colours are the teacher's."""

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
    "latency": lambda: pictures.latency({"student": np.array([0.01, 0.02]), "teacher": np.array([0.1, 0.2])}),
}
EXAMPLE = example()


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_deterministic_pngs(name):
    first, second = CASES[name](), CASES[name]()
    assert first.startswith(b"\x89PNG")
    assert first == second


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
