"""Extraction from a robot whose rotations are converted: sizes are of the normalised values everywhere."""

import dataclasses

import numpy as np
import pytest
import torch

from bridge import embodiment as embodiments
from bridge import embodiment_command, episodes, store
from bridge.lerobot_spec import Spec
from teacher_torch import extract, robot_inputs, robot_plan, robot_request, standin

SPEC = Spec(
    fps=20,
    videos={"top": (32, 32)},
    state={"turn": 4, "arm": 3},
    action={"turn": 3, "arm": 4},
    rotations={"state.turn": "quaternion", "action.turn": "euler_angles_rpy"},
    relative=("action.turn",),
)
WIDTHS = {"state": 9, "action": 10}
"""More than a random teacher's least room of 8, which the seven physical values of both would fit into."""


@pytest.fixture
def dataset(tmp_path):
    """Two episodes with their metadata, rotations to rotation_6d."""
    rng = np.random.default_rng(0)
    writer = episodes.create(tmp_path / "toy", SPEC)
    for split in ("train", "test"):
        numbers = {
            group: {key: rng.uniform(-1, 1, (4, width)).astype(np.float32) for key, width in keys.items()}
            for group, keys in (("state", SPEC.state), ("action", SPEC.action))
        }
        frames = {"top": rng.integers(0, 256, (4, 32, 32, 3), np.uint8)}
        writer.add(frames=frames, **numbers, labels={}, instruction="turn", extra={"split": split})
    writer.close()
    chosen = ("--rotations", "state.turn=rotation_6d", "action.turn=rotation_6d")
    assert embodiment_command.main([str(tmp_path / "toy"), *chosen]) == 0
    return tmp_path / "toy"


def test_store_and_teacher_have_room_for_converted_rotations(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(standin, "SHIPPED", tmp_path / "nothing")
    options = ("--task", "robot", "--dataset", str(dataset), "--splits", "test", "--draws", "2", "--steps", "1")
    monkeypatch.chdir(tmp_path)
    assert extract.main([*options, "--out", "store", "--device", "cpu"]) == 0
    reader, rows = store.open(tmp_path / "store"), episodes.open(dataset).rows(1)
    body, extraction = reader.embodiment(), reader.manifest.extraction
    assert [extraction["state"], extraction["action"]] == [[["turn", 6], ["arm", 3]], [["turn", 6], ["arm", 4]]]
    state = {key: rows[f"state.{key}"][:1] for key in SPEC.state}
    np.testing.assert_allclose(reader.record("state", 0), embodiments.normalise(body, state), atol=1e-6)
    shown, horizon = reader.record("demonstration", 0)[0], body.transform.horizon
    assert shown.shape == (horizon, WIDTHS["action"]) == reader.record("actions", 0)[0, 0].shape
    np.testing.assert_allclose(shown[4:, :6], [[1, 0, 0, 0, 1, 0]] * (horizon - 4), atol=1e-6)
    back = embodiments.denormalise(body, shown[:4])
    for key in SPEC.action:
        np.testing.assert_allclose(back[key], rows[f"action.{key}"], atol=1e-5)


def test_inputs_are_padded_after_the_converted_values(dataset):
    data = episodes.open(dataset)
    body, words, config = robot_request.untrained(data.embodiment, data)
    assert (config.head.state_dim, config.head.action_dim) == (WIDTHS["state"], WIDTHS["action"])
    head = dataclasses.replace(config.head, state_dim=12)
    preparer = robot_inputs.Preparer(dataclasses.replace(config, head=head), body, words)
    state = np.ones((1, 1, WIDTHS["state"]), np.float32)
    given = preparer.prepare(np.zeros((1, 1, 32, 32, 3), np.uint8), state, ["turn"])
    expected = torch.arange(12) < WIDTHS["state"]
    assert torch.equal(given.state_mask[0, 0], expected)
    assert torch.equal(given.state[0, 0], expected.float())


@pytest.mark.parametrize("group", WIDTHS)
def test_teacher_without_room_for_converted_values(dataset, group):
    """Of state values a store's plan says so, before the inputs are prepared."""
    data = episodes.open(dataset)
    body, words, config = robot_request.untrained(data.embodiment, data)
    small = dataclasses.replace(config, head=dataclasses.replace(config.head, **{f"{group}_dim": 8}))
    with pytest.raises(robot_inputs.RobotInputError, match=f"{WIDTHS[group]} {group} values, more than the head's 8"):
        robot_inputs.Preparer(small, body, words)
    if group == "state":
        with pytest.raises(robot_plan.PlanError, match="has 9 state values, the teacher has room for 8"):
            robot_plan.check_body(small, body)
