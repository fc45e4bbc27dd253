"""The families suite of `eval.benchmark`: students of small puzzles on episodes drawn apart from those of training."""

import dataclasses
import json

from bridge import families
from eval import origin, page, puzzle_page, puzzle_rows, puzzles, report, runs, ticker
from eval.options import Config
from train import puzzles as training

COUNT = {"quick": 50, "standard": 200, "full": 1000}
"""Queries of each family."""


def benchmark(options: Config, url: str, *, command: str, split: str) -> report.Report:
    """Ask, judge, write the report folder with every answer in ARC Prize form."""
    students = sorted(runs.load(options.run, "last"), key=lambda run: run.seed)
    for run in students:
        check(run, url)
    if options.suite not in ("", training.URL) or options.control or options.resume:
        raise runs.RunError(f"{url} has the suite families alone, which has no --control and nothing to --resume")
    count, most = COUNT[options.level], students[0].record.student.grid.cells
    given = {"split": split, "seed": options.seed, "most": most}
    trained, new = ([family.name for family in part] for part in (families.FAMILIES, families.HELD_OUT))
    asked = {kind: puzzles.ask(trained, count, kind, **given) for kind in puzzles.CONDITIONS}
    strange = puzzles.ask(new, count, "normal", **given)
    with ticker.Ticker() as tick:
        found = {kind: [puzzles.solve(run.student, each, tick) for run in students] for kind, each in asked.items()}
        dial = [puzzles.dial(run.student, asked["normal"], tick) for run in students]
        held_out = [puzzles.solve(run.student, strange, tick) for run in students]
    context = dataclasses.replace(
        origin.context(students[0], "none", "none", command), teacher=students[0].record.teacher["provenance"]
    )
    results = puzzle_rows.Results(found, held_out, dial, most)
    clocked = puzzles.timed(students[0].student, asked["normal"][0])
    rows = puzzle_rows.rows(results, context)
    rows += clocked.rows(f"{puzzle_rows.suite(most)}.grid", context, seed=options.seed, note="one query, batch 1")
    made = report.Report(tuple(rows), origin.versions())
    report.write(options.out / "report.json", made)
    raw = options.out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "predictions.json").write_text(json.dumps(puzzles.predictions(found["normal"][0])))
    page.write(options.out, made, puzzle_page.drawn(found["normal"][0]))
    return made


def check(run: runs.Run, url: str) -> None:
    """RunError where a run solves no puzzles of the size that is asked for."""
    student = run.record.student
    if student.grid is None or student.vision.crop:
        raise runs.RunError(f"{run.folder} solves no puzzles: train one with --stage end-to-end --store families")
    if student.grid.cells != training.size(url):
        raise runs.RunError(
            f"{run.folder} solves puzzles of up to {student.grid.cells} cells a side, --store {url} holds others: "
            "leave --store out"
        )
