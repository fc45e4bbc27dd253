"""Checks of a robot dataset before anything is trained on it; the first fault is raised as one DatasetError."""

import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import rich.progress

from bridge import lerobot_files as files
from bridge import lerobot_modality, lerobot_video
from bridge.embodiment import GROUPS, Embodiment, EmbodimentError
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import Episode, Layout
from bridge.lerobot_modality import LABEL, Modality

if TYPE_CHECKING:
    from bridge.episodes import Dataset

OUTSIDE = 0.01  # share of rows that may lie more than a whole range outside the recorded minimum and maximum
USED = 0.01  # share of its recorded range that the most moving value of a group moves through in some episode, at least
TIMING = 0.5  # rows: a time stamp further than this from frame_index / fps belongs to another frame


def files_and_schemas(layout: Layout, modality: Modality) -> None:
    """Every file is there; every parquet file has the columns that are used, as numbers, and the right row count."""
    expected: dict[pathlib.Path, int] = {}
    for episode in layout.episodes:
        path = layout.data[episode.index]
        expected[path] = expected.get(path, 0) + episode.length
    for path, rows in expected.items():
        schema, found = files.survey(path)
        _schema(path, schema, layout, modality)
        if found != rows and not (layout.shared and found > rows):
            raise DatasetError(f"{path} has {found} rows, the metadata's episodes have {rows}: {files.RESUME}")
    for episode in layout.episodes:
        for column in modality.video.values():
            clip = layout.clips.get((episode.index, column))
            if clip is not None and not clip.path.is_file():
                raise DatasetError(f"{clip.path} is missing, though episode {episode.index} needs it: {files.RESUME}")


def _schema(path: pathlib.Path, schema: pa.Schema, layout: Layout, modality: Modality) -> None:
    numbers = {key.column for group in GROUPS for key in modality.group(group).values()}
    numbers |= set(modality.annotation.values()) | {name for name in layout.features if name.startswith(LABEL)}
    numbers |= {"episode_index"} if layout.shared else set()
    pictures = {column for column in modality.video.values() if layout.features[column]["dtype"] == "image"}
    if missing := sorted((numbers | pictures) - set(schema.names)):
        raise DatasetError(f"{path} lacks the column {missing[0]!r}; it has {schema.names}: {files.RESUME}")
    for name in sorted(numbers):
        kind = schema.field(name).type
        if not files.numeric(kind):
            raise DatasetError(f"{path}: column {name!r} is {kind}, it must hold numbers: write it as float32")
        if pa.types.is_fixed_size_list(kind) and name in layout.features:
            width = int(np.prod(layout.features[name]["shape"]))
            if kind.list_size != width and files.element(kind) == kind.value_type:
                raise DatasetError(f"{path}: column {name!r} has {kind.list_size} values a row, info.json says {width}")


def fits(path: pathlib.Path, body: Embodiment, modality: Modality) -> None:
    """The embodiment has the dataset's keys, widths and cameras; else it is another robot's."""
    fix = "give this robot's metadata, or write it with python -m bridge.embodiment DATASET"
    for group in GROUPS:
        own = {name: key.end - key.start for name, key in modality.group(group).items()}
        if body.dimensions(group) != own:
            raise DatasetError(
                f"{path}: the statistics are another robot's: {group} keys and widths {body.dimensions(group)}, "
                f"the dataset has {own}: {fix}"
            )
        for name, key in modality.group(group).items():
            turn = body.scaling(group, name).turn
            if turn and key.rotation_type not in (None, turn[0]):
                raise DatasetError(
                    f"{path}: {group}.{name} is converted from {turn[0]}, the dataset's modality.json says "
                    f"{key.rotation_type}: {fix}"
                )
    if unknown := [key for key in body.transform.video_keys if key not in modality.video]:
        raise DatasetError(f"{path}: video keys {unknown} are not in the dataset's {sorted(modality.video)}: {fix}")


def everything(dataset: "Dataset", *, deep: bool, progress: rich.progress.Progress | None) -> None:
    """Every row of every episode, and every video; with deep every frame is decoded."""
    path = dataset.folder / "meta/metadata.json"
    body = dataset.embodiment if path.is_file() else None
    outside = Outside(path)
    task = progress.add_task("checking episodes", total=len(dataset.episodes)) if progress else None
    packets = functools.cache(lerobot_video.packets)  # a file of many episodes is opened once
    for episode in dataset.episodes:
        rows = dataset.rows(episode.index)
        _rows(dataset, episode, rows)
        if body is not None:
            outside.add(body, rows)
            _rotations(dataset, episode, body, rows)
        _videos(dataset, episode, deep=deep, packets=packets)
        if progress and task is not None:
            progress.advance(task)
    outside.judge()


