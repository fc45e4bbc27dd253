"""`python -m eval.benchmark`: trained students against their teacher on the test split, as report.json, table and page.

The only place that opens the split "test". Needs no torch: without it the teacher's own timings are empty cells.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import sys

import numpy as np
import tyro
from rich.console import Console

from bridge import arc, manifest, outcomes, scene, store
from bridge.transform import EmbodimentError
from eval import (
    arc_grid_suite,
    artifact,
    export,
    metaworld,
    origin,
    page,
    puzzle_suite,
    quality,
    report,
    robot,
    runs,
    sage,
    size_suite,
    speed,
    throughput,
)
from eval.frames import Frames, SplitError
from eval.options import Config, Effort
from eval.ticker import Ticker
from train import checkpoint, data, puzzles, record, words
from train import config as train_config

USER_ERRORS = (
    runs.RunError,
    SplitError,
    manifest.StoreError,
    train_config.ConfigError,
    checkpoint.CheckpointError,
    outcomes.OutcomeError,
    words.WordsError,
    data.DataError,
    arc.ArcError,
    scene.SimulatorError,
    EmbodimentError,
)
SPLIT = "test"
NOT_SIMULATED = "a robot that has no simulator; --suite robot, the default, compares students with the store alone"


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the report is written, 1 with --strict and a bar that is not met, 2 on bad input."""
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
    said = {"report": str(options.out / "report.html"), "bars_missed": found.failures, "not_judged": found.unjudged}
    print(json.dumps(said))
    return int(options.strict and bool(found.failures or found.unjudged))


def benchmark(options: Config, command: str) -> report.Report:
    """Measure everything that the suite asks for and write the report folder."""
    if options.suite == "size":
        return size_suite.benchmark(options, command=command)
    options = dataclasses.replace(options, run=options.run or (runs.newest(),))
    url = options.store or record.read(options.run[0]).config.launch.store
    if puzzles.size(url):
        return puzzle_suite.benchmark(options, url, command=command, split=SPLIT)
    reader = store.open(url)
    possible = suites(reader)
    suite = options.suite or possible[0]
    if suite not in possible:
        held = f"{reader.manifest.task} features" if "robot" not in possible else NOT_SIMULATED
        raise runs.RunError(f"--suite {suite} needs another store: {url} holds {held}")
    if suite == "metaworld":
        return metaworld.benchmark(options, reader, url, command=command, split=SPLIT)
    if suite == "sage":
        return sage.benchmark(options, reader, url, command=command, split=SPLIT)
    if suite == "robot":
        simulated = "metaworld" in possible
        return robot.benchmark(options, reader, url, command=command, split=SPLIT, simulated=simulated)
    first = record.read(options.run[0])
    solves = first.student.grid is not None or first.student.seed is not None
    if solves and first.config.stage != "components":
        return arc_grid_suite.benchmark(options, reader, url, command=command, split=SPLIT)
    return _arc(options, reader, url, command)


def suites(reader: store.Reader) -> tuple[str, ...]:
    """What can be reported of a store, the default first."""
    if reader.manifest.task != "robot":
        return (reader.manifest.task,)
    simulated = reader.embodiment().tag == outcomes.SUITE  # the simulator's robot is called as its suite
    return (outcomes.SUITE, "robot", "sage") if simulated else ("robot",)


def _arc(options: Config, reader: store.Reader, url: str, command: str) -> report.Report:
    """The vision, speed and store suites."""
    effort, found = options.effort, runs.load(options.run)
    runs.check_store(found[0], reader, url)
    splits = _splits(reader, effort, options.seed)
    context = origin.context(found[0], reader.manifest.teacher.provenance, "none", command)
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


def _race(options: Config, run: runs.Run, reader: store.Reader, frames: Frames) -> speed.Speed:
    """Export the run's student and time it beside the teacher on one test frame."""
    teacher, folder = reader.manifest.teacher, options.out / "artifact"
    image = frames.image(np.array([len(frames) - 1]), pixels=30)[None, :, None]
    about = artifact.About(
        preset=run.preset,
        averaged=True,
        embodiment="arc",
        run={"seed": run.seed, "steps": run.record.steps, "store": run.record.store},
        teacher={name: getattr(teacher, name) for name in ("id", "provenance", "licence", "digest")},
    )
    export.write(folder, run.student, about, artifact.Kit(image.shape[1:], views=("grid",)))
    observation = options.out / "raw" / "observation.npz"
    observation.parent.mkdir(parents=True, exist_ok=True)
    state, words = np.zeros((1, 1, arc.STATE_WIDTH), np.float32), np.array([arc.INSTRUCTION])
    np.savez_compressed(observation, video=image, state=state, instruction=words, embodiment=np.array("arc"))
    source = speed.Teacher(options.teacher or teacher.id, teacher.max_tiles, teacher.digest, options.tokenizer)
    effort = options.effort
    return speed.measure(folder, observation, source, plan=effort.plan, compiled=effort.compiled)


def _write(out: pathlib.Path, result: report.Report, scores: quality.Quality, pictures: list[page.Picture]) -> None:
    scores.write_raw(out / "raw")
    report.write(out / "report.json", result)
    page.write(out, result, pictures)


if __name__ == "__main__":
    sys.exit(main())
