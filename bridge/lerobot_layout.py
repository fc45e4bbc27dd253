"""Where everything of a LeRobot dataset lies: versions 2.0 and 2.1 (a file per episode) and 3.0 (many in each file)."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from bridge import lerobot_files as files
from bridge.lerobot_files import DatasetError

VERSIONS = ("v2.0", "v2.1", "v3.0")
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
CHUNK_SIZE = 1000
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode: length in rows; instruction (the first, where it has several: see instructions); its own split."""

    index: int
    length: int
    instruction: str
    split: str | None
    instructions: tuple[str, ...]
    extra: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Clip:
    """An episode's part of a video file: it begins `start` seconds into it."""

    path: pathlib.Path
    start: float


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset's own account of itself. data: parquet file per episode; clips: by (episode, video column).

    shared: whether a file holds several episodes (version 3.0).
    """

    folder: pathlib.Path
    version: str
    fps: float
    robot_type: str | None
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: tuple[Episode, ...]
    data: Mapping[int, pathlib.Path]
    clips: Mapping[tuple[int, str], Clip]

    @property
    def shared(self) -> bool:
        """Whether a file holds several episodes."""
        return self.version == "v3.0"

    @property
    def videos(self) -> tuple[str, ...]:
        """Columns that are kept as video files."""
        return tuple(name for name, feature in self.features.items() if feature["dtype"] == "video")


def read(folder: pathlib.Path) -> Layout:
    """The layout of the dataset in a folder, from its meta/ files alone."""
    if not (folder / "meta").is_dir():
        raise DatasetError(f"{folder} holds no LeRobot dataset (no meta/ folder): give the folder that has meta/ in it")
    path = folder / "meta/info.json"
    info = files.read_json(path)
    if missing := [n for n in ("codebase_version", "fps", "features", "data_path") if n not in info]:
        raise DatasetError(f"{path} lacks {missing}: fetch the dataset again")
    version = info["codebase_version"]
    if version not in VERSIONS:
        raise DatasetError(
            f"{path}: codebase_version is {version!r}, this project reads {', '.join(VERSIONS)}: convert the dataset "
            "with LeRobot's own conversion scripts"
        )
    _check(path, info)
    places = _read_v3(folder, info) if version == "v3.0" else _read_v2(folder, info)
    return Layout(folder, version, float(info["fps"]), info.get("robot_type"), info["features"], *places)


def _check(path: pathlib.Path, info: Mapping[str, Any]) -> None:
    if not isinstance(info["fps"], int | float) or info["fps"] <= 0:
        raise DatasetError(f"{path}: fps must be a positive number, got {info['fps']!r}")
    if not isinstance(info["features"], dict):
        raise DatasetError(f"{path}: features must map each column to its dtype and shape")
    for name, feature in info["features"].items():
        if not isinstance(feature, dict) or "dtype" not in feature or not isinstance(feature.get("shape"), list):
            raise DatasetError(f"{path}: feature {name!r} needs a dtype and a shape, got {feature}")
    if any(f["dtype"] == "video" for f in info["features"].values()) and not info.get("video_path"):
        raise DatasetError(f"{path} has video features but no video_path")


def _read_v2(folder: pathlib.Path, info: Mapping[str, Any]) -> tuple:
    path = folder / "meta/episodes.jsonl"
    rows = files.read_lines(path, "episode_index", "length")
    tasks = {
        row["task_index"]: row["task"] for row in files.read_lines(folder / "meta/tasks.jsonl", "task_index", "task")
    }
    size = info.get("chunks_size", CHUNK_SIZE)
    data, clips = {}, {}
    for row in rows:
        index = row["episode_index"]
        data[index] = folder / _fill(folder, info["data_path"], episode_chunk=index // size, episode_index=index)
        for key in _video_keys(info):
            name = _fill(folder, info["video_path"], episode_chunk=index // size, episode_index=index, video_key=key)
            clips[index, key] = Clip(folder / name, 0.0)
    return tasks, _episodes(path, info, rows), data, clips


def _read_v3(folder: pathlib.Path, info: Mapping[str, Any]) -> tuple:
    where = folder / "meta/episodes"
    rows: list[dict] = []
    for path in sorted(where.glob("*/*.parquet")):
        table = files.read_table(path)
        rows += table.select([n for n in table.column_names if not n.startswith("stats/")]).to_pylist()
    if not rows:
        raise DatasetError(f"{where} holds no chunk-*/file-*.parquet with episodes: fetch the dataset again")
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    columns += [
        f"videos/{key}/{n}" for key in _video_keys(info) for n in ("chunk_index", "file_index", "from_timestamp")
    ]
    if missing := [name for name in columns if name not in rows[0]]:
        raise DatasetError(f"{where} lacks the columns {missing}: fetch the dataset again")
    data, clips = {}, {}
    for row in rows:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        data[row["episode_index"]] = folder / _fill(folder, info["data_path"], **place)
        for key in _video_keys(info):
            place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            path = folder / _fill(folder, info["video_path"], video_key=key, **place)
            clips[row["episode_index"], key] = Clip(path, float(row[f"videos/{key}/from_timestamp"]))
    known = {"dataset_from_index", "dataset_to_index"}
    bare = [{k: v for k, v in row.items() if "/" not in k and k not in known} for row in rows]
    return _tasks_v3(folder / "meta/tasks.parquet"), _episodes(where, info, bare), data, clips


def _tasks_v3(path: pathlib.Path) -> dict[int, str]:
    """{task_index: text}; the text is the index column of the data frame that LeRobot writes."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing: fetch the dataset again")
    table = files.read_table(path)
    texts = [n for n in ("task", "__index_level_0__") if n in table.column_names]
    if "task_index" not in table.column_names or not texts:
        raise DatasetError(f"{path} needs the columns task_index and task, it has {table.column_names}")
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _video_keys(info: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in info["features"].items() if feature["dtype"] == "video"]


