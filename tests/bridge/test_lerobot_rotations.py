"""Robot datasets with rotations: rows that are no rotation, and metadata of another representation."""

import dataclasses
import json

import numpy as np
import pytest

from bridge import embodiment_command, episodes
from bridge.lerobot_files import DatasetError


@pytest.fixture
def record(spec, make_episode, tmp_path):
    """(a change of every row's turn) -> folder of a dataset whose state is a quaternion, with its metadata."""

    def recording(change):
        turned = dataclasses.replace(spec, state={"turn": 4}, rotations={"state.turn": "quaternion"})
        writer = episodes.create(tmp_path / "dataset", turned)
        for seed in range(2):
            given = make_episode(seed, 5)
            turn = np.tile(np.array([1, 0, 0, 0], np.float32), (5, 1))
            given["state"] = {"turn": change(turn) if seed else turn}
            writer.add(**given, extra={"split": ("train", "test")[seed]})
        writer.close()
        assert embodiment_command.main([str(tmp_path / "dataset"), "--rotations", "state.turn=rotation_6d"]) == 0
        return tmp_path / "dataset"

    return recording


def test_a_row_that_is_no_rotation(record):
    def change(turn):
        turn[3] = 0
        return turn

    with pytest.raises(DatasetError, match=r"\(episode 1\): state\.turn is read as quaternion: .*\(row 3\) is no rot"):
        episodes.open(record(change)).check(deep=False)


def test_metadata_of_another_representation(record):
    path = record(lambda turn: turn) / "meta/modality.json"
    episodes.open(path.parents[1]).check(deep=False)
    entries = json.loads(path.read_text())
    entries["state"]["turn"]["rotation_type"] = "axis_angle"
    path.write_text(json.dumps(entries))
    with pytest.raises(
        DatasetError, match=r"state\.turn is converted from quaternion, .*modality\.json says axis_angle"
    ):
        _ = episodes.open(path.parents[1]).embodiment
