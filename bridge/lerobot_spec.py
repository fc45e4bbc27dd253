"""What a new robot dataset holds: its metadata, its columns, and the checks of what is added to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bridge import lerobot_video
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import CHUNK_SIZE, DATA_PATH, VIDEO_PATH
from bridge.lerobot_modality import COLUMNS, LABEL

VERSION = "v2.1"
VIDEO = "observation.images."
ANNOTATION = "annotation.human.action.task_description"
COUNTERS = {  # LeRobot's own columns, GR00T's annotation and the end mark
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
    "next.done": "bool",
    ANNOTATION: "int64",
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """fps: rows and frames per second; videos: {key: (height, width)}; state, action: {key: width}.

    labels: {name: width}, written as "label.NAME", never an input; relative: keys such as "action.delta" that are
    changes per step and not positions; rotations: {"state.KEY" | "action.KEY": rotation_type as in modality.json}.
    """

    fps: float
    videos: Mapping[str, tuple[int, int]]
    state: Mapping[str, int]
    action: Mapping[str, int]
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    robot_type: str | None = None
    relative: tuple[str, ...] = ()
    rotations: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.fps > 0 and self.videos and self.state and self.action):
            raise DatasetError("a Spec needs fps > 0 and at least one video, one state and one action key")
        keys = {f"{group}.{key}" for group in COLUMNS for key in getattr(self, group)}
        if unknown := sorted({*self.relative, *self.rotations} - keys):
            raise DatasetError(f"relative and rotations name {unknown}, the keys are {sorted(keys)}")

    def features(self) -> dict[str, dict[str, Any]]:
        """The `features` of meta/info.json."""
        found: dict[str, dict[str, Any]] = {}
        for group, column in COLUMNS.items():
            widths = getattr(self, group)
            names = [f"{k}_{i}" if width > 1 else k for k, width in widths.items() for i in range(width)]
            found[column] = {"dtype": "float32", "shape": [sum(widths.values())], "names": names}
        for key, size in self.videos.items():
            found[VIDEO + key] = _video(size, self.fps)
        for name, width in self.labels.items():
            found[LABEL + name] = {"dtype": "float32", "shape": [width], "names": None}
        return found | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in COUNTERS.items()}


def _video(size: tuple[int, int], fps: float) -> dict[str, Any]:
    """LeRobot 2.1 reads `info`, GR00T reads `video_info` beside the name "channel": both are there."""
    height, width = size
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": lerobot_video.PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": whole(fps),
        "video.channels": 3,
        "has_audio": False,
    }
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channel"],
        "info": info,
        "video_info": info,
    }


def whole(fps: float) -> float:
    """fps as LeRobot writes it: an integer where it is one."""
    return int(fps) if float(fps).is_integer() else float(fps)


def info(spec: Spec) -> dict[str, Any]:
    """meta/info.json without its totals."""
    return {
        "codebase_version": VERSION,
        "robot_type": spec.robot_type,
        "chunks_size": CHUNK_SIZE,
        "fps": whole(spec.fps),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": spec.features(),
    }


def modality(spec: Spec) -> dict[str, Any]:
    """meta/modality.json of GR00T."""
    found: dict[str, Any] = {}
    for group, column in COLUMNS.items():
        found[group], start = {}, 0
        for key, width in getattr(spec, group).items():
            name = f"{group}.{key}"
            entry = {
                "start": start,
                "end": start + width,
                "original_key": column,
                "absolute": name not in spec.relative,
            }
            found[group][key] = entry | ({"rotation_type": spec.rotations[name]} if name in spec.rotations else {})
            start += width
    found["video"] = {key: {"original_key": VIDEO + key} for key in spec.videos}
    found["annotation"] = {ANNOTATION.removeprefix("annotation."): {}}
    return found


def columns(
    spec: Spec, state: Mapping[str, np.ndarray], action: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{column: float32 [n, d]} of one episode, every key checked against the Spec."""
    found = {}
    for group, given in (("state", state), ("action", action)):
        widths = getattr(spec, group)
        _same_keys(group, widths, given)
        parts = [_rows(f"{group}.{key}", given[key], width) for key, width in widths.items()]
        if not all(np.isfinite(part).all() for part in parts):
            bad = [key for key, part in zip(widths, parts, strict=True) if not np.isfinite(part).all()]
            raise DatasetError(f"{group} has NaN or infinite values in {bad}: a policy cannot learn from them")
        if len({len(part) for part in parts}) > 1:
            raise DatasetError(f"the keys of {group} differ in rows: {[len(part) for part in parts]}")
        found[COLUMNS[group]] = np.concatenate(parts, axis=1)
    _same_keys("labels", spec.labels, labels)
    return found | {LABEL + name: _rows(LABEL + name, labels[name], width) for name, width in spec.labels.items()}


def _same_keys(what: str, expected: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if set(expected) != set(given):
        raise DatasetError(f"{what} must have exactly the keys {sorted(expected)}, got {sorted(given)}")


def _rows(name: str, values: np.ndarray, width: int) -> np.ndarray:
    rows = np.asarray(values)
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind not in "fiub":
        raise DatasetError(f"{name} must be numbers [n, {width}], got {rows.dtype} {list(rows.shape)}")
    return rows.astype(np.float32)


def check_frames(spec: Spec, frames: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> int:
    """The number of rows, which all columns and videos share."""
    _same_keys("frames", spec.videos, frames)
    lengths = {name: len(values) for name, values in {**rows, **frames}.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        raise DatasetError(f"every column and video needs the same number of rows, at least 1, got {lengths}")
    for key, (height, width) in spec.videos.items():
        if frames[key].dtype != np.uint8 or frames[key].shape[1:] != (height, width, 3):
            raise DatasetError(
                f"frames {key!r} must be uint8 [n, {height}, {width}, 3], got {frames[key].dtype} "
                f"{list(frames[key].shape)}"
            )
    return next(iter(lengths.values()))


def counters(fps: float, length: int, *, episode: int, first: int, task: int) -> dict[str, np.ndarray]:
    """LeRobot's bookkeeping columns of one episode whose first row is the dataset's row `first`."""
    rows = np.arange(length)
    values = {
        "timestamp": rows / fps,
        "frame_index": rows,
        "episode_index": np.full(length, episode),
        "index": first + rows,
        "task_index": np.full(length, task),
        "next.done": rows == length - 1,
        ANNOTATION: np.full(length, task),
    }
    return {name: values[name].astype(kind) for name, kind in COUNTERS.items()}


def table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """A parquet table: vectors as lists of fixed length."""
    found = {}
    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        found[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(found)
