"""`python -m eval.duel NAME=FOLDER NAME=FOLDER...`: students and their artifacts in the simulator on the same
placements, each against the first: success, difference, non-inferiority."""

import dataclasses
import json
import pathlib
import shlex
import sys
from typing import Annotated

import tyro
from rich.console import Console

from bridge import conditions, metaworld_tasks, outcomes, scene, simulator
from bridge.transform import EmbodimentError
from eval import (
    artifact_actor,
    contestants,
    control,
    export,
    metaworld,
    origin,
    pairing,
    policy,
    report,
    rollouts,
    runs,
    success,
)
from eval.pairing import Success
from eval.ticker import Ticker
from train import checkpoint
from train import config as train_config

CONDITION, SPLIT = "normal", "test"
MARGIN = -3.0
ENOUGH = 1200
"""Pairs that non-inferiority is judged on."""
USER_ERRORS = (
    runs.RunError, policy.ArtifactError, EmbodimentError, outcomes.OutcomeError, scene.SimulatorError,
    train_config.ConfigError, checkpoint.CheckpointError, FileNotFoundError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare students, or artifacts of them, in the simulator on the same placements."""

    policies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """NAME=FOLDER, an artifact of python -m eval.export or a run folder (its best checkpoint, averaged weights);
    NAME=ARTIFACT@0.5 decides on half of its full budget. The first is what the others are compared with."""
    out: pathlib.Path = pathlib.Path("runs/duel")
    """Folder for report.json and episodes.jsonl."""
    episodes: int = 50
    """Per task."""
    tasks: tuple[str, ...] = ()
    """Default: all."""
    resume: bool = False
    """Go on with the episodes that --out holds; none of them is run again."""
    seed: int = 0
    """Of the bootstrap."""
    draws: int = 1000
    """Bootstrap resamples behind every interval."""


@dataclasses.dataclass(frozen=True)
class Player:
    """A policy and where it comes from."""

    contestant: rollouts.Contestant
    provenance: str
    preset: str
    parameters: int


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when the report is written, 2 on bad input."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Config, args=argv, prog="python -m eval.duel", description=Config.__doc__)
    try:
        found = duel(options, shlex.join(["python", "-m", "eval.duel", *argv]), rollouts.Farm())
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    console.print(report.table(found, width=console.width))
    print(json.dumps({"report": str(options.out / "report.json"), "not_judged": found.unjudged}))
    return 0


def duel(options: Config, command: str, farm: rollouts.Farm) -> report.Report:
    """Run the episodes that are missing and write the report."""
    jobs = placements(options)
    players = [player(text) for text in options.policies]
    names = [one.contestant.name for one in players]
    if len(players) < 2 or len(set(names)) < len(names):
        raise runs.RunError(f"expected at least two NAME=FOLDER of different names, got {names}")
    ledger = metaworld.open_ledger(options.out / "episodes.jsonl", resume=options.resume)
    with farm, Ticker() as tick:
        for one in players:
            rollouts.fill(ledger, one.contestant, CONDITION, jobs, farm=farm, tick=tick)
    solved = {name: ledger.success(name, CONDITION, jobs, seeds=[None]) for name in names}
    book = Book(solved, command, options.draws, options.seed)
    found = report.Report(tuple(row for one in players for row in book.rows(one)), origin.versions())
    report.write(options.out / "report.json", found)
    return found


def placements(options: Config) -> list[simulator.Job]:
    """The episodes, alike for everybody: those that the benchmark reports on."""
    tasks = options.tasks or tuple(metaworld_tasks.TASKS)
    if unknown := [task for task in tasks if task not in metaworld_tasks.TASKS]:
        raise runs.RunError(f"--tasks {' '.join(unknown)}: there are {', '.join(metaworld_tasks.TASKS)}")
    if options.episodes < 1 or options.draws < 1:
        raise runs.RunError(f"--episodes {options.episodes}, --draws {options.draws}: expected at least 1")
    return conditions.jobs(CONDITION, tasks, metaworld_tasks.split_seeds(SPLIT, options.episodes))


def player(text: str) -> Player:
    """NAME=FOLDER[@SHARE] as a policy; RunError where it is neither an artifact nor a run."""
    name, _, rest = text.partition("=")
    folder, share = _placed(text, rest)
    if not contestants.NAME.fullmatch(name) or not rest:
        raise runs.RunError(f"{text!r}: expected NAME=FOLDER, as in int8=runs/artifact-int8 (a-z, 0-9, _, +)")
    if (folder / "meta.json").is_file():
        return _exported(name, policy.load(folder), share)
    if share is not None and folder.is_dir():
        raise runs.RunError(f"{text!r}: only an artifact decides on a share of its budget: export the run first")
    run = runs.load([folder])[0]
    acts = control.orchestrated if run.record.student.h_module else control.load
    actor = acts(run, rows=contestants.ROWS)
    contestant = rollouts.Contestant(name, actor, control.digest(actor))
    return Player(contestant, run.record.teacher["provenance"], run.preset, export.parameters(run.student))


def _placed(text: str, rest: str) -> tuple[pathlib.Path, float | None]:
    """The folder, and the share of the full budget; None where nothing is said of it."""
    if "@" not in rest or pathlib.Path(rest).is_dir():
        return pathlib.Path(rest), None
    place, _, said = rest.rpartition("@")
    try:
        share = float(said)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise runs.RunError(f"{text!r}: expected a share of the full budget from 0 to 1 after @, got {said!r}")
    return pathlib.Path(place), share


def _exported(name: str, loaded: policy.Policy, share: float | None) -> Player:
    atp = None if share is None else share * loaded.meta["atp"]["full"]
    actor, meta = artifact_actor.ArtifactActor(loaded, atp=atp), loaded.meta
    contestant = rollouts.Contestant(name, actor, actor.digest)
    return Player(contestant, meta["teacher"]["provenance"], meta["preset"], meta["parameters"])


class Book:
    """Turns who solved what into rows."""

    def __init__(self, solved: dict[str, Success], command: str, draws: int, seed: int):
        """solved: bool [1, tasks, goals] by name, the one that the others are compared with first."""
        self.solved, self.command = solved, command
        self.first, score = next(iter(solved.items()))
        self.tasks = range(score.shape[1])
        self.pairing = pairing.Pairing(score.shape[1], score.shape[2], draws=draws, seed=seed)

    def rows(self, one: Player) -> list[report.Row]:
        """`duel.<name>.<metric>`."""
        name, score = one.contestant.name, self.solved[one.contestant.name]
        context = report.Context(
            one.provenance, "sim", one.preset, one.parameters, origin.device(), origin.commit(), self.command
        )
        mean = success.over_goals(score)
        span = {"ci_low": mean.low, "ci_high": mean.high, "n": int(score.size)}
        rows = [report.Row(f"duel.{report.slug(name)}.success", mean.value, "of episodes", context, **span)]
        return rows if name == self.first else rows + self._against(name, score, context)

    def _against(self, name: str, score: Success, context: report.Context) -> list[report.Row]:
        gap = self.pairing.difference(score, self.solved[self.first], self.tasks)
        p, wins, losses = pairing.sign(score, self.solved[self.first], self.tasks)
        pairs, row = int(score.size), f"duel.{report.slug(name)}"
        note = f"less {self.first}, same placements: {wins} won, {losses} lost, sign test p {p:.3g}"
        few = "" if pairs >= ENOUGH else f"{ENOUGH:,} pairs of episodes"
        low = {"n": pairs, "bar": MARGIN, "needs": few, "note": "lower end of the difference's 95 % interval"}
        span = {"ci_low": gap.low, "ci_high": gap.high, "n": pairs}
        return [
            report.Row(f"{row}.difference", gap.value, "points", context, note=note, **span),
            report.Row(f"{row}.non_inferior", gap.low, "points", context, **low),
        ]


if __name__ == "__main__":
    sys.exit(main())
