"""Rotations between their representations: known quarter turns, round trips, and what is no rotation."""

import itertools

import numpy as np
import pytest

from bridge import rotation

H, Q = np.sqrt(0.5), np.pi / 2
QUARTERS = {
    "x": {
        "quaternion": [H, H, 0, 0],
        "axis_angle": [Q, 0, 0],
        "euler_angles_rpy": [Q, 0, 0],
        "rotation_6d": [1, 0, 0, 0, 0, -1],
        "matrix": [1, 0, 0, 0, 0, -1, 0, 1, 0],
    },
    "y": {
        "quaternion": [H, 0, H, 0],
        "axis_angle": [0, Q, 0],
        "euler_angles_rpy": [0, Q, 0],
        "rotation_6d": [0, 0, 1, 0, 1, 0],
        "matrix": [0, 0, 1, 0, 1, 0, -1, 0, 0],
    },
    "z": {
        "quaternion": [H, 0, 0, H],
        "axis_angle": [0, 0, Q],
        "euler_angles_rpy": [0, 0, Q],
        "rotation_6d": [0, -1, 0, 1, 0, 0],
        "matrix": [0, -1, 0, 1, 0, 0, 0, 0, 1],
    },
}
KINDS = list(QUARTERS["x"])


@pytest.mark.parametrize("axis", QUARTERS)
@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_quarter_turns(axis, source, target):
    """A quarter turn about y is rpy's gimbal lock: it comes back without a warning."""
    given = np.array(QUARTERS[axis][source], float)
    np.testing.assert_allclose(rotation.convert(given, source, target), QUARTERS[axis][target], atol=1e-7)


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("rpy", [0, -1, 0, 0, 0, -1]),  # Rx(90) Rz(90)
        ("ypr", [0, 0, 1, 1, 0, 0]),  # Rz(90) Rx(90)
        ("XYZ", [0, -1, 0, 0, 0, -1]),
        ("ZYX", [0, 0, 1, 1, 0, 0]),
    ],
)
def test_order_of_euler_angles(order, rows):
    angles = np.array([Q, 0, Q])
    np.testing.assert_allclose(rotation.convert(angles, f"euler_angles_{order}", "rotation_6d"), rows, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(rotation.WIDTHS, rotation.WIDTHS)))
def test_round_trip(source, target):
    turns = np.random.default_rng(0).normal(size=(2, 5, 4))
    given = rotation.convert(turns, "quaternion", source)
    there = rotation.convert(given, source, target)
    assert there.shape == (2, 5, rotation.WIDTHS[target])
    np.testing.assert_allclose(rotation.convert(there, target, source), given, atol=1e-9)


def test_six_values_of_a_network_are_made_orthogonal():
    """The first row keeps its direction, the second gives up what it shares with it."""
    matrix = rotation.convert(np.array([2.0, 0, 0, 3, 5, 0]), "rotation_6d", "matrix")
    np.testing.assert_allclose(matrix.reshape(3, 3), np.eye(3), atol=1e-12)


def test_length_and_sign_of_a_quaternion_do_not_matter():
    turned = rotation.convert(np.array([[2, 0, 0, 2], [-H, 0, 0, -H]]), "quaternion", "axis_angle")
    np.testing.assert_allclose(turned, [[0, 0, Q]] * 2, atol=1e-12)


def test_float_type_and_no_rows():
    assert rotation.convert(np.ones((3, 4), np.float32), "quaternion", "rotation_6d").dtype == np.float32
    assert rotation.convert(np.zeros((0, 4)), "quaternion", "euler_angles_rpy").shape == (0, 3)


@pytest.mark.parametrize("kind", rotation.WIDTHS)
def test_identity(kind):
    np.testing.assert_allclose(rotation.convert(rotation.identity(kind), kind, "axis_angle"), np.zeros(3), atol=1e-12)


@pytest.mark.parametrize(("kind", "most"), [("rotation_6d", 1), ("quaternion", 1), ("axis_angle", np.pi)])
def test_bounds(kind, most):
    bounds = rotation.bounds(kind)
    np.testing.assert_array_equal(bounds["max"], [most] * rotation.WIDTHS[kind])
    np.testing.assert_array_equal(bounds["min"], -bounds["max"])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("quaternion", [0, 0, 0, 0], r"row 1\) is no rotation: a quaternion of length 0"),
        ("rotation_6d", [1, 2, 3, 2, 4, 6], "must differ in direction"),
        ("rotation_6d", [0, 0, 0, 1, 0, 0], "not be 0"),
        ("matrix", [1, 0, 0, 0, 1, 0, 0, 0, -1], "determinant of 1"),
        ("euler_angles_rpy", [0, np.nan, 0], "must be finite"),
    ],
)
def test_what_is_no_rotation(kind, values, message):
    rows = np.stack([rotation.identity(kind), np.array(values, float)])
    with pytest.raises(rotation.RotationError, match=message):
        rotation.convert(rows, kind, "rotation_6d" if kind != "rotation_6d" else "quaternion")
