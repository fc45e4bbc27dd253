"""Write robot episodes as LeRobot v2.1 with GR00T's modality.json; an episode counts once all of it is on disk."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bridge import lerobot_files as files
from bridge import lerobot_resume, lerobot_spec, lerobot_statistics, lerobot_video
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import CHUNK_SIZE, DATA_PATH, SPLITS, VIDEO_PATH
from bridge.lerobot_modality import COLUMNS, LABEL
from bridge.lerobot_spec import Spec


class Writer:
    """Adds episodes to a dataset folder. After every `add` the folder is a readable dataset.

    After an interruption: the same Spec with resume=True goes on after the last whole episode.
    """

    def __init__(self, folder: pathlib.Path, spec: Spec, *, resume: bool = False) -> None:
        self.folder, self.spec = folder, spec
        self.episodes: list[dict[str, Any]] = []
        self.tasks: dict[str, int] = {}
        if (folder / "meta").exists():
            if not resume:
                raise DatasetError(f"{folder} holds a dataset already: give another folder, or resume=True to go on")
            self.episodes, self.tasks = lerobot_resume.resume(folder, lerobot_spec.info(spec), self._columns)
        elif folder.exists() and (there := sorted(path.name for path in folder.iterdir())):
            raise DatasetError(f"{folder} is no dataset but holds {', '.join(there[:4])}: give a new folder")
        files.write_json(folder / "meta/modality.json", lerobot_spec.modality(spec))
        self._write_info()

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return sum(row["length"] for row in self.episodes)

    def add(
        self,
        *,
        frames: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray],
        action: Mapping[str, np.ndarray],
        instruction: str,
        labels: Mapping[str, np.ndarray] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Write one episode of n rows; returns its index.

        frames: uint8 [n, h, w, 3] per video key; state, action: [n, d], finite; labels: [n, d], NaN where absent.
        extra: what else meta/episodes.jsonl says of it ("split": train, validation or test; task, seed ...).
        DatasetError for data that breaks the Spec, or a full disk: the episodes before it stay readable.
        """
        extra = dict(extra or {})
        if extra.get("split", "train") not in SPLITS:
            raise DatasetError(f"split must be one of {', '.join(SPLITS)}, got {extra['split']!r}")
        if not isinstance(instruction, str) or not instruction.strip():
            raise DatasetError(f"instruction must be a text, got {instruction!r}: every episode needs one")
        rows = lerobot_spec.columns(self.spec, state, action, labels or {})
        length = lerobot_spec.check_frames(self.spec, frames, rows)
        task = self.tasks.get(instruction, len(self.tasks))
        rows |= lerobot_spec.counters(self.spec.fps, length, episode=len(self.episodes), first=self.rows, task=task)
        row = {"episode_index": len(self.episodes), "tasks": [instruction], "length": length, **extra}
        images = {lerobot_spec.VIDEO + key: frames[key] for key in self.spec.videos}
        before = self._sizes()
        try:
            self._write(row, rows, images)
        except OSError as error:
            self._undo(row, before)
            raise DatasetError(
                f"{self.folder}: an episode could not be written ({error.strerror or error}); "
                f"{len(self.episodes)} whole episodes are there: make room, then episodes.create(..., resume=True)"
            ) from error
        return row["episode_index"]

    def close(self) -> None:
        """Write meta/stats.json (GR00T's six statistics per column over all rows; labels have none)."""
        if not self.episodes:
            raise DatasetError(f"{self.folder}: no episode was added")
        paths = [self._data(row["episode_index"]) for row in self.episodes]
        columns = [*COLUMNS.values(), *lerobot_spec.COUNTERS]
        files.write_json(self.folder / "meta/stats.json", lerobot_statistics.dataset(paths, columns))

    def _write(self, row: dict[str, Any], rows: dict[str, np.ndarray], images: dict[str, np.ndarray]) -> None:
        """Videos, rows, then the lines; the line in episodes.jsonl comes last and makes the episode count."""
        index, instruction = row["episode_index"], row["tasks"][0]
        for column, frames in images.items():
            with _whole(self._video(index, column)) as part:
                lerobot_video.encode(part, frames, fps=self.spec.fps)
        with _whole(self._data(index)) as part:
            pq.write_table(lerobot_spec.table(rows), part)
        meta = self.folder / "meta"
        if instruction not in self.tasks:
            files.append_line(meta / "tasks.jsonl", {"task_index": len(self.tasks), "task": instruction})
        given = {name: values for name, values in rows.items() if not name.startswith(LABEL)}
        statistics = lerobot_statistics.episode(given, images)
        files.append_line(meta / "episodes_stats.jsonl", {"episode_index": index, "stats": statistics})
        files.append_line(meta / "episodes.jsonl", row)
        self.tasks.setdefault(instruction, len(self.tasks))
        self.episodes.append(row)
        self._write_info()

    def _write_info(self) -> None:
        totals = {
            "total_episodes": len(self.episodes),
            "total_frames": self.rows,
            "total_tasks": len(self.tasks),
            "total_videos": len(self.episodes) * len(self.spec.videos),
            "total_chunks": -(-len(self.episodes) // CHUNK_SIZE),
            "splits": {"train": f"0:{len(self.episodes)}"},
        }
        files.write_json(self.folder / "meta/info.json", lerobot_spec.info(self.spec) | totals)

    def _sizes(self) -> dict[pathlib.Path, int]:
        paths = [self.folder / "meta" / name for name in lerobot_resume.LISTS]
        return {path: path.stat().st_size if path.is_file() else 0 for path in paths}

    def _undo(self, row: dict[str, Any], before: dict[pathlib.Path, int]) -> None:
        """Remove what was written of an episode that does not count."""
        index = row["episode_index"]
        if row in self.episodes:  # it counts: only info.json is behind, and the next episode brings it up to date
            return
        for path in (self._data(index), *(self._video(index, column) for column in self._columns)):
            path.unlink(missing_ok=True)
        for path, size in before.items():
            if path.is_file():
                os.truncate(path, size)

    @property
    def _columns(self) -> list[str]:
        return [lerobot_spec.VIDEO + key for key in self.spec.videos]

    def _data(self, index: int) -> pathlib.Path:
        return self.folder / DATA_PATH.format(episode_chunk=index // CHUNK_SIZE, episode_index=index)

    def _video(self, index: int, column: str) -> pathlib.Path:
        name = VIDEO_PATH.format(episode_chunk=index // CHUNK_SIZE, video_key=column, episode_index=index)
        return self.folder / name


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name to write under; the file takes its own name once it is whole, and leaves nothing behind if it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