def _rows(dataset: "Dataset", episode: Episode, rows: dict[str, np.ndarray]) -> None:
    where = f"{dataset.layout.data[episode.index]} (episode {episode.index})"
    for name, values in rows.items():
        if not name.startswith(("state.", "action.")):
            continue
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise DatasetError(
                f"{where}: {name}[{column}] is {values[row, column]} in row {row}: drop or repair the episode"
            )
    for column in dataset.modality.annotation.values():
        if unknown := set(np.ravel(rows[column]).tolist()) - set(dataset.layout.tasks):
            raise DatasetError(f"{where}: {column} has {sorted(unknown)[:3]}, no indices of the dataset's tasks")
    if "timestamp" in rows:
        off = np.abs(np.ravel(rows["timestamp"]) * dataset.fps - np.arange(episode.length))
        if not (off <= TIMING).all():
            row = int(np.argmax(~(off <= TIMING)))
            raise DatasetError(
                f"{where}: timestamp of row {row} is {np.ravel(rows['timestamp'])[row]:g} s, at {dataset.fps:g} fps it "
                f"should be {row / dataset.fps:g} s: is fps in meta/info.json right?"
            )


def _rotations(dataset: "Dataset", episode: Episode, body: Embodiment, rows: dict[str, np.ndarray]) -> None:
    """Everything that is to be converted is a rotation."""
    for name in body.transform.rotations:
        try:
            body.scaling(*name.split(".", 1)).forward(rows[name])
        except EmbodimentError as error:
            where = f"{dataset.layout.data[episode.index]} (episode {episode.index})"
            raise DatasetError(f"{where}: {error}: drop or repair the episode, or correct rotation_type") from error


def _videos(dataset: "Dataset", episode: Episode, *, deep: bool, packets: Callable[[pathlib.Path], int]) -> None:
    layout, shapes = dataset.layout, dataset.layout.features
    for key, column in dataset.modality.video.items():
        clip = layout.clips.get((episode.index, column))
        if clip is None:
            dataset.frames(episode.index, key)
            continue
        most = episode.length if layout.shared else None
        if not layout.shared:
            _match(clip.path, packets(clip.path), episode)
        elif packets(clip.path) < (needed := round(clip.start * layout.fps) + episode.length):
            raise DatasetError(
                f"{clip.path} has {packets(clip.path)} frames, episode {episode.index} ends at frame {needed}: "
                "fetch or record it again"
            )
        if deep:
            number, height, width = lerobot_video.count(clip.path, fps=layout.fps, start=clip.start, most=most)
            _match(clip.path, number, episode)
            if (height, width) != lerobot_modality.shape(shapes[column])[:2]:
                raise DatasetError(
                    f"{clip.path}: frames are {height} x {width}, meta/info.json says {shapes[column]['shape']}"
                )


def _match(path: pathlib.Path, frames: int, episode: Episode) -> None:
    if frames != episode.length:
        raise DatasetError(
            f"{path} has {frames} frames, episode {episode.index} has {episode.length} rows: fetch or record it again"
        )


def belongs(path: pathlib.Path, body: Embodiment, dataset: "Dataset", indices: Iterable[int]) -> None:
    """DatasetError where an embodiment, of the file `path`, is not this dataset's robot: keys, widths, or statistics
    far from these episodes' values."""
    fits(path, body, dataset.modality)
    outside = Outside(path)
    for index in indices:
        outside.add(body, dataset.rows(index))
    outside.judge()


class Outside:
    """How many rows lie far outside an embodiment's recorded range, by key and dimension."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.found: dict[str, np.ndarray] = {}
        self.used: dict[str, float] = {}
        self.rows = 0

    def add(self, body: Embodiment, rows: dict[str, np.ndarray]) -> None:
        """Count one episode's rows that lie more than a whole range beyond minimum or maximum."""
        self.rows += len(next(iter(rows.values())))
        for group in GROUPS:
            for key, values in body.statistics[group].items():
                low, high = values["min"], values["max"]
                span = np.maximum(high - low, 1e-3 * np.maximum(1, np.maximum(np.abs(low), np.abs(high))))
                data = rows[f"{group}.{key}"]
                beyond = ((data < low - span) | (data > high + span)).sum(0)
                self.found[f"{group}.{key}"] = self.found.get(f"{group}.{key}", 0) + beyond
                moving = high > low
                if len(data) and moving.any():
                    used = float((np.ptp(data, axis=0) / span)[moving].max())
                    self.used[group] = max(self.used.get(group, 0.0), used)

    def judge(self) -> None:
        """DatasetError for the worst dimension, where it is far outside in more than 1 % of the rows."""
        for name, counts in self.found.items():
            worst = int(np.argmax(counts))
            if counts[worst] > OUTSIDE * self.rows:
                raise DatasetError(
                    f"{self.path}: the statistics look like another robot's: {name}[{worst}] lies far outside "
                    f"their range in {counts[worst]} of {self.rows} rows: write new ones with "
                    "python -m bridge.embodiment DATASET"
                )
        for group, used in self.used.items():
            if used < USED:
                raise DatasetError(
                    f"{self.path}: the statistics look like another robot's: no {group} moves through more than "
                    f"{used:.2%} of its range in any episode: write new ones with python -m bridge.embodiment DATASET"
                )
