"""Robot datasets: what is written is read back the same, in LeRobot's and GR00T's own terms, from v2.1 and v3.0."""

import json

import numpy as np
import pytest

from bridge import episodes
from bridge.lerobot_files import DatasetError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_numbers_read_back_exactly(robot, make_episode):
    dataset = episodes.open(robot)
    for index, length in enumerate((6, 9, 7)):
        given, rows = make_episode(index, length), dataset.rows(index)
        for group in ("state", "action"):
            for key, values in given[group].items():
                np.testing.assert_array_equal(rows[f"{group}.{key}"], values)
                assert rows[f"{group}.{key}"].dtype == np.float32
        np.testing.assert_array_equal(rows["label.objects"], given["labels"]["objects"])
        assert "observation.state" not in rows
        np.testing.assert_allclose(rows["timestamp"], np.arange(length) / 20, atol=1e-6)
        assert rows["next.done"].tolist() == [False] * (length - 1) + [True]
    assert dataset.rows(1)["index"].tolist() == list(range(6, 15))


def test_episodes_say_what_they_are(robot):
    dataset = episodes.open(robot)
    assert [(e.index, e.length, e.instruction, e.split) for e in dataset.episodes] == [
        (0, 6, "push the button", "train"),
        (1, 9, "open the drawer", "validation"),
        (2, 7, "push the button", "test"),
    ]
    assert dataset.episodes[2].extra == {"task": "toy", "seed": 2}
    assert dataset.fps == 20


def test_frames_in_any_order(robot, make_episode):
    dataset = episodes.open(robot)
    given = make_episode(1, 9)["frames"]["top"]
    everything = dataset.frames(1, "top")
    assert everything.shape == given.shape
    assert everything.dtype == np.uint8
    assert psnr(everything, given) > 38
    positions = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(dataset.frames(1, "top", positions), everything[positions])


@pytest.mark.parametrize("request_", [("top", [9]), ("top", [-1]), ("front", [0])])
def test_frames_that_are_not_there(robot, request_):
    key, positions = request_
    with pytest.raises(DatasetError, match=r"rows 0\.\.8|no video 'front'; it has \['side', 'top'\]"):
        episodes.open(robot).frames(1, key, np.array(positions))


def test_metadata_is_lerobots_and_groots(robot):
    info = json.loads((robot / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["total_videos"]) == (3, 22, 2, 6)
    assert info["data_path"].format(episode_chunk=0, episode_index=2) == "data/chunk-000/episode_000002.parquet"
    assert info["features"]["observation.state"]["names"] == ["hand_0", "hand_1", "hand_2", "gripper"]
    video = info["features"]["observation.images.top"]
    assert video["shape"][video["names"].index("height")] == 32
    assert video["shape"][video["names"].index("channel")] == 3
    assert video["video_info"]["video.fps"] == video["info"]["video.fps"] == 20
    modality = json.loads((robot / "meta/modality.json").read_text())
    assert modality["state"]["gripper"] == {
        "start": 3, "end": 4, "original_key": "observation.state", "absolute": True
    }  # fmt: skip
    assert modality["action"]["delta"]["absolute"] is False
    assert modality["video"]["side"] == {"original_key": "observation.images.side"}
    assert modality["annotation"] == {"human.action.task_description": {}}
    assert lines(robot / "meta/tasks.jsonl")[1] == {"task_index": 1, "task": "open the drawer"}
    assert lines(robot / "meta/episodes.jsonl")[1]["tasks"] == ["open the drawer"]


def test_statistics_files(robot, make_episode):
    statistics = json.loads((robot / "meta/stats.json").read_text())
    rows = np.concatenate([make_episode(i, n)["action"]["delta"] for i, n in enumerate((6, 9, 7))])
    assert set(statistics["action"]) == {"min", "max", "mean", "std", "q01", "q99"}
    np.testing.assert_allclose(statistics["action"]["q01"][:3], np.quantile(rows, 0.01, axis=0), rtol=1e-6)
    assert not [name for name in statistics if name.startswith("label.")]
    one = lines(robot / "meta/episodes_stats.jsonl")[0]["stats"]
    assert np.shape(one["observation.images.top"]["mean"]) == (3, 1, 1)
    assert 0 <= np.min(one["observation.images.top"]["min"]) < np.max(one["observation.images.top"]["max"]) <= 1
    assert one["action"]["count"] == [6]


def test_embodiment_is_measured_over_training_rows(robot, make_episode):
    body = episodes.open(robot).embodiment
    assert body.tag == "toybot"
    np.testing.assert_array_equal(body.statistics["state"]["hand"]["max"], make_episode(0, 6)["state"]["hand"].max(0))
    assert body.modalities["video"]["top"] == {"resolution": [48, 32], "channels": 3, "fps": 20}
    assert body.modalities["action"]["delta"]["absolute"] is False
    assert body.transform.video_keys == ("top", "side")


def test_splits_of_episodes_that_name_none(robot):
    path = robot / "meta/episodes.jsonl"
    rows = lines(path)
    for row in rows:
        del row["split"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = episodes.open(robot).splits()
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [1, 1, 1]
    assert sorted(index for indices in splits.values() for index in indices) == [0, 1, 2]
    assert splits == episodes.open(robot).splits()


def test_version_3(robot, robot_v3):
    old, new = episodes.open(robot), episodes.open(robot_v3)
    assert [(e.index, e.length, e.instruction) for e in new.episodes] == [
        (e.index, e.length, e.instruction) for e in old.episodes
    ]
    assert list(new.modality.state) == ["state"]
    for index in range(3):
        ours, theirs = old.rows(index), new.rows(index)
        hand = np.concatenate([ours["state.hand"], ours["state.gripper"]], axis=1)
        np.testing.assert_array_equal(theirs["state.state"], hand)
        np.testing.assert_array_equal(theirs["label.objects"], ours["label.objects"])
        for key in ("top", "side"):
            assert psnr(new.frames(index, key), old.frames(index, key)) > 38
            np.testing.assert_array_equal(new.frames(index, key, np.array([4])), new.frames(index, key)[4:5])
    new.check()


@pytest.mark.parametrize("name", ["meta/tasks.parquet", "data/chunk-000/file-000.parquet"])
def test_missing_file_of_version_3(robot_v3, name):
    (robot_v3 / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing"):
        episodes.open(robot_v3)


def test_several_texts_are_settled_by_the_annotation_column(robot):
    path = robot / "meta/episodes.jsonl"
    rows = lines(path)
    rows[1]["tasks"] = ["valid", "open the drawer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert episodes.open(robot).episodes[1].instruction == "open the drawer"


@pytest.mark.parametrize(("absolute", "tail"), [(True, [4, 4]), (False, [0, 0])])
def test_chunks_beyond_the_end(absolute, tail):
    rows = np.arange(5, dtype=np.float32)[:, None]
    found = episodes.chunks(rows, np.array([0, 3]), 4, absolute=absolute)
    assert found.shape == (2, 4, 1)
    assert found[..., 0].tolist() == [[0, 1, 2, 3], [3, 4, *tail]]


def test_chunks_start_inside():
    with pytest.raises(DatasetError, match=r"rows 0\.\.4, got 0\.\.5"):
        episodes.chunks(np.zeros((5, 1)), np.array([0, 5]), 2, absolute=True)


def test_command(robot, capsys):
    assert episodes.main([str(robot)]) == 0
    said = capsys.readouterr().out
    assert "3 episodes, 22 rows at 20 Hz" in said
    assert "no faults" in said
    next(robot.glob("videos/*/*/episode_000001.mp4")).write_bytes(b"")
    assert episodes.main([str(robot), "--quick"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
