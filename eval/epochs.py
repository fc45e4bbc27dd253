"""`python -m eval.epochs`: an epoch from a store, exact or compact, against one with the teacher run live.

All in milliseconds per example, on this machine, one after another: reading at random from disk, the student's training
step, and the teacher's forward pass over examples of the same dataset (a process of its own). An epoch from a store is
taken as reading and step in turns, though training reads ahead; a live one as teacher and step. The last line is JSON.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from typing import Annotated

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
import tyro
from flax import nnx

from bridge import store
from bridge.manifest import StoreError
from student_jax.student import Student
from train import compact, config, data, loop, main, optim, recipes, sharding, sources, stages, state

BAR = 20.0
TEACHER_TFLOP = 1.05
"""Of one forward pass of GR00T N1.5 at one 224-px view, counted (DESIGN.md section 7)."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How long an epoch takes from each store, and how long with the teacher live."""

    stores: Annotated[tuple[str, ...], tyro.conf.arg(name="store")]
    """Feature stores of one robot dataset, exact or compact."""
    preset: config.PresetName = "standin"
    """The student."""
    teacher: tuple[str, ...] = ()
    """Options of python -m teacher_torch.live, as one word each after --teacher; none: the teacher is not timed."""
    batch: int = 32
    """Examples of a step."""
    batches: int = 8
    """Batches read and steps timed, after one of each that is not."""
    seed: int = 0
    """Of the examples that are read."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Median milliseconds per example, to read and to train on; GFLOP of a step per example, as XLA counts."""

    read: float
    step: float
    gflop: float
    examples: int

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return (self.read + self.step) * self.examples / 1e3

    def speedup(self, live: float) -> float:
        """How much faster an epoch is than with a teacher that takes `live` milliseconds an example."""
        return (live + self.step) / (self.read + self.step)


def measure(url: str, options: Options) -> Cost:
    """Read and train on batches of one store."""
    recipe = dataclasses.replace(recipes.PRESETS[options.preset].recipe, batch=options.batch)
    launch = config.Launch(store=url, cache_gib=0.0)
    settings = config.Config(stage="end-to-end", preset=options.preset, seed=options.seed, recipe=recipe, launch=launch)
    reader = store.open(url)
    stage = stages.select(settings, reader.manifest.task)
    material = sources.open_material(reader, stage, settings, None)
    order = iter(data.order(len(material.sources.train), batch=options.batch, seed=options.seed))
    read, batches = [], []
    for _ in range(options.batches + 1):
        started = time.perf_counter()
        batches.append(material.sources.train.read(np.asarray(next(order))))
        read.append(time.perf_counter() - started)
    step, gflop = _steps(settings, compact.understood(stage, reader), material, batches)
    per = 1e3 / options.batch
    return Cost(statistics.median(read[1:]) * per, step * per, gflop / options.batch, len(material.sources.train))


def _steps(settings: config.Config, stage: stages.Stage, material: sources.Material, batches: list) -> tuple:
    """(median seconds of a training step, its GFLOP)."""
    mesh = sharding.make_mesh(settings.recipe.batch, 1)
    steps = len(batches)
    schedule, optimiser = optim.make_schedule(settings.recipe, steps), optim.make_optimiser(settings.recipe, steps)
    make = lambda: Student(material.settings, rngs=nnx.Rngs(settings.seed))  # noqa: E731
    graph, params, frozen = state.initialise(make, stage.trains)
    now = sharding.put(state.create(params, frozen, optimiser), mesh)
    train = loop.make_functions(graph, stage, optimiser, schedule, settings, mesh=mesh, like=now).train
    key, seconds = sharding.make_key(settings.seed, mesh), []
    flops = train.jitted.lower(now, batches[0], key).cost_analysis()["flops"]
    for batch in batches:
        started = time.perf_counter()
        now, metrics = train(now, sharding.shard_batch(batch, mesh), key)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]), flops / 1e9


def live(options: Options) -> dict | None:
    """What the teacher's process measured; None where it is not asked for. StoreError with its last words."""
    if not options.teacher:
        return None
    command = [sys.executable, "-m", "teacher_torch.live", *options.teacher]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StoreError(f"{' '.join(command[1:])}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(costs: dict[str, Cost], teacher: dict | None) -> rich.table.Table:
    """A row for every store."""
    names = ("store", "read ms", "step ms", "GFLOP a step", "epoch s", "teacher live ms", "times faster")
    made = rich.table.Table(*names, box=rich.box.SIMPLE)
    for url, cost in costs.items():
        ms = teacher and teacher["seconds"] * 1e3
        last = (f"{ms:.1f}", f"{cost.speedup(ms):.1f}") if ms else ("-", "-")
        numbers = (f"{cost.read:.2f}", f"{cost.step:.2f}", f"{cost.gflop:.2f}", f"{cost.epoch:.1f}")
        made.add_row(url, *numbers, *last)
    return made


def counted(cost: Cost, views: int) -> float:
    """By FLOPs alone, at the rate of this step: times faster than with the real teacher live on so many views."""
    teacher = TEACHER_TFLOP * 1e3 * views / cost.gflop * cost.step
    return cost.speedup(teacher)


def command(argv: list[str] | None = None) -> int:
    """The command; returns the exit code, 2 where the request cannot be met."""
    options = tyro.cli(Options, args=argv, prog="python -m eval.epochs", description=__doc__)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140)
    try:
        costs = {url: measure(url, options) for url in options.stores}
        teacher = live(options)
    except main.USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(table(costs, teacher))
    views = teacher["views"] if teacher else 1
    found = {url: dataclasses.asdict(cost) | {"counted_real": counted(cost, views)} for url, cost in costs.items()}
    for url, one in found.items():
        console.print(
            f"{url}: with the real teacher ({TEACHER_TFLOP} TFLOP a view, {views} views) at this step's rate, counted "
            f"not measured: {one['counted_real']:.0f} times (bar {BAR:g})",
            soft_wrap=True,
        )
    print(json.dumps({"stores": found, "teacher": teacher, "bar": BAR}))
    return 0


if __name__ == "__main__":
    sys.exit(command())
