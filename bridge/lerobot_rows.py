"""The numbers of episodes: parquet rows of one episode, whichever file they lie in, split into modality keys."""

import dataclasses
import io
import pathlib

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc

from bridge import lerobot_files as files
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import Episode, Layout
from bridge.lerobot_modality import COLUMNS, Key, Modality


class Tables:
    """Rows of episodes; the file read last stays in memory, so that episodes of one file cost one read."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._last: tuple[pathlib.Path, pa.Table] | None = None

    def episode(self, episode: Episode) -> dict[str, np.ndarray]:
        """Every numeric column of one episode."""
        path, table = self.layout.data[episode.index], self.table(episode)
        names = [n for n in table.column_names if files.numeric(table.schema.field(n).type)]
        return {name: files.array(path, name, table[name]) for name in names}

    def images(self, episode: Episode, column: str, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, h, w, 3] of a camera whose images lie in the parquet file itself."""
        path, table = self.layout.data[episode.index], self.table(episode)
        pictures = []
        for entry in table[column].take(pa.array(rows)).to_pylist():
            data = entry.get("bytes") if isinstance(entry, dict) else entry
            if not isinstance(data, bytes):
                raise DatasetError(f"{path}: column {column!r} holds no image bytes; convert the dataset to videos")
            try:
                pictures.append(np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")))
            except OSError as error:
                raise DatasetError(f"{path}: an image of column {column!r} cannot be decoded ({error})") from error
        return np.stack(pictures)

    def table(self, episode: Episode) -> pa.Table:
        """All columns of one episode's rows."""
        path = self.layout.data[episode.index]
        if self._last is None or self._last[0] != path:
            self._last = path, files.read_table(path)
        table = self._last[1]
        if self.layout.shared:
            table = table.filter(pc.equal(table["episode_index"], episode.index))
        if table.num_rows != episode.length:
            raise DatasetError(
                f"{path} has {table.num_rows} rows of episode {episode.index}, the metadata says {episode.length}: "
                f"{files.RESUME}"
            )
        return table


def split(rows: dict[str, np.ndarray], modality: Modality, layout: Layout) -> dict[str, np.ndarray]:
    """The columns with those of state and action replaced by "state.KEY" and "action.KEY" float32 [n, d]."""
    found, used = {}, set()
    for group in COLUMNS:
        for name, key in modality.group(group).items():
            found[f"{group}.{name}"] = _part(rows, key, layout)
            used.add(key.column)
    return found | {name: values for name, values in rows.items() if name not in used}


def _part(rows: dict[str, np.ndarray], key: Key, layout: Layout) -> np.ndarray:
    if key.column not in rows:
        raise DatasetError(
            f"{layout.folder}: column {key.column!r} is missing or holds no numbers; it has {sorted(rows)}"
        )
    values = rows[key.column]
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] < key.end:
        raise DatasetError(
            f"{layout.folder}: column {key.column!r} has {values.shape[1]} values a row, modality.json reads "
            f"{key.start}:{key.end}"
        )
    return np.ascontiguousarray(values[:, key.start : key.end], np.float32)


def instruct(layout: Layout, modality: Modality) -> Layout:
    """The layout with the instruction from the annotation column for episodes that list several texts or none."""
    column = next(iter(modality.annotation.values()), None)
    unsure = [episode for episode in layout.episodes if len(set(episode.instructions)) != 1]
    if column is None or not unsure:
        return layout
    tables, changed = Tables(layout), {}
    for episode in unsure:
        task = int(np.ravel(tables.episode(episode)[column])[0]) if column in tables.episode(episode) else None
        if task not in layout.tasks:
            raise DatasetError(f"{layout.data[episode.index]}: {column} is {task}, no index of the dataset's tasks")
        changed[episode.index] = dataclasses.replace(episode, instruction=layout.tasks[task])
    return dataclasses.replace(layout, episodes=tuple(changed.get(e.index, e) for e in layout.episodes))
