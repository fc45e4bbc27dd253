"""The arc suite of students that solve grids: ARC-AGI-1's evaluation tasks, and ARC-AGI-2's for transfer."""

import json

import numpy as np

from bridge import arc
from eval import arc_grid_page, arc_grid_rows, arc_grids, origin, page, report, runs, ticker
from eval.options import Config

TASKS = {"quick": 20, "standard": 400, "full": 400}
"""Of each set, at most."""


def benchmark(options: Config, *, command: str) -> report.Report:
    """Ask, vote, judge; write the report folder with every attempt in ARC Prize form."""
    students = sorted(runs.load(options.run, "last"), key=lambda run: run.seed)
    teacher = students[0].record.teacher["provenance"]
    context = origin.context(students[0], teacher, "none", command)
    seen = arc_grids.views(arc_grids.VIEWS if not options.short else 2, seed=options.seed)
    rows, pictures, raw = [], [], options.out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for version in arc.VERSIONS:
        asked = arc_grids.queries(some(arc.splits(version)["test"], TASKS[options.level], options.seed))
        with ticker.Ticker() as tick:
            found = [arc_grids.solve(run.student, asked, seen, tick) for run in students]
        book = arc_grid_rows.Book(f"arc{version}", found, context, options.draws, options.seed)
        rows += book.rows()
        for run, each in zip(students, found, strict=True):
            path = raw / f"predictions_arc{version}_seed_{run.seed}.json"
            path.write_text(json.dumps(arc_grids.predictions(each)), encoding="utf-8")
        pictures += arc_grid_page.drawn(found[0], title=f"ARC-AGI-{version}")
    made = report.Report(tuple(rows), origin.versions())
    report.write(options.out / "report.json", made)
    page.write(options.out, made, pictures)
    return made


def some(tasks: tuple[arc.Task, ...], most: int, seed: int) -> list[arc.Task]:
    """At most so many, drawn once for a seed."""
    chosen = np.random.default_rng(seed).permutation(len(tasks))[:most]
    return [tasks[i] for i in sorted(chosen.tolist())]
