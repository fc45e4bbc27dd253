"""The sage suite: what the orchestrator is worth. In the simulator against all refinement steps, without trust under a
covered camera, and against the student that it was built on; against the store at every budget."""

import dataclasses
import pathlib
from collections.abc import Sequence

from flax import nnx

from bridge import conditions, metaworld_tasks, simulator, store
from bridge.outcomes import Ledger
from eval import (
    comparison,
    contestants,
    control,
    economy,
    metaworld,
    notebook,
    origin,
    page,
    report,
    rollouts,
    runs,
    sage_book,
    sage_insight,
    sage_page,
    sage_rows,
    ticker,
    wall,
)
from eval.observations import Observations
from eval.options import Config
from eval.rollouts import Contestant
from eval.ticker import Tick
from student_jax.student import Student
from train import cycle, orchestra_scores, record

WILLS = {
    "sage": cycle.Will(),
    "sage_full": cycle.Will(depth=wall.DEEP),
    "sage_trustless": cycle.Will(trusts=False),
}
"""How the orchestrated student is run: as it likes, with all refinement steps, and with trust that nothing moves."""
BEFORE = "before"
"""The student that it was built on, without H-module or trust."""
TIMED = 64
BUDGETS = 10_000


@dataclasses.dataclass(frozen=True)
class Turn:
    """One policy under one condition."""

    policy: str
    condition: str
    known: bool
    """On validation, which what is judged on the reported split is fitted on; else on that."""
    every: bool
    """With every seed, or the first alone."""


