"""The arc suite of students that solve grids: ARC-AGI-1's evaluation tasks, and ARC-AGI-2's for transfer."""

import dataclasses
import json
import re
from collections.abc import Sequence

import numpy as np

from bridge import arc, rearc, store
from eval import (
    arc_grid_page,
    arc_grid_rows,
    arc_grids,
    contestants,
    origin,
    page,
    probe,
    report,
    runs,
    seed_grids,
    teacher,
    ticker,
)
from eval.arc_grids import Attempts, Query
from eval.options import Config

TASKS = {"quick": 20, "standard": 400, "full": 400}
"""Of each set, at most."""
STUDENT, PROBE = "student", "probe"
REARC = "rearc"
TITLES = {"arc1": "ARC-AGI-1", "arc2": "ARC-AGI-2", REARC: "RE-ARC"}
FRESH = 100
"""Rules of ARC-1's training split at most, a fresh instance of each."""
KNOWN = "fresh instances of rules that were trained: what was learned, not whether new rules are read"
TOLD = "cut to the true size, which it cannot tell; reads the teacher's tokens"


@dataclasses.dataclass(frozen=True)
class Named:
    """Students (seeds) of one name."""

    name: str
    runs: Sequence[runs.Run]

    @property
    def original(self) -> bool:
        """Whether they are the user's original student, which needs the store."""
        return self.runs[0].record.student.seed is not None


def benchmark(options: Config, reader: store.Reader, url: str, *, command: str, split: str) -> report.Report:
    """Ask, vote, judge; write the report folder with every attempt in ARC Prize form."""
    cast, sets = load(options, reader, url), published(split, TASKS[options.level], options.seed)
    (options.out / "raw").mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    for dataset, asked in sets.items():
        books = judged(options, reader, cast, dataset, asked, command, split)
        rows += compared(books)
        pictures += arc_grid_page.drawn(books[STUDENT].found[0], title=TITLES[dataset])
    rows += clocked(cast[0].runs[0], sets["arc1"], options, command)
    made = report.Report(tuple(rows), origin.versions())
    report.write(options.out / "report.json", made)
    page.write(options.out, made, pictures)
    return made


def judged(
    options: Config,
    reader: store.Reader,
    cast: Sequence[Named],
    dataset: str,
    asked: Sequence[Query],
    command: str,
    split: str,
) -> dict[str, arc_grid_rows.Book]:
    """What everybody said of one set of tasks, the teacher's probe among them where it could be asked."""
    books = {}
    with ticker.Ticker() as tick:
        for named in cast:
            if named.original and reader.manifest.extraction.get("dataset", "arc1") != dataset:
                continue
            found = solved(named, reader, asked, options, tick, split)
            keep(options.out / "raw", dataset, named, found)
            books[named.name] = book(options, dataset, named, found, command)
    return books if dataset == REARC else books | probed(options, reader, asked, books[STUDENT])


def compared(books: dict[str, arc_grid_rows.Book]) -> list[report.Row]:
    """Everybody's rows, those who cannot think, and the students beside the others."""
    mine, probe_book = books[STUDENT], books.get(PROBE)
    rows = [row for each in books.values() if each.found for row in each.rows()] + mine.trivial()
    rows += mine.share_of(probe_book) if probe_book else []
    others = [each for name, each in books.items() if name != STUDENT and each.found]
    return rows + [row for each in others for row in mine.gain(each)]


def published(split: str, most: int, seed: int) -> dict[str, list[Query]]:
    """The queries by data set: both evaluation sets, and where its generators are installed RE-ARC."""
    found = {f"arc{version}": some(arc.splits(version)[split], most, seed) for version in arc.VERSIONS}
    if rearc.available():
        rules = some(arc.splits(1)["train"], min(most, FRESH), seed)
        found[REARC] = list(filter(None, (fresh(task.id, seed) for task in rules)))
    return {dataset: arc_grids.queries(tasks) for dataset, tasks in found.items() if tasks}


def fresh(rule: str, seed: int) -> arc.Task | None:
    """An instance of a rule; None where its generator gives too few different pairs."""
    try:
        return rearc.task(rule, seed)
    except rearc.ReArcError:
        return None


