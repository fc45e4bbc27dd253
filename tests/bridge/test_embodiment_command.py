"""The command that writes GR00T's metadata for a dataset: statistics, transform, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bridge import embodiment, embodiment_command, episodes
from bridge import transform as transforms


def test_defaults(robot, capsys, make_episode):
    assert embodiment_command.main([str(robot)]) == 0
    assert "action.delta[2]" in capsys.readouterr().out
    body = embodiment.load(robot / "meta/metadata.json")
    assert body.tag == "toybot"
    train = make_episode(0, 6)["action"]["delta"]
    np.testing.assert_array_equal(
        body.statistics["action"]["delta"]["q99"], np.quantile(train, 0.99, axis=0).astype("f4")
    )
    assert body.transform == episodes.open(robot).measure().transform
    dataset = episodes.open(robot)
    assert dataset.embodiment.transform == body.transform
    dataset.check(deep=False)


def test_every_option(robot, tmp_path):
    out = tmp_path / "new" / "metadata.json"
    options = "--tag metaworld --video-keys side --crop none --resize 128 --max-tiles 1 --horizon 8 --style plain"
    more = ["--normalisation", "action.gripper=binary", "state.hand=q99", "--projector-id", "7", "--out", str(out)]
    assert embodiment_command.main([str(robot), *options.split(), *more]) == 0
    transform = embodiment.load(out, "metaworld").transform
    assert transform == embodiment.Transform(
        ("side",),
        None,
        128,
        1,
        {
            "state.hand": "q99",
            "state.gripper": "min_max",
            "action.delta": "min_max",
            "action.gripper": "binary",
        },
        7,
        8,
        "plain",
    )
    assert not (robot / "meta/metadata.json").exists()


def test_groots_own_fields(robot):
    embodiment_command.main([str(robot), "--tag", "new_embodiment"])
    entry = json.loads((robot / "meta/metadata.json").read_text())["new_embodiment"]
    assert entry["modalities"]["video"]["top"] == {"resolution": [48, 32], "channels": 3, "fps": 20.0}
    assert entry["modalities"]["action"]["delta"] == {
        "absolute": False,
        "rotation_type": None,
        "shape": [3],
        "continuous": True,
    }
    assert set(entry["statistics"]["state"]["hand"]) == {"max", "min", "mean", "std", "q01", "q99"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--normalisation", "action.leg=q99"], "--normalisation action.leg=q99: the keys are state.hand"),
        (["--normalisation", "action.delta=loud"], "must be one of min_max"),
        (["--video-keys", "front"], "--video-keys front: the cameras are top, side"),
        (["--crop", "1.5"], "crop must be in"),
        (["--horizon", "0"], "at least 1"),
    ],
)
def test_what_it_refuses(robot, capsys, options, message):
    assert embodiment_command.main([str(robot), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (robot / "meta/metadata.json").exists()


def declare(robot, key: str, kind: str) -> None:
    """Give a key of the dataset's modality.json a rotation_type."""
    path = robot / "meta/modality.json"
    entries = json.loads(path.read_text())
    group, name = key.split(".")
    entries[group][name]["rotation_type"] = kind
    path.write_text(json.dumps(entries))


def test_rotations(robot, capsys):
    """An absolute one by its bounds, a relative one as it is; the dataset's rows go there and back."""
    for key in ("state.hand", "action.delta"):
        declare(robot, key, "euler_angles_rpy")
    assert (
        embodiment_command.main([str(robot), "--rotations", "state.hand=rotation_6d", "action.delta=axis_angle"]) == 0
    )
    assert "rotation_6d, min_max" in capsys.readouterr().out
    body = embodiment.load(robot / "meta/metadata.json")
    assert body.transform.rotations == {"state.hand": "rotation_6d", "action.delta": "axis_angle"}
    assert [body.mode("state", "hand"), body.mode("action", "delta")] == ["min_max", "none"]
    dataset = episodes.open(robot)
    dataset.check(deep=False)
    rows = np.concatenate([dataset.rows(0)[f"action.{key}"] for key in ("delta", "gripper")], axis=-1)
    there = embodiment.normalise_rows(dataset.embodiment, rows, group="action")
    np.testing.assert_allclose(embodiment.denormalise_rows(dataset.embodiment, there), rows, atol=1e-5)


def test_official_rotations_can_be_left_out(robot, monkeypatch):
    declare(robot, "state.hand", "axis_angle")
    monkeypatch.setitem(transforms.ROTATIONS, "toybot", {"state.hand": "rotation_6d"})
    for options, expected in (([], {"state.hand": "rotation_6d"}), (["--rotations", "state.hand=none"], {})):
        assert embodiment_command.main([str(robot), *options]) == 0
        assert embodiment.load(robot / "meta/metadata.json").transform.rotations == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rotations", "state.leg=rotation_6d"], "--rotations state.leg=rotation_6d: the keys are state.hand"),
        (["--rotations", "state.hand=quat"], "rotations must be one of quaternion, axis_angle, rotation_6d"),
        (
            ["--rotations", "action.delta=rotation_6d"],
            "action.delta is to become rotation_6d, but its rotation_type is",
        ),
        (["--rotations", "state.hand=axis_angle"], "state.hand has 3 values, its rotation_type quaternion has 4"),
        (["--rotations", "state.hand="], "rotations must be one of"),
    ],
)
def test_rotations_it_refuses(robot, capsys, options, message):
    declare(robot, "state.hand", "quaternion")
    assert embodiment_command.main([str(robot), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (robot / "meta/metadata.json").exists()


def test_no_dataset(tmp_path, capsys):
    assert embodiment_command.main([str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("module", ["bridge.embodiment", "bridge.episodes"])
def test_as_modules(tmp_path, module):
    """Bad input is one line and exit code 2, though the command runs as __main__."""
    done = subprocess.run([sys.executable, "-m", module, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
