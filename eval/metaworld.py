"""The robot suite: teacher, students and controls in the simulator on the same goals; students against the store."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from bridge import conditions, metaworld_tasks, simulator, store
from bridge.outcomes import Ledger, OutcomeError
from eval import (
    contestants,
    control,
    offline,
    offline_rows,
    origin,
    page,
    report,
    robot_page,
    rollouts,
    runs,
    success,
    ticker,
    trivial,
)
from eval import teacher as teachers
from eval.contestants import STUDENT, Cast
from eval.observations import Observations
from eval.options import Config
from eval.teacher import Teacher
from eval.ticker import Tick

DISTURBED = ("held-out", "swapped", "noise", "dropped", "light")


@dataclasses.dataclass(frozen=True)
class Level:
    """How much is measured."""

    episodes: int
    """Per task."""
    observations: int
    """Of the store, at most."""
    student: tuple[str, ...]
    """Conditions of the student beside the normal one."""
    teacher: tuple[str, ...]
    every_seed: bool
    """Whether those are tried with every seed, or the first alone."""
    otherwise: bool
    """Whether the first student is also tried with one refinement step, and with halting by itself."""


LEVELS = {
    "quick": Level(10, 256, ("held-out", "swapped"), ("normal", "blind"), False, False),
    "standard": Level(50, 1024, ("held-out", "swapped"), ("normal", "blind"), False, False),
    "full": Level(50, 4096, DISTURBED, conditions.NAMES, True, True),
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
    short = options.quick or options.preset == "quick"
    level = LEVELS["quick" if short else "full" if options.full else "standard"]
    tasks = options.tasks or tuple(metaworld_tasks.TASKS)
    episodes = level.episodes if options.episodes is None else options.episodes
    if unknown := [task for task in tasks if task not in metaworld_tasks.TASKS]:
        raise runs.RunError(f"--tasks {' '.join(unknown)}: there are {', '.join(metaworld_tasks.TASKS)}")
    if episodes < 1 or (short and options.full):
        raise runs.RunError("--episodes must be at least 1, and --quick and --full exclude each other")
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

    def gather(self, reason: str) -> success.Results:
        """All outcomes as arrays; `reason` is why the teacher has none."""
        cast, asked = self.cast, self.asked
        wanted = [(name, condition) for name in (teachers.NAME, STUDENT) for condition in conditions.NAMES]
        wanted += [(name, "normal") for name in (*cast.controls, *contestants.EFFORTS, *trivial.ALL)]
        found = {key: array for key in wanted if (array := self._success(*key)) is not None}
        sizes = {STUDENT: cast.parameters, teachers.NAME: teachers.parameters(self.teacher.name)}
        uneven = {name: text for name in cast.controls if (text := cast.uneven(name))}
        reasons = {teachers.NAME: reason} if reason else {}
        return success.Results(asked.tasks, asked.split, found, reasons, cast.controls, sizes, uneven)

    def _success(self, policy: str, condition: str) -> np.ndarray | None:
        """Over every seed, or over the first where only that was tried."""
        members = [run.seed for run in self.cast.runs.get(policy, ())] or [None]
        members = [self.cast.students[0].seed] if policy in contestants.EFFORTS else members
        jobs = self.asked.jobs(condition)
        found = (self.ledger.success(policy, condition, jobs, seeds=group) for group in (members, members[:1]))
        return next((array for array in found if array is not None), None)

    def context(self, command: str) -> report.Context:
        """What all rows share."""
        provenance, preset = self.reader.manifest.teacher.provenance, self.cast.students[0].preset
        return report.Context(
            provenance, "sim", preset, self.cast.parameters, origin.device(), origin.commit(), command
        )

    def compare(self, context: report.Context, tick: Tick) -> list[report.Row]:
        """Students against what the store holds of the teacher: the reported split if it is there, else validation."""
        split = self.asked.split if len(self.reader.records(self.asked.split)) else "validation"
        seen, scores = Observations(self.reader, split, most=self.asked.level.observations), []
        for run in self.cast.students:
            actor, label = control.load(run, rows=contestants.ROWS), f"observations, seed {run.seed}"
            scores.append(offline.score(actor, seen, lambda done, label=label: tick(label, done, 2 * len(seen))))
            np.savez_compressed(self.options.out / "raw" / f"offline_seed_{run.seed}.npz", **scores[-1].arrays())
        draws, seed = self.options.draws, self.options.seed
        book = offline_rows.Book(scores, len(seen), split, context, draws=draws, seed=seed)
        return book.rows(teachers.measured(self.teacher.name))

    def film(self, results: success.Results, farm: rollouts.Farm) -> list[robot_page.Clip]:
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
    cast = contestants.load(options.run or (runs.newest(),), options.control, reader, url)
    ledger = open_ledger(options.out / "raw" / "episodes.jsonl", resume=options.resume)
    teacher = Teacher(options.teacher or made.id, made.digest, options.tokenizer)
    bench = Bench(options, reader, asked, cast, ledger, teacher)
    reason = bench.teach()
    with rollouts.Farm() as farm:
        with ticker.Ticker() as tick:
            bench.play(farm, tick)
            results, context = bench.gather(reason), bench.context(command)
            rows = success.Book(results, context, draws=options.draws, seed=options.seed).rows()
            rows += bench.compare(context, tick)
        found = report.Report(tuple(rows), origin.versions())
        report.write(options.out / "report.json", found)
        shown = robot_page.after(bench.film(results, farm))
    before = robot_page.before(results, rows, made.provenance)
    text = page.render(found, robot_page.steps(rows), before=before, after=shown)
    (options.out / "report.html").write_text(text, encoding="utf-8")
    (options.out / "report.md").write_text(report.markdown(found), encoding="utf-8")
    if results.warning:
        Console(stderr=True).print(results.warning, style="bold red")
    return found


def open_ledger(path: pathlib.Path, *, resume: bool) -> Ledger:
    """The outcomes of --out; those of an earlier benchmark only with --resume."""
    if path.exists() and not resume:
        raise OutcomeError(f"{path} holds episodes already: add --resume to go on with them, or give another --out")
    return Ledger(path)
