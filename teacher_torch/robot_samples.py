"""Observations of a robot dataset as training examples: frames, state, words, and the actions that followed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from bridge import embodiment as embodiments
from bridge import episodes
from bridge.embodiment import Embodiment

PIXELS, OBJECTS = "label.pixels", "label.objects"


@dataclasses.dataclass(frozen=True)
class Batch:
    """frames uint8 [b, v, h, w, 3]; state float32 [b, 1, d] and actions float32 [b, h, a] normalised; b instructions.

    Simulator truth where the dataset has it, else None: pixels float32 [b, v, o, 2], (row, column) in 0..1 of every
    view, and objects float32 [b, o, 3], metres.
    """

    frames: np.ndarray
    state: np.ndarray
    actions: np.ndarray
    instruction: tuple[str, ...]
    pixels: np.ndarray | None
    objects: np.ndarray | None


class Samples:
    """Every `stride`-th row of one split's episodes. Frames are kept in memory once read, while they fit."""

    def __init__(
        self, dataset: episodes.Dataset, body: Embodiment, split: str, *, stride: int = 1, cache_gib: float = 4.0
    ) -> None:
        self.dataset, self.body, self.split = dataset, body, split
        self.episodes = dataset.splits()[split]
        if not self.episodes:
            raise episodes.DatasetError(f"{dataset.folder} has no {split} episodes: record more, or name its splits")
        parts = [self._rows(index, stride) for index in self.episodes]
        lengths = [len(part["state"]) for part in parts]
        self.episode = np.repeat(self.episodes, lengths)
        self.row = np.concatenate([np.arange(n) * stride for n in lengths])
        self._arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._frames: dict[int, np.ndarray] = {}
        self._room, self._stride = int(cache_gib * 2**30), stride

    def __len__(self) -> int:
        return len(self.row)

    @property
    def places(self) -> np.ndarray | None:
        """Where the objects are in every view, float32 [n, v, o, 2]; None if the dataset does not say."""
        return self._arrays.get("pixels") if "objects" in self._arrays else None

    @functools.cached_property
    def centre(self) -> np.ndarray:
        """Mean position of the objects in space, float32 [3]."""
        return np.nanmean(self._arrays["objects"], axis=(0, 1))

    @functools.cached_property
    def spread(self) -> np.ndarray:
        """Standard deviation of the objects' positions, float32 [3]."""
        return np.nanstd(self._arrays["objects"], axis=(0, 1)) + 1e-6

    def read(self, positions: np.ndarray) -> Batch:
        """The examples at these positions, 0 .. len."""
        taken = {name: array[positions] for name, array in self._arrays.items()}
        words = tuple(self.dataset.episode(int(e)).instruction for e in self.episode[positions])
        frames = np.stack([self._frame(int(self.episode[p]), int(self.row[p])) for p in positions])
        return Batch(frames, taken["state"], taken["actions"], words, taken.get("pixels"), taken.get("objects"))

    def _rows(self, index: int, stride: int) -> dict[str, np.ndarray]:
        rows = self.dataset.rows(index)
        at = np.arange(0, self.dataset.episode(index).length, stride)
        parts = {"state": normalised(self.body, rows, "state")[at][:, None], "actions": chunks(self.body, rows, at)}
        if PIXELS in rows:  # in the order of the dataset's cameras; the body may see them in another
            cameras = list(self.dataset.modality.video)
            order = [cameras.index(key) for key in self.body.transform.video_keys]
            parts["pixels"] = rows[PIXELS][at].reshape(len(at), len(cameras), -1, 2)[:, order]
        if OBJECTS in rows:
            parts["objects"] = rows[OBJECTS][at].reshape(len(at), -1, 3)
        return parts

    def _frame(self, episode: int, row: int) -> np.ndarray:
        """uint8 [v, h, w, 3]."""
        held = self._frames.get(episode)
        if held is None:
            rows = np.arange(0, self.dataset.episode(episode).length, self._stride)
            views = [self.dataset.frames(episode, key, rows) for key in self.body.transform.video_keys]
            held = np.stack(views, axis=1)
            if held.nbytes <= self._room:
                self._room -= held.nbytes
                self._frames[episode] = held
        return held[row // self._stride]


def normalised(body: Embodiment, rows: dict[str, np.ndarray], group: str) -> np.ndarray:
    """One group's values of an episode, normalised: float32 [n, d]."""
    values = {key: rows[f"{group}.{key}"] for key in body.dimensions(group)}
    return embodiments.normalise(body, values, group=group).astype(np.float32)


def chunks(body: Embodiment, rows: dict[str, np.ndarray], at: np.ndarray) -> np.ndarray:
    """Normalised actions float32 [p, horizon, a] that follow these rows of an episode, each itself included."""
    parts = {}
    for key in body.dimensions("action"):
        absolute = bool(body.modalities["action"][key]["absolute"])
        parts[key] = episodes.chunks(rows[f"action.{key}"], at, body.transform.horizon, absolute=absolute)
    return embodiments.normalise(body, parts, group="action").astype(np.float32)


class Ahead:
    """Calls make(step) one step ahead in a thread; make must depend on the step alone."""

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self._make, self._pool = make, concurrent.futures.ThreadPoolExecutor(1)
        self._waiting: dict[int, concurrent.futures.Future] = {}

    def __call__(self, step: int) -> Batch:
        """make(step)."""
        waiting = self._waiting.pop(step, None)
        self._waiting = {step + 1: self._pool.submit(self._make, step + 1)}
        return waiting.result() if waiting else self._make(step)
