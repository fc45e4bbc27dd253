"""The metaworld suite: teacher, students and controls in the simulator on the same goals."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from bridge import conditions, metaworld_tasks, simulator, store
from bridge.outcomes import Ledger, OutcomeError
from eval import (
    comparison,
    contestants,
    control,
    metaworld_page,
    origin,
    page,
    report,
    rollouts,
    runs,
    success,
    tally,
    ticker,
    trivial,
)
from eval import teacher as teachers
from eval.contestants import STUDENT, Cast
from eval.options import Config
from eval.teacher import Teacher
from eval.ticker import Tick

DISTURBED = ("held-out", "swapped", "noise", "dropped", "light")


@dataclasses.dataclass(frozen=True)
class Level:
    """How much is measured."""

    episodes: int
    """Per task."""
    student: tuple[str, ...]
    """Conditions of the student beside the normal one."""
    teacher: tuple[str, ...]
    every_seed: bool
    """Whether those are tried with every seed, or the first alone."""
    otherwise: bool
    """Whether the first student is also tried with one refinement step, with halting by itself, and from drawn x_0."""


LEVELS = {
    "quick": Level(10, ("held-out", "swapped"), ("normal", "blind"), False, False),
    "standard": Level(50, ("held-out", "swapped"), ("normal", "blind"), False, False),
    "full": Level(50, DISTURBED, conditions.NAMES, True, True),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which episodes: tasks and goals, alike for everybody, and the split that they are of."""

    level: Level
    tasks: tuple[str, ...]
    seeds: Sequence[int]
    split: str

    def jobs(self, condition: str) -> list[simulator.Job]:
        """The episodes of a condition, task by task."""
        return conditions.jobs(condition, self.tasks, self.seeds)


def plan(options: Config, split: str) -> Plan:
    """From the command line."""
    level = LEVELS[options.level]
    tasks = options.tasks or tuple(metaworld_tasks.TASKS)
    episodes = level.episodes if options.episodes is None else options.episodes
    if unknown := [task for task in tasks if task not in metaworld_tasks.TASKS]:
        raise runs.RunError(f"--tasks {' '.join(unknown)}: there are {', '.join(metaworld_tasks.TASKS)}")
    if episodes < 1:
        raise runs.RunError(f"--episodes {episodes}: must be at least 1")
    return Plan(level, tasks, metaworld_tasks.split_seeds(split, episodes), split)


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that one benchmark of robots is about."""

    options: Config
    reader: store.Reader
    asked: Plan
    cast: Cast
    ledger: Ledger
    teacher: Teacher

    def teach(self) -> str:
        """Let the teacher act under its conditions; "" or why it could not."""
        for condition in self.asked.level.teacher:
            asked = {"split": self.asked.split, "tasks": conditions.tasks(condition, self.asked.tasks)}
            if asked["tasks"]:
                reason = teachers.act(self.teacher, self.ledger, condition, **asked, seeds=self.asked.seeds)
                if reason:
                    return reason
        return ""

    def play(self, farm: rollouts.Farm, tick: Tick) -> None:
        """Everybody else: every policy under the normal condition, then the students under the others."""
        level, cast = self.asked.level, self.cast
        students = contestants.actors(cast, STUDENT)
        others = [one for name in cast.controls for one in contestants.actors(cast, name)]
        others += contestants.otherwise(cast) if level.otherwise else []
        others += contestants.simple(self.reader)
        some = students if level.every_seed else students[:1]
        turns = [(one, "normal") for one in (*students, *others)]
        turns += [(one, condition) for condition in level.student for one in some]
        for one, condition in turns:
            rollouts.fill(self.ledger, one, condition, self.asked.jobs(condition), farm=farm, tick=tick)

    def gather(self, reason: str) -> tally.Results:
        """All outcomes as arrays; `reason` is why the teacher has none."""
        cast, asked = self.cast, self.asked
        wanted = [(name, condition) for name in (teachers.NAME, STUDENT) for condition in conditions.NAMES]
        wanted += [(name, "normal") for name in (*cast.controls, *contestants.EFFORTS, *trivial.ALL)]
        found = {key: array for key in wanted if (array := self._success(*key)) is not None}
        sizes = {STUDENT: cast.parameters, teachers.NAME: teachers.parameters(self.teacher.name)}
        uneven = {name: text for name in cast.controls if (text := cast.uneven(name))}
        reasons = {teachers.NAME: reason} if reason else {}
        episodes = len(asked.seeds)
        shared = {name: both for name in cast.controls if (both := cast.shared(name))}
        return tally.Results(asked.tasks, asked.split, episodes, found, reasons, cast.controls, sizes, uneven, shared)

    def _success(self, policy: str, condition: str) -> np.ndarray | None:
        """Over every seed, or over the first where only that was tried."""
        members = [run.seed for run in self.cast.runs.get(policy, ())] or [None]
        members = [self.cast.students[0].seed] if policy in contestants.EFFORTS else members
        jobs = self.asked.jobs(condition)
        found = (self.ledger.success(policy, condition, jobs, seeds=group) for group in (members, members[:1]))
        return next((array for array in found if array is not None), None)

    def film(self, results: tally.Results, farm: rollouts.Farm) -> list[metaworld_page.Clip]:
        """Videos of the first student, on tasks of the headline first, with the teacher's where it can act."""
        from eval import clips, videos  # PyAV comes with the simulator's extra, which the arc suite does without

        run, out = self.cast.students[0], self.options.out
        first = [self.asked.tasks[i] for i in results.headline]
        order = [*first, *(task for task in self.asked.tasks if task not in first)]
        known = [one for one in self.ledger.of(STUDENT, run.seed, "normal") if one.goal_seed in self.asked.seeds]
        chosen, theirs = videos.choose(known, order), out / "raw" / "teacher"
        asked = {"split": self.asked.split, "episodes": len(self.asked.seeds)}
        why = results.reasons.get(teachers.NAME)
        why = why or clips.film_teacher(self.teacher, self.ledger, chosen, theirs, **asked)
        actor = control.load(run, rows=contestants.ROWS)
        return clips.make(actor, chosen, theirs=theirs, out=out, why=why, farm=farm)