TURNS = (
    Turn("sage", "normal", False, True),
    Turn("sage_full", "normal", False, True),
    Turn("sage", "normal", True, True),
    Turn(BEFORE, "normal", False, True),
    *(Turn(name, conditions.COVERED, False, False) for name in ("sage", "sage_trustless", BEFORE)),
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that one benchmark of orchestrated students is about."""

    students: Sequence[runs.Run]
    tasks: tuple[str, ...]
    episodes: int
    ledger: Ledger
    notes: pathlib.Path
    split: str
    """That is reported."""

    def split_of(self, turn: Turn) -> str:
        """Where a turn's placements come from."""
        return "validation" if turn.known else self.split

    def jobs(self, turn: Turn) -> list[simulator.Job]:
        """The episodes of a turn, task by task."""
        return conditions.jobs(
            turn.condition, self.tasks, metaworld_tasks.split_seeds(self.split_of(turn), self.episodes)
        )

    def members(self, turn: Turn) -> Sequence[runs.Run]:
        return self.students if turn.every else self.students[:1]

    def play(self, farm: rollouts.Farm, tick: Tick) -> None:
        """Every turn, with what an orchestrated student decided kept beside the ledger."""
        for turn in TURNS:
            for run in self.members(turn):
                one, close = self.contestant(turn.policy, run)
                options = {"farm": farm, "tick": tick, "after": close}
                rollouts.fill(self.ledger, one, turn.condition, self.jobs(turn), **options)

    def contestant(self, policy: str, run: runs.Run) -> tuple[Contestant, notebook.Close]:
        """The policy, and who is told when an episode is over."""
        if policy == BEFORE:
            actor = control.load(before(run), rows=contestants.ROWS)
            return Contestant(policy, actor, control.digest(actor), run.seed), notebook.forget
        actor, book = (
            control.orchestrated(run, rows=contestants.ROWS, will=WILLS[policy]),
            notebook.Notebook(self.notes),
        )
        actor.note = book.note
        return Contestant(policy, actor, control.digest(actor), run.seed), book.close

    def outcomes(self) -> sage_book.Outcomes:
        """All successes and decisions by (policy, condition, split)."""
        found = {}
        for turn in TURNS:
            seeds = [run.seed for run in self.members(turn)]
            success = self.ledger.success(turn.policy, turn.condition, self.jobs(turn), seeds=seeds)
            found[turn.policy, turn.condition, self.split_of(turn)] = success
        notes: dict[tuple[str, str, str], list[notebook.Noted]] = {}
        splits = {seed: split for split in (self.split, "validation")
                  for seed in metaworld_tasks.split_seeds(split, self.episodes)}  # fmt: skip
        turns = {(turn.policy, turn.condition, self.split_of(turn)): self.members(turn) for turn in TURNS}
        played = {(*key, run.seed) for key, members in turns.items() for run in members}
        for one in notebook.read(self.notes):
            key = (one.policy, one.condition, splits.get(one.goal_seed))
            if one.task in self.tasks and (*key, one.student_seed) in played:
                notes.setdefault(key, []).append(one)
        return sage_book.Outcomes(self.tasks, self.episodes, self.split, found, notes)


def before(run: runs.Run) -> runs.Run:
    """The run without an H-module that an orchestrated one was built on, however many runs ago, with the weights that
    it was built on: the best."""
    while run.record.student.h_module is not None:
        folder = origin_of(run)
        run = runs.load([folder], "best")[0]
    return run


def origin_of(run: runs.Run) -> pathlib.Path:
    """The folder of its `--init`, where the run was started from or beside the run; RunError where it is in neither."""
    named = pathlib.Path(run.record.config.init)
    for folder in (named, run.folder.parent / named.name):
        if run.record.config.init and (folder / record.FILE).is_file():
            return folder
    raise runs.RunError(
        f"{run.folder} was built on {named}, which is neither there nor beside it: an ablation needs it"
    )


def benchmark(options: Config, reader: store.Reader, url: str, *, command: str, split: str) -> report.Report:
    """Run what is missing, score everything, write the report folder."""
    students = sorted(runs.load(options.run, "last"), key=lambda run: run.seed)
    students = [runs.priced(run, options.price) for run in students]
    for run in students:
        runs.check_store(run, reader, url)
        control.orchestrated(run, rows=1)
        before(run)
    asked = metaworld.plan(options, split)
    ledger = metaworld.open_ledger(options.out / "raw" / "episodes.jsonl", resume=options.resume)
    bench = Bench(students, asked.tasks, len(asked.seeds), ledger, options.out / "raw" / notebook.FILE, split)
    context = origin.context(students[0], reader.manifest.teacher.provenance, "sim", command)
    seen = comparison.seen(reader, split, options.level)
    with ticker.Ticker() as tick:
        with rollouts.Farm() as farm:
            bench.play(farm, tick)
        measured = measure(students, reader, seen, tick)
        tick("timing", 0, 1)
        timed = [timing(run, seen) for run in students]
    book = sage_book.Book(bench.outcomes(), measured, timed, context, draws=options.draws, seed=options.seed)
    found = report.Report((*sage_rows.rows(book), *sage_insight.rows(book)), origin.versions())
    report.write(options.out / "report.json", found)
    page.write(options.out, found, sage_page.pictures_of(book))
    return found


def measure(
    students: Sequence[runs.Run], reader: store.Reader, seen: Observations, tick: Tick
) -> list[sage_book.Offline]:
    """Every student against the store."""
    prior = economy.teacher_saliency(Observations(reader, "train", most=2000)).mean(axis=0, keepdims=True)
    found = []
    for run in students:
        lexicon, _ = control.equipment(run)
        label = f"observations, seed {run.seed}"
        spent = economy.measure(run.student, lexicon, seen, lambda done, label=label: tick(label, done, len(seen)))
        few = Observations(reader, seen.split, most=256)
        blank = economy.glance(untrained(run.student), lexicon, few)
        chance = economy.compared(orchestra_scores.overlap, blank, economy.teacher_saliency(few)).mean()
        batch = next(seen.batches(lexicon, run.student.config.language.length))
        found.append(
            sage_book.Offline(
                spent, prior, float(chance),
                economy.violations(run.student, batch, count=BUDGETS, seed=run.seed), BUDGETS,
                economy.depths(before(run).student, lexicon, seen),
                economy.prices(run.student, batch),
            )
        )  # fmt: skip
    return found


def timing(run: runs.Run, seen: Observations) -> wall.Wall:
    """Wall time of its decisions and of those of the student before it."""
    return wall.measure(control.orchestrated(run, rows=1), seen, most=TIMED, before=control.load(before(run), rows=1))


def untrained(student: Student) -> Student:
    """The same student with an H-module that learned nothing."""
    graph, state = nnx.split(student)
    fresh = nnx.split(Student(student.config, rngs=nnx.Rngs(0)))[1]
    state["h_module"] = fresh["h_module"]
    return nnx.merge(graph, state)
