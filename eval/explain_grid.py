"""How a student of grids came to an answer: what each demonstration was good for (the answer without it), what each
module spent and why it stopped, how sure it is."""

import hashlib
import html
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bridge import arc, families
from eval import arc_grids, artifact, explain_page, export, runs
from eval.grid_thought import Thinker, Thought
from eval.page import STYLE
from eval.pictures import png
from eval.puzzles import rectangle
from student_jax import irp
from train import arc_tasks

NAMES = tuple(family.name for family in (*families.FAMILIES, *families.HELD_OUT))
COLUMNS = ("module", "steps", "stopped by", "ATP granted", "ATP spent", "energy")


TASK = "recolour"
Arrays = dict[str, np.ndarray]


def explain(run: runs.Run, task: str, goal: int, condition: str, atp: float) -> tuple[dict[str, Any], Arrays, str]:
    """(what was said, all that the student was given, the page). RunError for a task or condition that there is not."""
    if condition != "normal":
        raise runs.RunError(f"--condition {condition}: nothing disturbs a grid")
    student = run.record.student
    most = 0 if student.vision.crop else student.grid.cells
    query = find(task, goal, most=most)
    cells = frames(query, most=most)
    found = record(Thinker(run.student), cells, atp=atp)
    said = rectangle(np.array(found["answer"], np.uint8))
    solved = said is not None and np.array_equal(said, query.answer)
    told = {"policy": digest(run), "task": task, "success": solved, "decisions": [found]}
    return told, {"cells": cells}, page(found, query, solved=solved)


def again(run: runs.Run, about: dict[str, Any], given: Arrays) -> tuple[str, list[dict[str, Any]]]:
    """(digest of the weights, the record made once more)."""
    cells = given.get("cells")
    if (
        cells is None
        or cells.ndim != 3
        or cells.shape[1] != cells.shape[2]
        or cells.dtype != np.uint8
        or cells.max(initial=0) > arc.OUTSIDE
    ):
        raise runs.RunError("the records are damaged (no cells 0..10): explain anew")
    return digest(run), [record(Thinker(run.student), cells, atp=about["atp"])]


def digest(run: runs.Run) -> str:
    """sha256 of the weights."""
    return artifact.digest(export.split(run.student)[0])


def find(name: str, number: int, *, most: int) -> arc_grids.Query:
    """A query: of a family, its `number`-th validation episode; of a task of ARC's training or validation split, its
    `number`-th test input. RunError where there is none. most: cells of a side, of a student of puzzles."""
    if name in NAMES:
        (*_, task) = families.episodes([name], "validation", number + 1, most=most or families.MOST)
        return arc_grids.Query(task, 0)
    if most:
        raise runs.RunError(f"--task {name}: this student solves puzzles; there are {', '.join(NAMES)}")
    for task in (*arc_tasks.known("train"), *arc_tasks.known("validation")):
        if task.id == name and number < len(task.test):
            return arc_grids.Query(task, number)
    raise runs.RunError(
        f"--task {name} --goal {number}: no task of ARC to train on or validate with so many test inputs, no family; "
        "evaluation tasks are for the report alone"
    )


def frames(query: arc_grids.Query, *, most: int) -> np.ndarray:
    """Cells uint8 [2 k + 1, n, n]: the demonstrations and the query; never its output."""
    plain = arc_grids.views(1, seed=0)[0]
    return query.frames(plain, most or query.canvas)


def record(thinker: Thinker, cells: np.ndarray, *, atp: float) -> dict[str, Any]:
    """Everything about one answer, as plain data."""
    video = arc_tasks.render(cells)[None, :, None]
    said = thinker(video, atp=atp)
    found = {
        "inputs": hashlib.sha256(cells.tobytes()).hexdigest(),
        "answer": said.codes[0].tolist(),
        "modules": {name: account(one) for name, one in said.accounts.items()},
        "atp": float(said.atp[0]),
        "confidence": 1.0 - float(said.energy[0]),
        "without": without(thinker, video, said, atp=atp),
    }
    return found | {"sentence": sentence(found)}


