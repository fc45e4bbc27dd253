"""Units inside a program are those of bridge.embodiment, mode by mode."""

import jax
import numpy as np
import pytest

from bridge import embodiment, normalisation, transform
from eval import units


def body(mode, **changes):
    rng = np.random.default_rng(0)
    state, action = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    state[:, 1] = action[:, 1] = 0.25  # a dimension that never moved
    rest = {"state.rest": "none", "action.rest": "none"}
    modes = {"state.part": mode, "action.part": mode} | rest
    made = transform.Transform(("front",), None, None, 1, modes, 0, 4, "plain", **changes)
    extra = rng.normal(size=(50, 2))
    return embodiment.from_data(
        "arm",
        state={"part": state, "rest": extra},
        action={"rest": extra, "part": action},
        video={},
        transform=made,
        details={"state.part": {"rotation_type": "axis_angle"}},
    )


@pytest.mark.parametrize("mode", normalisation.MODES)
def test_both_ways_as_in_numpy(mode):
    robot, rng = body(mode), np.random.default_rng(1)
    state = rng.normal(size=(4, 1, 5)).astype(np.float32)
    got = jax.jit(lambda x: units.normalise(robot, x))(state)
    assert np.asarray(got) == pytest.approx(embodiment.normalise_rows(robot, state), abs=1e-6)
    actions = rng.normal(size=(4, 8, sum(robot.widths("action").values()))).astype(np.float32)
    got = jax.jit(lambda x: units.denormalise(robot, x))(actions)
    assert np.asarray(got) == pytest.approx(embodiment.denormalise_rows(robot, actions), abs=1e-6)


def test_a_rotation_that_is_converted_is_refused_by_name():
    with pytest.raises(units.UnitsError, match=r"state\.part"):
        units.check(body("none", rotations={"state.part": "rotation_6d"}))
    units.check(body("none"))
