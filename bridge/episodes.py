"""Robot episodes on disk (LeRobot v2.0, v2.1, v3.0): write, read, check, split.

As a command: what is in a dataset, and whether all of it can be used.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
import rich.box
import rich.console
import rich.progress
import rich.table

from bridge import embodiment as embodiments
from bridge import lerobot_check, lerobot_layout, lerobot_modality, lerobot_rows, lerobot_video, lerobot_writer
from bridge import transform as transforms
from bridge.embodiment import Embodiment
from bridge.lerobot_files import DatasetError
from bridge.lerobot_layout import SPLITS, Episode
from bridge.lerobot_writer import Spec, Writer

SEED = 0
HELD_OUT = 0.1


class Dataset:
    """A robot dataset. Everything cheap is checked when it is opened; `check` reads all of it.

    layout: files and episodes; modality: which column holds which key.
    """

    def __init__(self, folder: pathlib.Path | str) -> None:
        self.folder = pathlib.Path(folder)
        self.layout = lerobot_layout.read(self.folder)
        self.modality = lerobot_modality.read(self.folder, self.layout.features)
        lerobot_check.files_and_schemas(self.layout, self.modality)
        self.layout = lerobot_rows.instruct(self.layout, self.modality)
        self._tables = lerobot_rows.Tables(self.layout)
        self._by_index = {episode.index: episode for episode in self.episodes}

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """All episodes, in the order of their indices."""
        return self.layout.episodes

    @property
    def fps(self) -> float:
        """Rows and frames per second."""
        return self.layout.fps

    def episode(self, index: int) -> Episode:
        """The episode with this index; DatasetError where there is none."""
        if index not in self._by_index:
            raise DatasetError(f"{self.folder} has no episode {index}; it has {len(self.episodes)} episodes")
        return self._by_index[index]

    def rows(self, index: int) -> dict[str, np.ndarray]:
        """One episode's numbers: "state.KEY" and "action.KEY" float32 [n, d]; every other column by its own name.

        Columns "label.*" are simulator truth for losses and pictures, never an input to a policy.
        """
        episode = self.episode(index)
        return lerobot_rows.split(self._tables.episode(episode), self.modality, self.layout)

    def frames(self, index: int, key: str, positions: np.ndarray | None = None) -> np.ndarray:
        """uint8 RGB [n, h, w, 3] of one camera at these rows of the episode (None: all of them)."""
        episode = self.episode(index)
        if key not in self.modality.video:
            raise DatasetError(f"{self.folder} has no video {key!r}; it has {sorted(self.modality.video)}")
        rows = np.arange(episode.length) if positions is None else np.asarray(positions)
        if rows.size and not 0 <= rows.min() <= rows.max() < episode.length:
            raise DatasetError(f"episode {index} has rows 0..{episode.length - 1}, got {rows.min()}..{rows.max()}")
        column = self.modality.video[key]
        if self.layout.features[column]["dtype"] == "image":
            return self._tables.images(episode, column, rows)
        clip = self.layout.clips[index, column]
        return lerobot_video.decode(clip.path, rows, fps=self.fps, start=clip.start)

    def splits(self) -> dict[str, list[int]]:
        """{"train" | "validation" | "test": episode indices}: an episode's own split where it names one.

        The others: 10 % each, at least one, by a permutation with a fixed seed; below three episodes all train.
        """
        found: dict[str, list[int]] = {name: [] for name in SPLITS}
        for episode in self.episodes:
            if episode.split is not None:
                found[episode.split].append(episode.index)
        free = [episode.index for episode in self.episodes if episode.split is None]
        held = max(1, round(HELD_OUT * len(free))) if len(free) > 2 else 0
        order = np.random.default_rng(SEED).permutation(free).tolist()
        found["validation"] += order[:held]
        found["test"] += order[held : 2 * held]
        found["train"] += order[2 * held :]
        return {name: sorted(indices) for name, indices in found.items()}

    @functools.cached_property
    def embodiment(self) -> Embodiment:
        """From meta/metadata.json where the dataset has one, else measured over the training rows (see `measure`)."""
        path = self.folder / "meta/metadata.json"
        body = embodiments.load(path) if path.is_file() else self.measure()
        lerobot_check.fits(path, body, self.modality)
        return body

    def measure(self, tag: str | None = None, transform: embodiments.Transform | None = None) -> Embodiment:
        """Embodiment with statistics over all rows of the training episodes.

        tag: default the dataset's robot_type, else new_embodiment; transform: default that of official fine-tunes.
        """
        tag = tag or (self.layout.robot_type or "").lower() or "new_embodiment"
        indices = self.splits()["train"] or [episode.index for episode in self.episodes]
        parts = [self.rows(index) for index in indices]
        groups = {group: self.modality.group(group) for group in embodiments.GROUPS}
        rows = {
            group: {key: np.concatenate([part[f"{group}.{key}"] for part in parts]) for key in keys}
            for group, keys in groups.items()
        }
        names = [f"{group}.{key}" for group, keys in groups.items() for key in keys]
        return embodiments.from_data(
            tag,
            state=rows["state"],
            action=rows["action"],
            video=lerobot_modality.videos(self.modality, self.layout.features, self.fps),
            transform=transform or transforms.official(tag, tuple(self.modality.video), names),
            details=lerobot_modality.details(self.modality),
        )

    def check(self, *, deep: bool = True, progress: rich.progress.Progress | None = None) -> None:
        """Read every row (NaN, ranges against the statistics) and count every video's frames; the first fault raises.

        deep: also decode every frame. DatasetError names the file and the fix.
        """
        lerobot_check.everything(self, deep=deep, progress=progress)


def open(folder: pathlib.Path | str) -> Dataset:
    """A dataset for reading; DatasetError where its metadata, schemas or row counts are not right."""
    return Dataset(folder)


def create(folder: pathlib.Path | str, spec: Spec, *, resume: bool = False) -> Writer:
    """A writer of a new dataset; with resume, of one that was begun: it goes on after the last whole episode."""
    return lerobot_writer.Writer(pathlib.Path(folder), spec, resume=resume)


def chunks(rows: np.ndarray, positions: np.ndarray, horizon: int, *, absolute: bool) -> np.ndarray:
    """[p, horizon, a]: the actions from each position on, of one key's rows [n, a].

    Beyond the end the last action is repeated for absolute keys and zero for relative ones, as in GR00T.
    """
    index = np.asarray(positions)[:, None] + np.arange(horizon)
    if index.size and not 0 <= np.min(positions) <= np.max(positions) < len(rows):
        raise DatasetError(f"positions must be rows 0..{len(rows) - 1}, got {np.min(positions)}..{np.max(positions)}")
    found = rows[np.minimum(index, len(rows) - 1)]
    return found if absolute else np.where((index < len(rows))[..., None], found, np.zeros_like(found))


def describe(dataset: Dataset, console: rich.console.Console) -> None:
    """Print what a dataset holds."""
    layout, splits = dataset.layout, dataset.splits()
    rows = sum(episode.length for episode in dataset.episodes)
    console.print(
        f"{dataset.folder}: LeRobot {layout.version}, robot {layout.robot_type}, {len(dataset.episodes)} episodes, "
        f"{rows} rows at {layout.fps:g} Hz, {len(layout.tasks)} instructions"
    )
    console.print(", ".join(f"{name} {len(indices)} episodes" for name, indices in splits.items()))
    table = rich.table.Table("key", "column", "values", "kind", box=rich.box.SIMPLE)
    for group in embodiments.GROUPS:
        for name, key in dataset.modality.group(group).items():
            kind = key.rotation_type or ("absolute" if key.absolute else "relative")
            table.add_row(f"{group}.{name}", key.column, f"{key.start}:{key.end}", kind)
    for name, column in dataset.modality.video.items():
        feature: Mapping = layout.features[column]
        table.add_row(f"video.{name}", column, " x ".join(map(str, feature["shape"])), feature["dtype"])
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code: 0, or 2 with the first fault."""
    parser = argparse.ArgumentParser(prog="python -m bridge.episodes", description=__doc__)
    parser.add_argument("dataset", type=pathlib.Path, help="folder of a LeRobot dataset (the one that has meta/ in it)")
    parser.add_argument("--quick", action="store_true", help="count the videos' frames, but do not decode them")
    options = parser.parse_args(arguments)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    try:
        dataset = open(options.dataset)
        describe(dataset, console)
        with rich.progress.Progress(console=console, transient=True) as progress:
            dataset.check(deep=not options.quick, progress=progress)
    except (DatasetError, embodiments.EmbodimentError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print("no faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
