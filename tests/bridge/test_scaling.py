"""Embodiments whose rotations are converted: fixed bounds, relative ones as they are, files, and clear errors."""

import dataclasses
import json

import numpy as np
import pytest

from bridge import embodiment
from bridge import transform as transforms
from bridge.embodiment import EmbodimentError

RNG = np.random.default_rng(0)
H, Q = np.sqrt(0.5, dtype=np.float32), np.float32(np.pi / 2)
HAND = RNG.normal(2, 3, (50, 2)).astype(np.float32)


def turns(width: int) -> np.ndarray:
    """Angles below a quarter turn, or quaternions."""
    rows = RNG.uniform(-1, 1, (50, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def robot(source, target, *, mode="min_max", absolute=True, width=None) -> embodiment.Embodiment:
    """State and action: a rotation, and a hand after it."""
    keys = [f"{group}.{key}" for group in embodiment.GROUPS for key in ("turn", "hand")]
    modes = dict.fromkeys(keys, "min_max") | {"state.turn": mode, "action.turn": mode}
    rotations = {} if target is None else {"state.turn": target, "action.turn": target}
    transform = embodiment.Transform(("front",), 0.95, 224, 1, modes, 31, 16, "plain", rotations)
    rows = {"turn": turns(width or (4 if source == "quaternion" else 3)), "hand": HAND}
    details = {name: {"absolute": absolute, "rotation_type": source} for name in ("state.turn", "action.turn")}
    return embodiment.from_data("robot", state=rows, action=rows, video={}, transform=transform, details=details)


def given(turn, rows: int = 1) -> dict[str, np.ndarray]:
    return {"turn": np.array([turn] * rows, np.float32), "hand": HAND[:rows]}


def test_absolute_rotations_have_fixed_bounds():
    """A quarter turn about z, whatever turns the statistics have seen."""
    body = robot("quaternion", "rotation_6d")
    there = embodiment.normalise(body, given([H, 0, 0, H]))
    np.testing.assert_allclose(there[0, :6], [0, -1, 0, 1, 0, 0], atol=1e-6)
    assert there.dtype == np.float32
    assert there[0, 6:].tolist() == embodiment.normalise(robot("quaternion", None), given([H, 0, 0, H]))[0, 4:].tolist()
    there = embodiment.normalise(robot("quaternion", "axis_angle"), given([H, 0, 0, H]))
    np.testing.assert_allclose(there[0, :3], [0, 0, 0.5], atol=1e-6)


def test_relative_rotations_are_not_normalised():
    body = robot("euler_angles_rpy", "axis_angle", mode="none", absolute=False)
    np.testing.assert_allclose(embodiment.normalise(body, given([Q, 0, 0]))[0, :3], [Q, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("source", "target", "absolute"),
    [
        ("quaternion", "rotation_6d", True),
        ("euler_angles_ypr", "rotation_6d", True),
        ("euler_angles_rpy", "axis_angle", False),
        ("axis_angle", "quaternion", True),
    ],
)
def test_denormalised_actions_are_in_the_robots_own_representation(source, target, absolute):
    body = robot(source, target, mode="min_max" if absolute else "none", absolute=absolute)
    own = turns(4 if source == "quaternion" else 3)
    own = np.where(own[:, :1] < 0, -own, own) if source == "quaternion" else own
    rows = np.concatenate([own, HAND], axis=-1)
    there = embodiment.normalise_rows(body, rows, group="action")
    assert there.shape[-1] == sum(body.widths("action").values())
    np.testing.assert_allclose(embodiment.denormalise_rows(body, there), rows, atol=1e-5)


def test_widths_are_of_normalised_values_and_dimensions_of_physical_ones():
    body = robot("quaternion", "rotation_6d")
    assert body.dimensions("action") == {"turn": 4, "hand": 2}
    assert body.widths("action") == {"turn": 6, "hand": 2}
    with pytest.raises(EmbodimentError, match="needs 8 values"):
        embodiment.denormalise(body, np.zeros((1, 6)))


def test_zeros_beyond_the_end_of_relative_actions_are_no_rotation():
    body = robot("quaternion", "rotation_6d", mode="none", absolute=False)
    np.testing.assert_allclose(embodiment.normalise(body, given([0] * 4))[0, :6], [1, 0, 0, 0, 1, 0], atol=1e-6)
    with pytest.raises(EmbodimentError, match=r"state\.turn is read as quaternion: \[0\.0, .* is no rotation"):
        embodiment.normalise(robot("quaternion", "rotation_6d"), given([0] * 4))


def test_a_rotation_that_is_as_wanted_keeps_its_statistics():
    """GR00T converts nothing then, and normalises like any other key."""
    same, plain = robot("axis_angle", "axis_angle", mode="mean_std"), robot("axis_angle", None, mode="mean_std")
    same = dataclasses.replace(same, statistics=plain.statistics)
    values = given([0.1, 0.2, 0.3])
    np.testing.assert_array_equal(embodiment.normalise(same, values), embodiment.normalise(plain, values))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"source": None}, r"state\.turn is to become rotation_6d, .*None: set it .*euler_angles_rpy.*modality\.json"),
        ({"source": "quat"}, "rotation_type is 'quat'"),
        ({"source": "quaternion", "width": 3}, r"state\.turn has 3 values, its rotation_type quaternion has 4"),
        ({"source": "quaternion", "target": "quat"}, r"rotations must be one of quaternion, .*'quat'"),
        ({"source": "quaternion", "mode": "mean_std"}, r"by min_max or none: --normalisation state\.turn=none"),
        ({"source": "quaternion", "absolute": False}, r"relative.* by none: --normalisation state\.turn=none"),
        ({"source": "quaternion", "target": "matrix"}, r"as matrix can only .* by none"),
    ],
)
def test_what_cannot_be_converted(body, message):
    with pytest.raises(EmbodimentError, match=message):
        robot(**{"target": "rotation_6d", **body})


