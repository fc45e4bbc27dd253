"""Three sizes of the stand-in's student: what quality against size is drawn over."""

import jax
import numpy as np
import pytest
from flax import nnx

from student_jax import config, presets, sizes
from student_jax.student import Student

TARGET = config.Target(width=128, grid=8)
ROBOT = config.Robot(sizes.ActionSpace(16, 4, 4), frames=2, objects=3)


def values(preset):
    settings = presets.make(preset, TARGET, task="robot", robot=ROBOT)
    student = nnx.eval_shape(lambda: Student(settings, rngs=nnx.Rngs(0)).folded())
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(student)))


def test_each_size_is_about_three_times_the_one_before():
    small, middle, large = (values(name) for name in ("standin_small", "standin", "standin_large"))
    assert middle == 872_063
    assert 2.5 < middle / small < 3.5
    assert 2.5 < large / middle < 3.5


@pytest.mark.parametrize("preset", ["standin_small", "standin_large"])
def test_without_a_robot_they_point_at_standin(preset):
    with pytest.raises(ValueError, match="use standin"):
        presets.make(preset, TARGET)
