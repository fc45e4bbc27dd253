"""Small data of both kinds.

A store with every kind of row: three tasks, two frames a demonstration, four image tokens a frame; a robot dataset.
"""

import json
import shutil

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bridge import episodes, lerobot_video, store
from bridge import manifest as manifests
from bridge.lerobot_layout import SPLITS
from bridge.lerobot_spec import Spec
from bridge.manifest import Feature, Manifest

RECORDS = {
    "task": ["a", "a", "b", "b", "c"],
    "pair": [0, 0, 0, 0, 0],
    "kind": ["demonstration", "query"] * 2 + ["query"],
    "split": ["train", "train", "validation", "validation", "test"],
}
FRAMES = [2, 1, 2, 1, 1]


def make_manifest(**changes) -> Manifest:
    """Groups of two records; the last has one."""
    teacher = manifests.Teacher("toy", "0" * 64, "random", "none", 28, 2, 8, 1, 1, 1, False, 3)
    features = {
        "cells": Feature((30, 30), "uint8", "frame"),
        "image_tokens": Feature((8,), "bfloat16", "image"),
        "vision_attention": Feature((), "float32", "image"),
        "attention_mask": Feature((), "bool", "token"),
        "image_mask": Feature((), "bool", "token"),
        "layer_convergence": Feature((3,), "float32", "record"),
    }
    counts = {
        "record": [1] * 5,
        "frame": FRAMES,
        "image": [4 * n for n in FRAMES],
        "token": [11 * n + 1 for n in FRAMES],
    }
    given = {"features": features, "counts": counts, "records": RECORDS, "extraction": {"seed": 0}, "group_records": 2}
    return manifests.make("arc", teacher, **(given | changes))


def make_arrays(manifest: Manifest, group: int) -> dict[str, np.ndarray]:
    """Valid arrays for a group: attention sums to one a frame, masks fit the lengths."""
    rng = np.random.default_rng(group)
    rows = manifest.rows(group)
    attention = rng.random((rows["frame"], 4), np.float32) + 0.1
    lengths = [(4 * FRAMES[r], 11 * FRAMES[r] + 1) for r in range(*manifest.groups[group])]
    return {
        "cells": rng.integers(0, 10, (rows["frame"], 30, 30), np.uint8),
        "image_tokens": rng.standard_normal((rows["image"], 8), np.float32).astype(ml_dtypes.bfloat16),
        "vision_attention": (attention / attention.sum(axis=1, keepdims=True)).reshape(-1),
        "attention_mask": np.ones(rows["token"], bool),
        "image_mask": np.concatenate([np.arange(tokens) < images for images, tokens in lengths]),
        "layer_convergence": np.concatenate(
            [rng.random((rows["record"], 2), np.float32), np.ones((rows["record"], 1), np.float32)], 1
        ),
    }


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest()


@pytest.fixture
def folder(tmp_path, manifest) -> str:
    """A finished store in a local folder."""
    writer = store.create(tmp_path / "store", manifest)
    for group in writer.pending():
        writer.write(group, make_arrays(manifest, group))
    return tmp_path / "store"


@pytest.fixture
def arrays(manifest) -> list[dict[str, np.ndarray]]:
    return [make_arrays(manifest, group) for group in range(len(manifest.groups))]


@pytest.fixture
def altered_manifest():
    return make_manifest


SPEC = Spec(
    fps=20,
    videos={"top": (32, 48), "side": (32, 32)},
    state={"hand": 3, "gripper": 1},
    action={"delta": 3, "gripper": 1},
    labels={"objects": 3},
    robot_type="toybot",
    relative=("action.delta",),
)
LENGTHS = (6, 9, 7)


def robot_episode(seed: int, length: int) -> dict:
    """Arguments of Writer.add: smooth pictures that differ from frame to frame, random numbers."""
    rng = np.random.default_rng(seed)
    frames = {}
    for key, (height, width) in SPEC.videos.items():
        y, x, t = np.mgrid[:height, :width, :length]
        picture = 128 + 90 * np.sin(x[..., None] / 9 + y[..., None] / [7, 11, 13] + 0.4 * t[..., None] + seed)
        frames[key] = np.moveaxis(picture, 2, 0).astype(np.uint8)
    numbers = {name: rng.uniform(-1, 1, (length, width)).astype(np.float32) for name, width in SPEC.state.items()}
    actions = {name: rng.uniform(-1, 1, (length, width)).astype(np.float32) for name, width in SPEC.action.items()}
    labels = {"objects": np.full((length, 3), np.nan, np.float32)}
    instruction = "push the button" if seed % 2 == 0 else "open the drawer"
    return {"frames": frames, "state": numbers, "action": actions, "labels": labels, "instruction": instruction}


@pytest.fixture(scope="session")
def spec():
    return SPEC


@pytest.fixture(scope="session")
def make_episode():
    return robot_episode


@pytest.fixture(scope="session")
def _robot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robot") / "dataset"
    writer = episodes.create(folder, SPEC)
    for seed, length in enumerate(LENGTHS):
        writer.add(**robot_episode(seed, length), extra={"split": SPLITS[seed], "task": "toy", "seed": seed})
    writer.close()
    return folder


@pytest.fixture
def robot(_robot, tmp_path):
    """Folder of a finished dataset of three episodes, one in each split; a copy that may be damaged."""
    return shutil.copytree(_robot, tmp_path / "dataset")


@pytest.fixture(scope="session")
def _robot_v3(_robot, tmp_path_factory):
    """The same episodes as LeRobot v3.0 lays them out: one parquet and one video per camera, no modality.json."""
    folder, old = tmp_path_factory.mktemp("robot") / "v3", episodes.open(_robot)
    tables = [pq.read_table(path) for path in old.layout.data.values()]
    paths = {
        name: folder / name for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet")
    }
    for path in paths.values():
        path.parent.mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), paths["data/chunk-000/file-000.parquet"])
    rows, start = [], 0
    for episode in old.episodes:
        row = {"episode_index": episode.index, "length": episode.length, "tasks": [episode.instruction]}
        row |= {"data/chunk_index": 0, "data/file_index": 0, "stats/action/min": [0.0]}
        for column in old.layout.videos:
            row |= {f"videos/{column}/chunk_index": 0, f"videos/{column}/file_index": 0}
            row |= {f"videos/{column}/from_timestamp": start / SPEC.fps}
        rows.append(row)
        start += episode.length
    pq.write_table(pa.Table.from_pylist(rows), paths["meta/episodes/chunk-000/file-000.parquet"])
    texts = pa.table({"task_index": list(old.layout.tasks), "__index_level_0__": list(old.layout.tasks.values())})
    pq.write_table(texts, folder / "meta/tasks.parquet")
    for key, column in old.modality.video.items():
        path = folder / f"videos/{column}/chunk-000/file-000.mp4"
        path.parent.mkdir(parents=True)
        frames = np.concatenate([robot_episode(i, n)["frames"][key] for i, n in enumerate(LENGTHS)])
        lerobot_video.encode(path, frames, fps=SPEC.fps)
    info = json.loads((_robot / "meta/info.json").read_text()) | {"codebase_version": "v3.0"}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def robot_v3(_robot_v3, tmp_path):
    return shutil.copytree(_robot_v3, tmp_path / "v3")