def without(thinker: Thinker, video: np.ndarray, said: Thought, *, atp: float) -> list[dict[str, float]]:
    """For every demonstration what hiding it does: cells that change, confidence that is left."""
    pairs = video.shape[1] // 2
    shown = np.ones((pairs, video.shape[1]), bool)
    for pair in range(pairs):
        shown[pair, 2 * pair : 2 * pair + 2] = False
    other = thinker(np.repeat(video, pairs, axis=0), atp=atp, shown=shown)
    changed = (other.codes != said.codes).sum(axis=(1, 2))
    return [{"cells": int(n), "confidence": 1.0 - float(e)} for n, e in zip(changed, other.energy, strict=True)]


def account(one: Any) -> dict[str, Any]:
    """One module's account."""
    steps = int(one.steps[0])
    return {
        "steps": steps,
        "halted": irp.Reason(int(one.reason[0])).name.lower(),
        "granted_atp": float(one.granted[0]),
        "spent_atp": float(one.spent[0]),
        "energy": [float(value) for value in one.energy[0][: steps + 1]],
    }


def sentence(found: dict[str, Any]) -> str:
    """The answer in one plain sentence."""
    changes = [one["cells"] for one in found["without"]]
    leaned = f"leaned most on demonstration {int(np.argmax(changes)) + 1} (without it {max(changes)} cells change)"
    if not max(changes, default=0):
        leaned = "would have said the same without any one of them"
    grid = rectangle(np.array(found["answer"], np.uint8))
    shape = "no rectangle, so no answer" if grid is None else f"a grid of {grid.shape[0]} x {grid.shape[1]}"
    steps = sum(one["steps"] for one in found["modules"].values())
    return (
        f"From {len(changes)} demonstrations it said {shape}, {leaned}, in {steps} refinement steps for "
        f"{found['atp']:.1f} ATP, {found['confidence']:.0%} sure that every cell is right."
    )


def page(found: dict[str, Any], query: arc_grids.Query, *, solved: bool) -> str:
    """The page of one answer."""
    title = html.escape(f"{query.task.id}: {'solved' if solved else 'failed'}")
    head = "".join(f"<th>{text}</th>" for text in COLUMNS)
    lines = [
        (name, str(one["steps"]), one["halted"], f"{one['granted_atp']:.1f}", f"{one['spent_atp']:.1f}",
         " → ".join(f"{value:.2f}" for value in one["energy"]))
        for name, one in found["modules"].items()
    ]  # fmt: skip
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in line) + "</tr>" for line in lines)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>{html.escape(found['sentence'])}</p>\n{explain_page.image(drawn(found, query))}\n"
        f'<div class="scroll"><table><tr>{head}</tr>\n{body}\n</table></div>\n</body></html>\n'
    )


def drawn(found: dict[str, Any], query: arc_grids.Query) -> bytes:
    """Demonstrations with what each was good for, the query, what was said, what is right."""
    pairs = query.task.train
    figure = Figure(figsize=(1.7 * (len(pairs) + 2), 3.6), layout="constrained")
    axes = figure.subplots(2, len(pairs) + 2, squeeze=False)
    for column, (pair, one) in enumerate(zip(pairs, found["without"], strict=True)):
        title = f"without: {one['cells']} cells,\n{one['confidence']:.0%} sure"
        _show(axes[:, column], pair.input, pair.output, title)
    asked = query.task.test[query.index].input
    _show(axes[:, -2], asked, rectangle(np.array(found["answer"], np.uint8)), "asked, and said")
    _show(axes[:, -1], None, query.answer, "right")
    return png(figure)


def _show(axes: np.ndarray, upper: np.ndarray | None, lower: np.ndarray | None, title: str) -> None:
    for axis, grid in zip(axes, (upper, lower), strict=True):
        axis.set(xticks=[], yticks=[])
        if grid is None:
            axis.set_axis_off()
        else:
            axis.imshow(arc.PALETTE[grid])
    axes[0].set_title(title, fontsize=7)
