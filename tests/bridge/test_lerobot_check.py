"""Every fault of a robot dataset is one clear error, before anything is trained on it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bridge import embodiment, episodes, lerobot_video
from bridge.lerobot_files import DatasetError

DATA = "data/chunk-000/episode_000001.parquet"
VIDEO = "videos/chunk-000/observation.images.top/episode_000001.mp4"


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_column(path, name, change):
    """Replace a column of a parquet file by change(column); None removes it."""
    table = pq.read_table(path)
    column = change(table[name])
    index = table.schema.get_field_index(name)
    table = table.remove_column(index) if column is None else table.set_column(index, name, column)
    pq.write_table(table, path)


def vectors(change, dtype=np.float32):
    """Change of a vector column, by a function of its array [n, d]."""

    def apply(column):
        rows = np.array(column.to_pylist(), dtype)
        rows = change(rows)
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])

    return apply


def setting(row, column, value):
    def change(rows):
        rows[row, column] = value
        return rows

    return vectors(change)


def test_missing_column(robot):
    edit_column(robot / DATA, "action", lambda _: None)
    with pytest.raises(DatasetError, match=r"episode_000001\.parquet lacks the column 'action'; it has \['observation"):
        episodes.open(robot)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("action", lambda c: pa.array(["left"] * len(c)), r"column 'action' is string, it must hold numbers"),
        ("action", vectors(lambda rows: rows[:, :2]), r"column 'action' has 2 values a row, info\.json says 4"),
        ("action", lambda c: pa.array([[0.0] * (1 + i % 2) for i in range(len(c))]), r"'action' differ in length"),
        (
            "action",
            lambda c: pa.array([[0.0]] * len(c)),
            r"column 'action' has 1 values a row, modality\.json reads 0:3",
        ),
        ("action", lambda c: pa.array([None] + [[0.0] * 4] * (len(c) - 1)), r"column 'action' has 1 empty values"),
        ("action", setting(3, 2, np.nan), r"episode_000001\.parquet \(episode 1\): action\.delta\[2\] is nan in row 3"),
        ("observation.state", setting(0, 3, np.inf), r"\(episode 1\): state\.gripper\[0\] is inf in row 0"),
        ("timestamp", lambda c: pa.array([t * 2 for t in c.to_pylist()]), r"timestamp of row 1 is 0\.1 s, .* 0\.05 s"),
        (
            "annotation.human.action.task_description",
            lambda c: pa.array([7] * len(c)),
            r"task_description has \[7\], no indices of the dataset's tasks",
        ),
    ],
)
def test_faulty_columns(robot, column, change, message):
    edit_column(robot / DATA, column, change)
    with pytest.raises(DatasetError, match=message):
        episodes.open(robot).check(deep=False)


def test_float64_and_plain_lists_are_fine(robot, make_episode):
    edit_column(robot / DATA, "action", lambda c: pa.array([[float(v) for v in row] for row in c.to_pylist()]))
    dataset = episodes.open(robot)
    np.testing.assert_array_equal(dataset.rows(1)["action.delta"], make_episode(1, 9)["action"]["delta"])
    dataset.check()


def test_row_count(robot):
    pq.write_table(pq.read_table(robot / DATA).slice(0, 5), robot / DATA)
    with pytest.raises(DatasetError, match=r"episode_000001\.parquet has 5 rows, the metadata's episodes have 9"):
        episodes.open(robot)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_truncated_video(robot, share):
    data = (robot / VIDEO).read_bytes()
    (robot / VIDEO).write_bytes(data[: int(share * len(data))])
    dataset = episodes.open(robot)
    with pytest.raises(DatasetError, match=r"top/episode_000001\.mp4 cannot be decoded"):
        dataset.check(deep=False)
    with pytest.raises(DatasetError, match=r"top/episode_000001\.mp4 cannot be decoded"):
        dataset.frames(1, "top")


def test_damaged_video(robot):
    data = bytearray((robot / VIDEO).read_bytes())
    middle = data.index(b"mdat") + 1500
    data[middle : middle + 400] = bytes(400)
    (robot / VIDEO).write_bytes(data)
    with pytest.raises(DatasetError, match=r"top/episode_000001\.mp4"):
        episodes.open(robot).check()


@pytest.mark.parametrize("frames", [8, 10])
@pytest.mark.parametrize("deep", [False, True])
def test_mismatched_frame_counts(robot, make_episode, frames, deep):
    lerobot_video.encode(robot / VIDEO, make_episode(1, frames)["frames"]["top"], fps=20)
    with pytest.raises(DatasetError, match=rf"mp4 has {frames} frames, episode 1 has 9 rows"):
        episodes.open(robot).check(deep=deep)


def test_frame_size(robot, make_episode):
    lerobot_video.encode(robot / VIDEO, make_episode(1, 9)["frames"]["side"], fps=20)
    with pytest.raises(DatasetError, match=r"frames are 32 x 32, meta/info\.json says \[32, 48, 3\]"):
        episodes.open(robot).check()


@pytest.mark.parametrize("deep", [False, True])
def test_video_too_short_in_a_shared_file(robot_v3, make_episode, deep):
    path = robot_v3 / "videos/observation.images.side/chunk-000/file-000.mp4"
    lerobot_video.encode(path, make_episode(0, 20)["frames"]["side"], fps=20)
    with pytest.raises(DatasetError, match=r"file-000\.mp4 has 20 frames, episode 2 ends at frame 22"):
        episodes.open(robot_v3).check(deep=deep)


@pytest.mark.parametrize("name", [DATA, VIDEO, "meta/info.json", "meta/tasks.jsonl", "meta/episodes.jsonl"])
def test_missing_file(robot, name):
    (robot / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing"):
        episodes.open(robot)


def test_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="holds no LeRobot dataset"):
        episodes.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v4.2"}, r"codebase_version is 'v4\.2', this project reads v2\.0, v2\.1, v3\.0"),
        ({"fps": 0}, "fps must be a positive number, got 0"),
        ({"features": {"action": {"dtype": "float32"}}}, "feature 'action' needs a dtype and a shape"),
        ({"data_path": "data/{nothing}.parquet"}, "cannot be filled"),
        ({"total_episodes": 4}, r"lists 3 episodes, meta/info\.json says 4"),
    ],
)
def test_faulty_info(robot, change, message):
    edit_json(robot / "meta/info.json", lambda info: info.update(change))
    with pytest.raises(DatasetError, match=message):
        episodes.open(robot)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("info.json", '{"fps": ', r"info\.json, line 1: not JSON"),
        ("info.json", "[]", r"info\.json must hold a JSON object, got list"),
        ("modality.json", "{", r"modality\.json, line 1: not JSON"),
        ("episodes.jsonl", '{"episode_index": 0, "length": 6}\n{"episode', r"episodes\.jsonl, line 2: not JSON"),
        ("episodes.jsonl", '{"episode_index": 0}', r"episodes\.jsonl, line 1: lacks \['length'\]"),
        ("episodes.jsonl", '{"episode_index": 0, "length": 0}', "length >= 1, got length 0"),
        ("episodes.jsonl", '{"episode_index": 0, "length": 6, "split": "dev"}', "episode 0 has split 'dev'"),
        ("episodes.jsonl", '{"episode_index": 0, "length": 6}\n' * 3, "lists an episode twice"),
        ("episodes.jsonl", "", "lists no episodes"),
        ("tasks.jsonl", "3", r"tasks\.jsonl, line 1: lacks"),
    ],
)
def test_malformed_files(robot, name, text, message):
    (robot / "meta" / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        episodes.open(robot)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"state": {"hand": {"start": 0, "end": 9}}},
            r"state\.hand is 0:9 of column 'observation\.state', which has 4",
        ),
        ({"state": {"hand": {"start": 0}}}, r"state\.hand needs whole numbers start and end"),
        ({"state": {"h": {"start": 0, "end": 1, "original_key": "joints"}}}, r"column 'joints', which meta/info\.json"),
        ({"video": {"front": {}}}, r"video\.front reads .*'observation\.images\.front', the dataset's videos are"),
        ({"video": {}}, "names no video key"),
        ({"action": {}}, "names no action key"),
        ({"annotation": {"human.text": {}}}, r"column 'annotation\.human\.text', which meta/info\.json lacks"),
        ({"action": 3}, r"\['action'\] must map"),
    ],
)
def test_faulty_modality(robot, change, message):
    edit_json(robot / "meta/modality.json", lambda modality: modality.update(change))
    with pytest.raises(DatasetError, match=message):
        episodes.open(robot)


@pytest.fixture
def with_metadata(robot):
    embodiment.save(robot / "meta/metadata.json", episodes.open(robot).measure("toybot"))
    return robot


def test_own_statistics_fit(with_metadata):
    episodes.open(with_metadata).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["statistics"]["state"].pop("gripper"), r"another robot's: state keys and widths \{'hand': 3\}"),
        (
            lambda e: e["statistics"]["action"].update(gripper=e["statistics"]["action"]["delta"]),
            r"another robot's: action keys and widths",
        ),
        (lambda e: e["transform"].update(video_keys=["front"]), r"video keys \['front'\] are not in the dataset's"),
    ],
)
def test_metadata_of_another_robot(with_metadata, change, message):
    edit_json(with_metadata / "meta/metadata.json", lambda entries: change(entries["toybot"]))
    with pytest.raises(DatasetError, match=message):
        _ = episodes.open(with_metadata).embodiment


def test_statistics_of_another_scale(with_metadata):
    def shrink(entries):
        for values in entries["toybot"]["statistics"]["action"]["delta"].values():
            values[1] = values[1] / 50 + 3

    edit_json(with_metadata / "meta/metadata.json", shrink)
    with pytest.raises(DatasetError, match=r"another robot's: action\.delta\[1\] lies far outside .* in 22 of 22 rows"):
        episodes.open(with_metadata).check(deep=False)