def benchmark(options: Config, reader: store.Reader, url: str, *, command: str, split: str) -> report.Report:
    """Run what is missing, score everything, write the report folder."""
    asked, made = plan(options, split), reader.manifest.teacher
    cast = contestants.load(options.run, options.control, reader, url)
    ledger = open_ledger(options.out / "raw" / "episodes.jsonl", resume=options.resume)
    teacher = Teacher(options.teacher or made.id, made.digest, options.tokenizer)
    bench = Bench(options, reader, asked, cast, ledger, teacher)
    context = origin.context(cast.students[0], made.provenance, "sim", command)
    reason = bench.teach()
    with rollouts.Farm() as farm:
        with ticker.Ticker() as tick:
            bench.play(farm, tick)
            results = bench.gather(reason)
            rows = success.Book(results, context, draws=options.draws, seed=options.seed).rows()
            offline = comparison.compare(
                cast,
                comparison.seen(reader, split, options.level),
                context,
                suite="metaworld",
                teacher=teachers.measured(teacher.name),
                options=options,
                tick=tick,
            )
        found = report.Report((*rows, *offline.rows), origin.versions())
        report.write(options.out / "report.json", found)
        shown = metaworld_page.after(bench.film(results, farm))
    before = metaworld_page.before(results, rows, made.provenance)
    page.write(options.out, found, offline.pictures, before=before, after=shown)
    if results.warning:
        Console(stderr=True).print(results.warning, style="bold red")
    return found


def open_ledger(path: pathlib.Path, *, resume: bool) -> Ledger:
    """The outcomes of --out; those of an earlier benchmark only with --resume."""
    if path.exists() and not resume:
        raise OutcomeError(f"{path} holds episodes already: add --resume to go on with them, or give another --out")
    return Ledger(path)
