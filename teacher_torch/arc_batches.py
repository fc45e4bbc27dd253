"""What post-training draws from ARC tasks: canvases and mosaics for the vision tower, episodes for the decoder."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bridge import arc, arc_content

MOSAIC = 0.7  # share of mosaics in vision batches: a plain ARC canvas is mostly white


@dataclasses.dataclass(frozen=True)
class Episode:
    """A task as it is asked.

    shown: demonstrations, uint8 cells [2, 30, 30] each; asked: one query, uint8 cells [1, 30, 30]; answer: int8 [h, w].
    The answer is for the loss and the score alone; nothing derived from it is shown.
    """

    shown: tuple[np.ndarray, ...]
    asked: np.ndarray
    answer: np.ndarray


def grids(tasks: Sequence[arc.Task]) -> list[np.ndarray]:
    """Every grid of the tasks, inputs and outputs."""
    found = [grid for task in tasks for pair in task.train + task.test for grid in (pair.input, pair.output)]
    return [grid for grid in found if grid is not None]


def canvases(pool: Sequence[np.ndarray], rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, 30, 30]: grids of the pool and mosaics of them, under any symmetry and recolouring."""
    return np.stack([_mosaic(pool, rng) if rng.random() < MOSAIC else arc.cells(_any(pool, rng)) for _ in range(size)])


def _any(pool: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    grid = pool[int(rng.integers(len(pool)))]
    return arc_content.dihedral(rng.permutation(10)[grid], int(rng.integers(8)))


def _mosaic(pool: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Grids of the pool side by side, row after row, until the canvas is covered; gaps stay outside."""
    canvas = np.full((2 * arc.SIDE, 2 * arc.SIDE), arc.OUTSIDE, np.uint8)
    top = 0
    while top < arc.SIDE:
        left = tallest = 0
        while left < arc.SIDE:
            grid = _any(pool, rng)
            height, width = grid.shape
            canvas[top : top + height, left : left + width] = grid
            left, tallest = left + width, max(tallest, height)
        top += tallest
    return canvas[: arc.SIDE, : arc.SIDE]


def draw(
    tasks: Sequence[arc.Task], rng: np.random.Generator, *, size: int, batches: int, most_shown: int
) -> list[list[Episode]]:
    """`batches` lists of `size` augmented training episodes; those of a list have answers of like size."""
    return group([_augmented(tasks[i], rng, most_shown) for i in rng.choice(len(tasks), size * batches)], rng, size)


def group(episodes: Sequence[Episode], rng: np.random.Generator, size: int) -> list[list[Episode]]:
    """Lists of `size` episodes with answers of like size, so that canvases waste little, in any order."""
    ordered = sorted(episodes, key=lambda episode: max(episode.answer.shape))
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _augmented(task: arc.Task, rng: np.random.Generator, most_shown: int) -> Episode:
    """One pair of the task asked, others shown, in any order: every pair of a training task may be either."""
    task = arc.augment(task, rng)
    pairs = [pair for pair in task.train + task.test if pair.output is not None]
    asked, *shown = (pairs[i] for i in rng.permutation(len(pairs)))
    return _episode(shown[:most_shown], asked)


def published(tasks: Sequence[arc.Task]) -> list[Episode]:
    """Every query of the tasks as published, all demonstrations shown in their order."""
    return [_episode(task.train, pair) for task in tasks for pair in task.test if pair.output is not None]


def shuffled(episode: Episode, rng: np.random.Generator) -> Episode:
    """The same demonstrations in another order: the augmentation that frozen features allow."""
    order = rng.permutation(len(episode.shown))
    return dataclasses.replace(episode, shown=tuple(episode.shown[i] for i in order))


def _episode(shown: Sequence[arc.Pair], asked: arc.Pair) -> Episode:
    frames = tuple(np.stack([arc.cells(pair.input), arc.cells(pair.output)]) for pair in shown)
    return Episode(frames, arc.cells(asked.input)[None], asked.output)