def load(options: Config, reader: store.Reader, url: str) -> list[Named]:
    """The students and, by --control NAME=RUN[,RUN...], those that they are compared with."""
    found = [(STUDENT, options.run), *map(contestants.parse, options.control)]
    taken = [STUDENT, PROBE, *arc_grids.TRIVIAL]
    for name, _ in found[1:]:
        if not re.fullmatch("[a-z0-9_]+", name):
            raise runs.RunError(f"--control {name}=...: the name of a row has a-z, 0-9 and _ alone")
        if name in taken:
            raise runs.RunError(f"--control {name}=...: that name is in the table already; choose another")
        taken.append(name)
    cast = [Named(name, sorted(runs.load(folders, "last"), key=lambda run: run.seed)) for name, folders in found]
    for named in cast:
        check(named, reader, url)
    return cast


def check(named: Named, reader: store.Reader, url: str) -> None:
    """RunError where these students solve no ARC tasks, or learned from another teacher than the store holds."""
    first = named.runs[0]
    student, stage = first.record.student, first.record.config.stage
    if not named.original and (student.grid is None or not student.vision.crop or stage == "components"):
        raise runs.RunError(f"{first.folder} solves no ARC grids: train one with --stage end-to-end --preset cells")
    if named.original and named.name == STUDENT:
        raise runs.RunError(f"{first.folder} is the original student: give it with --control seed={first.folder}")
    runs.check_store(first, reader, url)


def probed(
    options: Config, reader: store.Reader, asked: Sequence[Query], mine: arc_grid_rows.Book
) -> dict[str, arc_grid_rows.Book]:
    """The teacher's probe; a book of nothing, whose note says why, where it could not be asked."""
    known = reader.manifest.teacher
    named = teacher.Teacher(options.teacher or known.id, known.digest, options.tokenizer)
    found, reason = probe.solve(named, mine.dataset, asked, options.out / "raw" / f"{PROBE}_{mine.dataset}.json")
    size = teacher.parameters(named.name)
    context = dataclasses.replace(mine.context, teacher=known.provenance, preset=known.id, active_parameters=size)
    note = reason or "a grid decoder over the teacher's features; one attempt"
    return {
        PROBE: dataclasses.replace(
            mine, found=[found] * (not reason), context=context, name=PROBE, note=note, told_size=False
        )
    }


def solved(
    named: Named, reader: store.Reader, asked: Sequence[Query], options: Config, tick: ticker.Tick, split: str
) -> list[list[Attempts]]:
    """What every student of a name says of the queries."""
    if named.original:
        return [seed_grids.solve(run.student, reader, asked, tick, split=split) for run in named.runs]
    seen = arc_grids.views(way_count(options), seed=options.seed)
    return [arc_grids.solve(run.student, asked, seen, tick) for run in named.runs]


def way_count(options: Config) -> int:
    """In how many ways a task is seen."""
    return 2 if options.short else arc_grids.VIEWS


def book(
    options: Config, dataset: str, named: Named, found: Sequence[Sequence[Attempts]], command: str
) -> arc_grid_rows.Book:
    """Writes the rows of a name."""
    run = named.runs[0]
    context = origin.context(run, run.record.teacher["provenance"], "none", command)
    seen = f"{way_count(options)} views voted"
    note = TOLD if named.original else "; ".join((seen, KNOWN)) if dataset == REARC else seen
    about = (options.draws, options.seed, named.name, note, named.original)
    return arc_grid_rows.Book(dataset, found, context, *about)


def clocked(run: runs.Run, asked: Sequence[Query], options: Config, command: str) -> list[report.Row]:
    """Wall time of a grid and of a task, at the median canvas of the queries."""
    query = sorted(asked, key=lambda one: one.canvas)[len(asked) // 2]
    context = origin.context(run, run.record.teacher["provenance"], "none", command)
    seen = arc_grids.views(arc_grids.VIEWS, seed=options.seed)
    one, whole = arc_grids.timed(run.student, query, seen)
    about = f"{len(query.task.train)} demonstrations on a canvas of {query.canvas} cells"
    return [
        *one.rows("arc.grid", context, seed=options.seed, note=f"one view, batch 1; {about}"),
        *whole.rows("arc.task", context, seed=options.seed, note=f"{len(seen)} views voted; {about}"),
    ]


def keep(raw, dataset: str, named: Named, found: Sequence[Sequence[Attempts]]) -> None:
    """Every attempt, in ARC Prize form."""
    for run, each in zip(named.runs, found, strict=True):
        path = raw / f"predictions_{named.name}_{dataset}_seed_{run.seed}.json"
        path.write_text(json.dumps(arc_grids.predictions(each)), encoding="utf-8")


def some(tasks: tuple[arc.Task, ...], most: int, seed: int) -> list[arc.Task]:
    """At most so many, drawn once for a seed."""
    chosen = np.random.default_rng(seed).permutation(len(tasks))[:most]
    return [tasks[i] for i in sorted(chosen.tolist())]