def test_rotations_name_keys_of_the_robot():
    body = robot("quaternion", "rotation_6d")
    transform = dataclasses.replace(body.transform, rotations={"state.leg": "rotation_6d"})
    with pytest.raises(EmbodimentError, match=r"rotations name state\.leg, the keys are state\.turn, state\.hand"):
        dataclasses.replace(body, transform=transform)


def test_rotations_are_saved_with_the_transform(tmp_path):
    body = robot("quaternion", "rotation_6d")
    embodiment.save(tmp_path / "metadata.json", body)
    assert embodiment.load(tmp_path).transform == body.transform
    assert "rotations={'state.turn': 'rotation_6d'" in repr(body.transform)


def test_files_without_rotations_are_as_before_them(tmp_path):
    """Digests of stores and of policies are made of the file and of the transform's repr."""
    body = robot("quaternion", None)
    embodiment.save(tmp_path / "metadata.json", body)
    fields = json.loads((tmp_path / "metadata.json").read_text())["robot"]["transform"]
    assert list(fields) == [
        *("video_keys", "crop", "resize", "max_tiles"),
        *("normalisation", "projector_id", "horizon", "instruction_style"),
    ]
    assert embodiment.load(tmp_path).transform == body.transform
    assert repr(body.transform).startswith("Transform(video_keys=('front',), crop=0.95, ")
    assert repr(body.transform).endswith(", projector_id=31, horizon=16, instruction_style='plain')")


def test_official_droid():
    """Its rotations are not normalised, nor is the change of position; the gripper is open or closed."""
    keys = ["state.eef_position", "state.eef_rotation", "action.eef_position_delta", "action.eef_rotation_delta"]
    droid = transforms.official("oxe_droid", ("wrist_image",), [*keys, "action.gripper_position"])
    assert list(droid.normalisation.values()) == ["min_max", "none", "none", "none", "binary"]
    assert droid.rotations == {"state.eef_rotation": "rotation_6d", "action.eef_rotation_delta": "axis_angle"}
    assert transforms.official("oxe_droid", (), ["state.arm"]).rotations == {}
    assert transforms.official("new_embodiment", (), keys).rotations == {}
