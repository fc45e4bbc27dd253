"""The command line of `eval.benchmark`, and how much each preset measures."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from eval import runs, timing


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured."""

    tasks: int | None
    """Test tasks at most; None is all."""
    baseline_frames: int
    """Training frames that the baselines are fitted on, at most."""
    plan: timing.Plan
    """Turns of the timing."""
    compiled: bool
    """Time the compiled teacher too."""
    reads: int
    """Random reads of the store."""


EFFORTS = {
    "full": Effort(None, 4096, timing.Plan(rounds=20, repeats=5, seconds=60.0), True, 1000),
    "quick": Effort(40, 512, timing.Plan(rounds=5, repeats=5, seconds=4.0), False, 200),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Report how close, how fast and (a robot's) how successful trained students are, on test data that nothing else
    has read."""

    suite: Literal["", "arc", "families", "metaworld", "robot", "sage", "size"] = ""
    """arc: ARC tasks, for a vision component how close and fast it is, for a student of grids what it solves; families:
    small puzzles; metaworld: closed loop in the simulator; robot:
    against the store alone, for robots without a simulator; sage: what the orchestrator is worth (runs of --stage
    orchestration, or end-to-end from one); size: an untrained student of full size against the full teacher's cost, no
    run or store needed. Default: what the store holds."""
    run: Annotated[tuple[pathlib.Path, ...], tyro.conf.UseAppendAction] = ()
    """A run folder; repeat it for runs that differ in their seed only. Default: the newest in runs/."""
    control: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """metaworld: NAME=RUN[,RUN...], the same student without (some of) the teacher: demonstrations,
    demonstrations+tokens, actions; repeat it for each. arc, grids: students to compare with, as seed=RUN."""
    store: str = ""
    """Feature store, a folder or URL, with all three splits; default: the one that the first run was trained from."""
    teacher: str = ""
    """What to time, or who acts: a stand-in, a checkpoint folder or a hub id; default: the store's own. It must be
    that teacher."""
    tokenizer: str = ""
    """Folder or hub id of the teacher's tokenizer, where the checkpoint has none."""
    out: pathlib.Path = pathlib.Path("runs/report")
    """Folder for report.json, report.html, report.md, raw/ and (arc) artifact/; an earlier report there is replaced."""
    seed: int = 0
    """Of everything drawn: bootstrap, task sample, reads, the student's noise."""
    preset: Literal["full", "quick"] = "full"
    """quick: about a minute for vision and robot, minutes for grids and metaworld, on a sample, with fewer repeats."""
    quick: bool = False
    """The same as --preset quick."""
    full: bool = False
    """metaworld: disturbed cameras too, every condition with every student seed, one refinement step alone; hours.
    robot: more observations."""
    price: float | None = None
    """sage: what all refinement steps together must gain, in units of the logarithm of the action error, to be taken;
    the dial between thinking and saving. Default: the one that it was trained with."""
    resume: bool = False
    """metaworld, sage: go on with the episodes that --out holds; none of them is run again. size: with its heats."""
    episodes: int | None = None
    """metaworld, sage: episodes per task; default 50, quick 10."""
    tasks: tuple[str, ...] = ()
    """metaworld, sage: which tasks; default all."""
    environment: Literal["none", "real", "sim"] = "none"
    """robot: where the episodes were recorded, if that is to be said; nothing acts there now."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Time the compiled teacher as well (minutes, needs a C++ compiler); auto: in full, not in quick."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """size: where torch runs; jax picks its own. auto: where jax does."""
    seconds: float | None = None
    """size: of every lane in every heat; default 40, quick 5. A lane gets its three first calls whatever they take."""
    student: str = "sage_48m"
    """size: preset of the student."""
    lanes: tuple[str, ...] = ()
    """size: how the student runs, RUNTIME_DTYPE each, e.g. xla_bfloat16; default: all there are."""
    draws: int = 1000
    """Bootstrap resamples behind every interval."""
    strict: bool = False
    """Exit with 1 unless every bar is met: one that could not be judged is not."""

    def __post_init__(self) -> None:
        if self.draws < 1 or self.seed < 0:
            raise runs.RunError(f"--draws is {self.draws}, --seed {self.seed}: expected at least 1, and 0 or more")

    @property
    def short(self) -> bool:
        """Whether the quick preset was asked for, in either way."""
        return self.quick or self.preset == "quick"

    @property
    def level(self) -> Literal["quick", "standard", "full"]:
        """How much a robot suite measures."""
        if self.short and self.full:
            raise runs.RunError("--quick and --full exclude each other")
        return "quick" if self.short else "full" if self.full else "standard"

    @property
    def effort(self) -> Effort:
        """The preset, with --compile applied."""
        effort = EFFORTS["quick" if self.short else self.preset]
        return effort if self.compile == "auto" else dataclasses.replace(effort, compiled=self.compile == "yes")
