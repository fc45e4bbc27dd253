"""Rotations from one representation to another through a 3 x 3 matrix, in pytorch3d's conventions, as GR00T does."""

import itertools
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

EULER = {
    "euler_angles_" + "".join(order): "".join(order).translate(str.maketrans("rpy", "XYZ"))
    for axes in ("rpy", "XYZ")
    for order in itertools.permutations(axes)
}
"""Axes about which the three angles turn, each as the one before has turned it: rpy and XYZ are Rx(a) Ry(b) Rz(c)."""
WIDTHS = {"quaternion": 4, "axis_angle": 3, "rotation_6d": 6, "matrix": 9} | dict.fromkeys(EULER, 3)
"""Values of every representation. Angles in radians; quaternion: real part first; axis_angle: the axis times the angle;
rotation_6d: the first two rows of the matrix; matrix: its three rows."""
SMALLEST = 1e-6  # length of a quaternion or a row below which its direction means nothing


class RotationError(ValueError):
    """Values that are no rotation."""


def names() -> str:
    """The representations in words, as GR00T spells them (its files have rpy where pytorch3d has XYZ)."""
    return ", ".join(name for name in WIDTHS if name == name.lower())


def bounds(representation: str) -> Mapping[str, np.ndarray] | None:
    """{"min", "max": float64 [d]}, by which GR00T normalises absolute rotations; None for a matrix, which has none."""
    if representation == "matrix":
        return None
    most = 1.0 if representation in ("quaternion", "rotation_6d") else np.pi
    high = np.full(WIDTHS[representation], most)
    return {"min": -high, "max": high}


def identity(representation: str) -> np.ndarray:
    """No rotation: float64 [d]."""
    return convert(np.zeros(3), "axis_angle", representation)


def convert(x: np.ndarray, source: str, target: str) -> np.ndarray:
    """x [..., d of source] as [..., d of target], in x's float type; the arithmetic is done in float64.

    Angles come out as axis_angle in [0, pi], Euler angles in (-pi, pi] with the middle one in [-pi/2, pi/2] (the third
    is 0 where the middle one leaves it open), quaternions of length 1 with a real part >= 0. RotationError for values
    that are no rotation: a zero quaternion, rows that are zero or parallel, a matrix that mirrors, NaN.
    """
    rows = np.asarray(x, np.float64).reshape(-1, WIDTHS[source])
    turned = _from_matrix(_to_matrix(rows, source), target)
    kind = x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64
    return turned.reshape(*x.shape[:-1], WIDTHS[target]).astype(kind)


def _to_matrix(rows: np.ndarray, source: str) -> np.ndarray:
    """[n, d] to [n, 3, 3]."""
    _refuse(rows, np.isfinite(rows).all(-1), "its values must be finite")
    if source == "rotation_6d":
        return _orthogonal(rows)
    if source == "matrix":
        matrix = rows.reshape(-1, 3, 3)
        _refuse(rows, np.linalg.det(matrix) > SMALLEST, "a matrix that turns needs a determinant of 1")
        return matrix
    if source == "quaternion":
        _refuse(rows, np.linalg.norm(rows, axis=-1) > SMALLEST, "a quaternion of length 0 points nowhere")
        return Rotation.from_quat(rows, scalar_first=True).as_matrix()
    if source == "axis_angle":
        return Rotation.from_rotvec(rows).as_matrix()
    return Rotation.from_euler(EULER[source], rows).as_matrix()


def _from_matrix(matrix: np.ndarray, target: str) -> np.ndarray:
    """[n, 3, 3] to [n, d]."""
    if target == "rotation_6d":
        return matrix[:, :2].reshape(-1, 6)
    if target == "matrix":
        return matrix.reshape(-1, 9)
    turn = Rotation.from_matrix(matrix)
    if target == "quaternion":
        return turn.as_quat(canonical=True, scalar_first=True)
    if target == "axis_angle":
        return turn.as_rotvec()
    return turn.as_euler(EULER[target], suppress_warnings=True)


def _orthogonal(rows: np.ndarray) -> np.ndarray:
    """Gram-Schmidt of two rows [n, 6] (Zhou et al., arXiv 1812.07035): the nearest turn to a network's six values."""
    first, second = rows[:, :3], rows[:, 3:]
    x = _unit(rows, first)
    y = _unit(rows, second - (x * second).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _unit(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    _refuse(rows, length[:, 0] > SMALLEST, "the two rows of a rotation_6d must differ in direction and not be 0")
    return vectors / length


def _refuse(rows: np.ndarray, good: np.ndarray, why: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise RotationError(f"{rows[row].tolist()} (row {row}) is no rotation: {why}")
