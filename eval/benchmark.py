"""`python -m eval.benchmark`: trained students against their teacher on the test split, as report.json, table and page.

The only place that opens the split "test". Needs no torch: without it the teacher's own timings are empty cells.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from bridge import arc, manifest, store
from eval import export, origin, page, quality, report, runs, speed, throughput, timing
from eval.frames import Frames, SplitError
from train import checkpoint
from train import config as train_config

USER_ERRORS = (
    runs.RunError,
    SplitError,
    manifest.StoreError,
    train_config.ConfigError,
    checkpoint.CheckpointError,
)
SPLIT = "test"


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
    """Report how close and how fast trained students are, on test tasks that nothing else has read."""

    run: Annotated[tuple[pathlib.Path, ...], tyro.conf.UseAppendAction] = ()
    """A run folder; repeat it for runs that differ in their seed only. Default: the newest in runs/."""
    store: str = ""
    """Feature store, a folder or URL, with all three splits; default: the one that the first run was trained from."""
    teacher: str = ""
    """What to time: standin-arc, a checkpoint folder or a hub id; default: the store's own. It must be that teacher."""
    tokenizer: str = ""
    """Folder or hub id of the teacher's tokenizer, where the checkpoint has none."""
    out: pathlib.Path = pathlib.Path("runs/report")
    """Folder for report.json, report.html, report.md, raw/ and artifact/; an earlier report there is replaced."""
    seed: int = 0
    """Of everything drawn: bootstrap, task sample, reads, the student's noise."""
    preset: Literal["full", "quick"] = "full"
    """quick: under a minute, on a sample of the test tasks and with fewer repeats."""
    quick: bool = False
    """The same as --preset quick."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Time the compiled teacher as well (minutes, needs a C++ compiler); auto: in full, not in quick."""
    draws: int = 1000
    """Bootstrap resamples behind every interval."""
    strict: bool = False
    """Exit with 1 when a bar is missed."""

    @property
    def effort(self) -> Effort:
        """The preset, with --compile applied."""
        effort = EFFORTS["quick" if self.quick else self.preset]
        return effort if self.compile == "auto" else dataclasses.replace(effort, compiled=self.compile == "yes")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the report is written, 1 with --strict and a missed bar, 2 on bad input."""
    argv = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with the timed processes
    options = tyro.cli(Config, args=argv, prog="python -m eval.benchmark", description=Config.__doc__)
    try:
        found = benchmark(options, shlex.join(["python", "-m", "eval.benchmark", *argv]))
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    console.print(report.table(found, width=console.width))
    print(json.dumps({"report": str(options.out / "report.html"), "bars_missed": found.failures}))
    return int(options.strict and bool(found.failures))


def benchmark(options: Config, command: str) -> report.Report:
    """Measure everything and write the report folder."""
    effort = options.effort
    found = runs.load(options.run or (runs.newest(),))
    url = options.store or found[0].record.config.launch.store
    reader = store.open(url)
    runs.check_store(found[0], reader, url)
    splits = _splits(reader, effort, options.seed)
    context = _context(found[0], reader.manifest.teacher, command)
    with Ticker() as tick:
        scores = quality.measure(found, splits, seed=options.seed, tick=tick)
        rows = scores.rows(context, draws=options.draws, seed=options.seed)
        tick("timing", 0, 1)
        race = _race(options, found[0], reader, splits.reported)
        rows += speed.Book(race, context, options.seed).rows(speed.TEACHERS)
        tick("store", 0, 1)
        read = throughput.measure(reader, "image_tokens", SPLIT, reads=effort.reads, seed=options.seed)
        rows += throughput.rows(read, context, seed=options.seed)
    result = report.Report(tuple(rows), origin.versions())
    _write(options.out, result, scores, [*scores.pages(rows), speed.picture(race)])
    return result


def _splits(reader: store.Reader, effort: Effort, seed: int) -> quality.Splits:
    tested = Frames(reader, SPLIT).limited(tasks=effort.tasks, seed=seed)
    train, validation = (
        Frames(reader, name).limited(frames=effort.baseline_frames, seed=seed) for name in ("train", "validation")
    )
    return quality.Splits(tested, train, validation)


def _context(run: runs.Run, teacher: manifest.Teacher, command: str) -> report.Context:
    return report.Context(
        teacher=teacher.provenance,
        environment="none",
        preset=run.preset,
        active_parameters=sum(leaf.size for leaf in jax.tree.leaves(export.split(run.student.folded())[0])),
        device=origin.device(),
        commit=origin.commit(),
        command=command,
    )


def _race(options: Config, run: runs.Run, reader: store.Reader, frames: Frames) -> speed.Speed:
    """Export the run's student and time it beside the teacher on one test frame."""
    teacher, artifact = reader.manifest.teacher, options.out / "artifact"
    image = frames.image(np.array([len(frames) - 1]), pixels=30)[None, :, None]
    about = export.About(
        preset=run.preset,
        averaged=True,
        embodiment="arc",
        run={"seed": run.seed, "steps": run.record.steps, "store": run.record.store},
        teacher={name: getattr(teacher, name) for name in ("id", "provenance", "licence", "digest")},
    )
    export.write(artifact, run.student, about, video=image.shape[1:])
    observation = options.out / "raw" / "observation.npz"
    observation.parent.mkdir(parents=True, exist_ok=True)
    state, words = np.zeros((1, 1, arc.STATE_WIDTH), np.float32), np.array([arc.INSTRUCTION])
    np.savez_compressed(observation, video=image, state=state, instruction=words, embodiment=np.array("arc"))
    source = speed.Teacher(options.teacher or teacher.id, teacher.max_tiles, teacher.digest, options.tokenizer)
    effort = options.effort
    return speed.measure(artifact, observation, source, plan=effort.plan, compiled=effort.compiled)


def _write(out: pathlib.Path, result: report.Report, scores: quality.Quality, pictures: list[page.Picture]) -> None:
    scores.write_raw(out / "raw")
    report.write(out / "report.json", result)
    (out / "report.html").write_text(page.render(result, pictures))
    (out / "report.md").write_text(report.markdown(result))


class Ticker:
    """A progress bar that is told (what, done, total) and shows one line per thing."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bar, self._tasks = Progress(transient=True, console=Console(stderr=True)), {}
        self._bar.start()
        return self._tick

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def _tick(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.advance(self._tasks[what], done)


if __name__ == "__main__":
    sys.exit(main())
