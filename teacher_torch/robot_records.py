"""Records of a robot dataset: every so many rows of its episodes, with the numbers and pictures of each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from bridge import episodes, lerobot_check, lerobot_modality
from bridge.embodiment import Embodiment
from bridge.lerobot_files import DatasetError
from teacher_torch import plan, robot_samples

EPISODES_HELD = 8  # whose rows stay in memory: records are read in order


@dataclasses.dataclass(frozen=True)
class Records:
    """Which observations are extracted: episode and row int64 [n], and the split and instruction of each."""

    episode: np.ndarray
    row: np.ndarray
    split: tuple[str, ...]
    instruction: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)


def choose(dataset: episodes.Dataset, splits: Sequence[str], *, limit: int | None, stride: int) -> Records:
    """Every `stride`-th row of the first `limit` episodes of every split (all if None), in the dataset's order."""
    found = dataset.splits()
    plan.check_choice(splits, found, limit, what="episode")
    if stride < 1:
        raise plan.PlanError(f"--stride {stride}: expected 1 (every row) or more")
    chosen = [(split, dataset.episode(index)) for split in found if split in splits for index in found[split][:limit]]
    if not chosen:
        raise DatasetError(f"{dataset.folder} has no episodes in {', '.join(splits)}: name other --splits")
    rows = [np.arange(0, episode.length, stride) for _, episode in chosen]
    return Records(
        np.repeat([episode.index for _, episode in chosen], [len(part) for part in rows]),
        np.concatenate(rows),
        tuple(split for (split, _), part in zip(chosen, rows, strict=True) for _ in part),
        tuple(episode.instruction for (_, episode), part in zip(chosen, rows, strict=True) for _ in part),
    )


def check(dataset: episodes.Dataset, body: Embodiment, records: Records, where: pathlib.Path) -> str:
    """sha256 of the records' episodes; DatasetError where the dataset is damaged or the statistics another robot's.

    where: the file that the embodiment came from, for the error. The digest is of all numbers and of the videos' sizes.
    """
    dataset.check(deep=False)
    lerobot_check.fits(where, body, dataset.modality)
    outside, digest = lerobot_check.Outside(where), hashlib.sha256()
    for index in np.unique(records.episode).tolist():
        rows = dataset.rows(index)
        outside.add(body, rows)
        clips = [dataset.layout.clips.get((index, column)) for column in dataset.modality.video.values()]
        sizes = [clip.path.stat().st_size for clip in clips if clip]
        digest.update(f"{index} {dataset.episode(index).instruction} {sizes}".encode())
        for name in sorted(rows):
            digest.update(np.ascontiguousarray(rows[name]).tobytes())
    outside.judge()
    return digest.hexdigest()


def objects(dataset: episodes.Dataset) -> int | None:
    """How many objects the simulator's labels place, by label.objects [o * 3]; None where there are no such labels."""
    widths = {name: int(np.prod(feature["shape"])) for name, feature in dataset.layout.features.items()}
    if robot_samples.OBJECTS not in widths:
        return None
    count, rest = divmod(widths[robot_samples.OBJECTS], 3)
    cameras = len(dataset.modality.video)
    if rest or widths.get(robot_samples.PIXELS, count * cameras * 2) != count * cameras * 2:
        raise DatasetError(
            f"{dataset.folder}: {robot_samples.OBJECTS} must hold 3 values per object and {robot_samples.PIXELS} 2 per "
            f"camera and object; they have {widths[robot_samples.OBJECTS]} and {widths.get(robot_samples.PIXELS)}"
        )
    return count


def picture(dataset: episodes.Dataset, body: Embodiment) -> tuple[int, int] | None:
    """Height and width of the frames; None where the cameras differ."""
    features, video = dataset.layout.features, dataset.modality.video
    sizes = {lerobot_modality.shape(features[video[key]])[:2] for key in body.transform.video_keys}
    return sizes.pop() if len(sizes) == 1 else None


class Observations:
    """Reads the records' numbers and pictures."""

    def __init__(self, dataset: episodes.Dataset, body: Embodiment, records: Records) -> None:
        self.dataset, self.body, self.records = dataset, body, records
        self.cameras = [list(dataset.modality.video).index(key) for key in body.transform.video_keys]
        self._rows = functools.lru_cache(EPISODES_HELD)(dataset.rows)

    def numbers(self, at: Sequence[int]) -> dict[str, np.ndarray]:
        """state float32 [n, d] and demonstration [n, h, a], normalised; where the dataset has simulator truth, which no
        model is given, objects [n, o, 3] and pixels [n, v, o, 2]."""
        parts = [self._part(episode, rows) for episode, rows in self._by_episode(at)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def frames(self, at: Sequence[int]) -> list[list[np.ndarray]]:
        """uint8 [h, w, 3] of every view of every record, as the cameras gave them."""
        return [shown for episode, rows in self._by_episode(at) for shown in self._views(episode, rows)]

    def _views(self, episode: int, rows: np.ndarray) -> list[list[np.ndarray]]:
        features, video = self.dataset.layout.features, self.dataset.modality.video
        views = []
        for key in self.body.transform.video_keys:
            found, expected = self.dataset.frames(episode, key, rows), lerobot_modality.shape(features[video[key]])
            if found.shape[1:] != expected:
                raise DatasetError(
                    f"{self.dataset.folder}: frames of {key} in episode {episode} are {list(found.shape[1:])}, "
                    f"meta/info.json says {list(expected)}: fetch the video again, or mend info.json"
                )
            views.append(found)
        return [list(shown) for shown in zip(*views, strict=True)]

    def _by_episode(self, at: Sequence[int]) -> list[tuple[int, np.ndarray]]:
        """(episode, its rows), for every run of records of one episode."""
        episode, row = self.records.episode[list(at)], self.records.row[list(at)]
        cuts = np.flatnonzero(np.diff(episode)) + 1
        return [(int(e[0]), r) for e, r in zip(np.split(episode, cuts), np.split(row, cuts), strict=True)]

    def _part(self, episode: int, at: np.ndarray) -> dict[str, np.ndarray]:
        rows = self._rows(episode)
        taken = {name: values[at] for name, values in rows.items()}
        found = {
            "state": robot_samples.normalised(self.body, taken, "state"),
            "demonstration": robot_samples.chunks(self.body, rows, at),
        }
        if robot_samples.OBJECTS in taken:
            found["objects"] = taken[robot_samples.OBJECTS].reshape(len(at), -1, 3)
        if "objects" in found and robot_samples.PIXELS in taken:
            cameras = len(self.dataset.modality.video)
            found["pixels"] = taken[robot_samples.PIXELS].reshape(len(at), cameras, -1, 2)[:, self.cameras]
        return found
