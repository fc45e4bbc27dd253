"""GR00T's meta/modality.json: which part of which column is which key of state, action, video and annotation."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from bridge import lerobot_files as files
from bridge.lerobot_files import DatasetError

COLUMNS = {"state": "observation.state", "action": "action"}
LABEL = "label."
SIMULATOR = ("observation.environment_state",)  # truth that no robot has: never taken as state unasked
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


@dataclasses.dataclass(frozen=True)
class Key:
    """One state or action key: columns [start, end) of a parquet column. absolute: False for a change per step."""

    column: str
    start: int
    end: int
    absolute: bool = True
    rotation_type: str | None = None


@dataclasses.dataclass(frozen=True)
class Modality:
    """state, action: {key: Key}; video: {key: column}; annotation: {key: column of indices into the tasks}."""

    state: Mapping[str, Key]
    action: Mapping[str, Key]
    video: Mapping[str, str]
    annotation: Mapping[str, str]

    def group(self, name: str) -> Mapping[str, Key]:
        """The keys of "state" or "action"."""
        return self.state if name == "state" else self.action


def read(folder: pathlib.Path, features: Mapping[str, Mapping[str, Any]]) -> Modality:
    """The dataset's modality.json, or one key per whole column where it has none; checked against its features."""
    path = folder / "meta/modality.json"
    if not path.is_file():
        return _whole_columns(folder / "meta/info.json", features)
    entries = files.read_json(path)
    if unknown := [n for n in ("state", "action", "video", "annotation") if not isinstance(entries.get(n, {}), dict)]:
        raise DatasetError(f"{path}: {unknown} must map key names to objects")
    groups = {
        group: {name: _key(path, group, name, entry, features) for name, entry in entries.get(group, {}).items()}
        for group in COLUMNS
    }
    video = {name: _video(path, name, entry, features) for name, entry in entries.get("video", {}).items()}
    annotation = {n: _annotation(path, n, e, features) for n, e in entries.get("annotation", {}).items()}
    return _complete(path, Modality(groups["state"], groups["action"], video, annotation))


def _complete(path: pathlib.Path, modality: Modality) -> Modality:
    if not modality.action or not modality.video:
        lacks = "an action" if not modality.action else "a video"
        raise DatasetError(f"{path} names no {lacks.split()[-1]} key; a policy needs {lacks}")
    return modality


def _key(path: pathlib.Path, group: str, name: str, entry: Any, features: Mapping[str, Mapping[str, Any]]) -> Key:
    label = f"{path}: {group}.{name}"
    if not isinstance(entry, dict) or not all(isinstance(entry.get(n), int) for n in ("start", "end")):
        raise DatasetError(f"{label} needs whole numbers start and end, got {entry}")
    key = Key(
        entry.get("original_key") or COLUMNS[group],
        entry["start"],
        entry["end"],
        bool(entry.get("absolute", True)),
        entry.get("rotation_type"),
    )
    if key.column not in features:
        raise DatasetError(
            f"{label} reads column {key.column!r}, which meta/info.json lacks: it has {sorted(features)}"
        )
    width = _width(features[key.column])
    if features[key.column]["dtype"] not in NUMBERS:
        raise DatasetError(f"{label}: column {key.column!r} is {features[key.column]['dtype']}, it must hold numbers")
    if not 0 <= key.start < key.end <= width:
        raise DatasetError(f"{label} is {key.start}:{key.end} of column {key.column!r}, which has {width} values")
    return key


def _video(path: pathlib.Path, name: str, entry: Any, features: Mapping[str, Mapping[str, Any]]) -> str:
    named = entry.get("original_key") if isinstance(entry, dict) else None
    candidates = [named] if named else [name, f"observation.images.{name}"]
    for column in candidates:
        if column in features and features[column]["dtype"] in ("video", "image"):
            return column
    known = [column for column, feature in features.items() if feature["dtype"] in ("video", "image")]
    raise DatasetError(f"{path}: video.{name} reads {candidates[-1]!r}, the dataset's videos are {known}")


def _annotation(path: pathlib.Path, name: str, entry: Any, features: Mapping[str, Mapping[str, Any]]) -> str:
    column = (entry.get("original_key") if isinstance(entry, dict) else None) or f"annotation.{name}"
    if column not in features:
        raise DatasetError(f"{path}: annotation.{name} reads column {column!r}, which meta/info.json lacks")
    return column


def _whole_columns(path: pathlib.Path, features: Mapping[str, Mapping[str, Any]]) -> Modality:
    state, action, video = {}, {}, {}
    for column, feature in features.items():
        short = column.removeprefix("observation.").removeprefix("images.")
        if feature["dtype"] in ("video", "image"):
            video[short] = column
        elif feature["dtype"] not in NUMBERS or column in SIMULATOR:
            continue
        elif column.startswith("observation."):
            state[short] = Key(column, 0, _width(feature))
        elif column == "action" or column.startswith("action."):
            action[column.removeprefix("action.")] = Key(column, 0, _width(feature))
    annotation = {"task_index": "task_index"} if "task_index" in features else {}
    return _complete(path, Modality(state, action, video, annotation))


def _width(feature: Mapping[str, Any]) -> int:
    width = 1
    for size in feature["shape"]:
        width *= int(size)
    return width


def videos(modality: Modality, features: Mapping[str, Mapping[str, Any]], fps: float) -> dict[str, dict[str, object]]:
    """{key: {resolution [width, height], channels, fps}}, as GR00T's metadata has it."""
    found: dict[str, dict[str, object]] = {}
    for name, column in modality.video.items():
        height, width, channels = shape(features[column])
        found[name] = {"resolution": [width, height], "channels": channels, "fps": fps}
    return found


def shape(feature: Mapping[str, Any]) -> tuple[int, int, int]:
    """(height, width, channels) of a video feature, whose names tell the order of its axes."""
    sizes = [int(size) for size in feature["shape"]]
    names = [str(name)[0] for name in feature.get("names") or ()]  # h(eight), w(idth), c(hannel[s])
    if sorted(names) == ["c", "h", "w"] and len(sizes) == 3:
        return sizes[names.index("h")], sizes[names.index("w")], sizes[names.index("c")]
    if len(sizes) != 3:
        raise DatasetError(f"a video feature needs a shape of height, width and channels, got {sizes}")
    return sizes[0], sizes[1], sizes[2]


def details(modality: Modality) -> dict[str, dict[str, object]]:
    """{"state.KEY" | "action.KEY": what GR00T's metadata says of it beside its shape}."""
    return {
        f"{group}.{name}": {"absolute": key.absolute, "rotation_type": key.rotation_type}
        for group in COLUMNS
        for name, key in modality.group(group).items()
    }
