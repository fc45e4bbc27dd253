"""Small puzzles as a source of batches: generated when they are read, never the same twice, as a pure function of the
position."""

import dataclasses

import numpy as np

from bridge import arc, families, manifest
from student_jax import config as student_config
from student_jax import presets
from train import arc_tasks, config, data

URL = "families"
"""What --store calls them; `families-10` for sides up to ten cells."""
ASKED = families.SHOWN + 1
"""Pairs of an episode, each asked in turn."""
LENGTH = {"train": 1 << 16, "validation": 64}
"""Episodes of each family; a training run never comes to the end."""


def size(url: str) -> int:
    """Cells of a side at most that a --store of puzzles asks for; 0 where it is the name of something else."""
    name, _, side = url.partition("-")
    if name != URL or not (url == URL or side.isdecimal()):
        return 0
    most = int(side or families.MOST)
    if not families.MOST <= most <= arc.SIDE:
        raise config.ConfigError(f"--store {url}: sides of {families.MOST} to {arc.SIDE} cells can be drawn")
    return most


@dataclasses.dataclass(frozen=True)
class Generated:
    """Stands where a feature store's reader does: no teacher, nothing on disk."""

    most: int = families.MOST
    """Cells of a side at most."""

    @property
    def manifest(self) -> manifest.Manifest:
        """Which families, and how they are drawn."""
        side = self.most
        teacher = manifest.Teacher(
            id="none", digest="none", provenance="none", licence="none", tile=side * arc_tasks.PIXELS, grid=side,
            width=1, max_tiles=1, columns=1, rows=1, thumbnail=False, layers=0,
        )  # fmt: skip
        names = [family.name for family in families.FAMILIES]
        return manifest.Manifest(URL, teacher, {}, {}, (), {"split": ()}, {"families": names, "asked": ASKED})


class Episodes:
    """The episodes of one split: family by family in turn."""

    def __init__(self, split: str, most: int = families.MOST):
        if split not in LENGTH:
            raise data.DataError(f"training never reads split {split!r}: only eval.benchmark opens it")
        self.split, self.families, self.most, self.tokens = split, families.FAMILIES, most, most**2

    def __len__(self) -> int:
        return len(self.families) * LENGTH[self.split]

    def read(self, positions: np.ndarray) -> data.Batch:
        """video uint8 [b, 8, 1, s, s, 3] (pairs' inputs and outputs in turn), answers uint8 [b, 4, most, most], family
        int32 [b]; asked bool [b, 4] and valid bool [b], all true."""
        drawn = [self.cells(int(position)) for position in positions]
        cells = np.stack(drawn)
        return {
            "video": arc_tasks.render(cells)[:, :, None],
            "answers": cells[:, 1::2],
            "asked": np.ones((len(positions), ASKED), bool),
            "family": (np.asarray(positions) % len(self.families)).astype(np.int32),
            "valid": np.ones(len(positions), bool),
        }

    def fetch(self, name: str, positions: np.ndarray) -> np.ndarray:
        """One part of the samples."""
        return self.read(positions)[name]

    def cells(self, position: int) -> np.ndarray:
        """uint8 [8, most, most]: input and output of every pair, 10 outside the grids."""
        number, which = divmod(position, len(self.families))
        family = self.families[which]
        task = families.episode(family, families.stream(family.name, self.split, number), most=self.most)
        return np.stack(
            [canvas(grid, self.most) for pair in (*task.train, *task.test) for grid in (pair.input, pair.output)]
        )


def canvas(grid: np.ndarray, most: int) -> np.ndarray:
    """Grid [h, w] -> uint8 [most, most], the grid at the top left, 10 outside it."""
    made = np.full((most, most), arc.OUTSIDE, np.uint8)
    made[: grid.shape[0], : grid.shape[1]] = grid
    return made


def student(preset: str, most: int = families.MOST) -> student_config.StudentConfig:
    """The student of a preset for these puzzles."""
    return presets.puzzles(preset, cells=most, pixels=arc_tasks.PIXELS)