def _fill(folder: pathlib.Path, template: str, **values: Any) -> str:
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise DatasetError(
            f"{folder}/meta/info.json: the path {template!r} cannot be filled from {sorted(values)} ({error!r})"
        ) from error


def _episodes(path: pathlib.Path, info: Mapping[str, Any], rows: list[dict]) -> tuple[Episode, ...]:
    """Checked episodes in the order of their indices."""
    if not rows:
        raise DatasetError(f"{path} lists no episodes; a dataset needs at least one")
    found = [_episode(path, row) for row in sorted(rows, key=lambda row: row["episode_index"])]
    if len({episode.index for episode in found}) != len(found):
        raise DatasetError(f"{path} lists an episode twice: remove the second line")
    if len(found) < int(info.get("total_episodes", 0)):
        raise DatasetError(
            f"{path} lists {len(found)} episodes, meta/info.json says {info['total_episodes']}: {files.RESUME}"
        )
    return tuple(found)


def _episode(path: pathlib.Path, row: dict[str, Any]) -> Episode:
    extra = {key: value for key, value in row.items() if key not in ("episode_index", "length", "tasks")}
    index, length, split = row["episode_index"], row["length"], extra.pop("split", None)
    if not isinstance(index, int) or not isinstance(length, int) or index < 0 or length < 1:
        raise DatasetError(f"{path}: episode {index!r} needs a whole index >= 0 and length >= 1, got length {length!r}")
    if split is not None and split not in SPLITS:
        raise DatasetError(f"{path}: episode {index} has split {split!r}; it must be one of {', '.join(SPLITS)}")
    texts = tuple(row.get("tasks") or ())
    if not all(isinstance(text, str) for text in texts):
        raise DatasetError(f"{path}: the tasks of episode {index} must be texts, got {list(texts)}")
    return Episode(index, length, texts[0] if texts else "", split, texts, extra)
