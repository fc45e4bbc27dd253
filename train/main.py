"""`python -m train.main`: trains one stage of the student from a feature store."""

import dataclasses
import functools
import math
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from bridge import manifest, shards, standardise, store
from student_jax.student import Student
from train import (
    checkpoint,
    cluster,
    compact,
    config,
    data,
    display,
    footprint,
    loop,
    metrics,
    optim,
    puzzles,
    recipes,
    record,
    sharding,
    sources,
    stages,
    state,
    warm,
    witness,
    words,
)

USER_ERRORS = (
    config.ConfigError,
    data.DataError,
    checkpoint.CheckpointError,
    standardise.StatisticsError,
    manifest.StoreError,
    words.WordsError,
)
BAD_INPUT, NON_FINITE, LOST = 2, 3, 4


def main(argv: list[str] | None = None) -> int:
    """Runs the command; 0 when training is over, 2 on bad input, 3 on a non-finite loss, 4 where another process of
    several was lost, 128 + n after signal n."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = recipes.parse(argv)
        cluster.join(options.cluster)
        return in_rounds(options, argv) if options.visits.rounds else train(options, argv)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return cluster.ended(BAD_INPUT)
    except metrics.NonFiniteError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return cluster.ended(NON_FINITE)
    except jax.errors.JaxRuntimeError as error:
        if not cluster.joined():
            raise
        print(f"stopped: another process is gone ({str(error).splitlines()[0]}); go on with --resume", file=sys.stderr)
        return cluster.ended(LOST)


def train(options: config.Config, argv: list[str]) -> int:
    """One run from first step or checkpoint to the end; returns the exit code."""
    launch, recipe = options.launch, options.recipe
    stages.select(options, None)
    reader = open_store(launch.store)
    stage = chosen(options, reader)
    mesh = sharding.make_mesh(
        recipe.batch, launch.host_devices, fsdp=options.scale.fsdp, accumulate=options.scale.accumulate
    )
    material = sources.open_material(reader, stage, options, warm.words_of(options.init))
    found, settings = material.sources, material.settings
    stage = compact.understood(stage, reader)
    steps = recipe.steps or math.ceil(recipe.epochs * len(found.train) / recipe.batch)
    count = jax.process_count()
    run = record.make(options, settings, reader.manifest, steps=steps, devices=mesh.size, processes=count)
    if not options.cluster.dry_run:
        cluster.led(lambda: record.begin(launch.out, run, resume=launch.resume))

    schedule, optimiser = optim.make_schedule(recipe, steps), optim.make_optimiser(recipe, steps)
    graph, params, frozen = state.initialise(lambda: Student(settings, rngs=nnx.Rngs(options.seed)), stage.trains)
    params, frozen = warm.start(params, frozen, options.init, trains=alone(options))
    now = state.create(params, frozen, optimiser)
    build = functools.partial(loop.make_functions, graph, stage, optimiser, schedule, mesh=mesh, like=now)
    functions, given = build(options), first_step(now, found.train, options, mesh)
    if options.cluster.dry_run:
        return dry_run(build, given, run, mesh)
    now, progress = begin_or_resume(now, stage, found.train, run, mesh)
    if cluster.leads():
        keep(launch.out, reader, material)
    trainer = loop.Trainer(options, stage, functions, found, mesh, steps=steps, now=now, progress=progress)
    with display.Display(steps, start=progress.step, silent=not cluster.leads()) as show, loop.Interrupt() as interrupt:
        try:
            introduce(show, run, stage, found, footprint.predict(functions.train, given, mesh))
            progress = trainer.fit(show, interrupt)
        finally:
            trainer.close()
    if progress.finished and stage.orchestrates:
        keep_witness(launch.out, reader, material)
    return conclude(options, argv, progress, interrupt.agreed, stage.metric)


def chosen(options: config.Config, reader: store.Reader | puzzles.Generated) -> stages.Stage:
    """The stage for this store; end-to-end on top of an orchestrated run trains the orchestrator too."""
    stage = stages.select(options, reader.manifest.task)
    warm.check(options.init, reader, trains=alone(options))
    together = stage is stages.END_TO_END and warm.orchestrated(options.init)
    return stages.TOGETHER if together else stage


def keep_witness(folder: pathlib.Path, reader: store.Reader, material: sources.Material) -> None:
    """What the host tells by whether a module was right, made by all processes and written by the first."""
    judge = witness.make(checkpoint.load_student(folder, "last")[0], reader, material.words)
    if cluster.leads():
        witness.save(judge, folder)


def in_rounds(options: config.Config, argv: list[str]) -> int:
    """Rounds of teacher labels, which need the simulator; ConfigError where it is not installed."""
    if options.cluster.coordinator or options.cluster.dry_run:
        raise config.ConfigError(
            "--rounds is for one process and no --dry-run: leave --rounds out to try the first run"
        )
    try:
        from train import rounds
    except ModuleNotFoundError as error:
        raise config.ConfigError(
            f"--rounds acts in the simulator, which needs {error.name}: pip install 'sage-distill[sim]'"
        ) from error
    return rounds.train(options, argv, train)


def open_store(url: str) -> store.Reader | puzzles.Generated:
    """The feature store; an empty name is an error that names the command which makes one."""
    if not url:
        raise config.ConfigError("--store is needed; make one: python -m teacher_torch.extract --task arc --out STORE")
    most = puzzles.size(url)
    return puzzles.Generated(most) if most else store.open(url)


def keep(folder: pathlib.Path, reader: store.Reader | puzzles.Generated, material: sources.Material) -> None:
    """Put what a policy needs beside its weights: the tokenizer, and the embodiment it speaks for."""
    if material.words is None:
        return
    (folder / warm.WORDS).write_text(material.words.to_json(), encoding="utf-8")
    (folder / warm.EMBODIMENT).write_bytes(shards.read(reader.files, warm.EMBODIMENT))


def alone(options: config.Config) -> str | None:
    """The component that is trained; None where all are."""
    return options.component if options.stage == "components" else None


def begin_or_resume(
    now: state.TrainState, stage: stages.Stage, frames: Any, run: record.Record, mesh: Any
) -> tuple[state.TrainState, loop.Progress]:
    """The state to go on from: the newest `last`, or a fresh one with the statistics of the training split."""
    options, launch = run.config, run.config.launch
    last = checkpoint.Slot(launch.out / "last")
    if launch.resume and last.newest() is not None:
        like = footprint.shapes(now, mesh)
        restored, saved = last.load(like)
        return restored, loop.Progress(**saved)
    statistics = stage.statistics(frames)
    statistics = warm.constants(now.frozen, statistics, options.init, trains=alone(options))
    frozen = state.replace_leaves(now.frozen, statistics)
    return sharding.put(dataclasses.replace(now, frozen=frozen), mesh), loop.Progress()


def first_step(now: state.TrainState, source: data.Source, options: config.Config, mesh: Any) -> footprint.Arguments:
    """What the first step is given, in shapes."""
    batch, rows = options.recipe.batch, sharding.rows(mesh, options.recipe.batch)
    first = data.training(source, batch=batch, seed=options.seed, rows=rows)[0]
    return footprint.arguments(now, first, batch, mesh)


def dry_run(build: Callable[..., loop.Functions], given: footprint.Arguments, run: record.Record, mesh: Any) -> int:
    """Says what the run would need, and ends; ConfigError where the device has too little."""
    options = run.config
    needs = footprint.predict(build(options).train, given, mesh)
    plainly = build(dataclasses.replace(options, scale=dataclasses.replace(options.scale, accumulate=1, remat=False)))
    told = [
        ("devices", f"{run.devices} in {run.processes} processes, state over {options.scale.fsdp}"),
        ("steps", f"{run.steps:,} of {options.recipe.batch} samples in {options.scale.accumulate} parts"),
        *needs.rows(),
        ("FLOPs of a step", f"{footprint.flops(plainly.train, given):.4g}"),
    ]
    for name, value in told if cluster.leads() else ():
        print(f"{name:30} {value}")
    needs.check()
    return 0


def introduce(
    show: display.Display, run: record.Record, stage: stages.Stage, found: loop.Sources, needs: footprint.Footprint
) -> None:
    """Says what is about to be trained on what, and what it takes; ConfigError where the device has too little."""
    teacher, recipe = run.teacher, run.config.recipe
    show.say(
        f"{stage.name}: {needs.parameters:,} trainable values, {run.steps:,} steps of {recipe.batch} "
        f"on {run.devices} devices, "
        f"{len(found.train):,} training and {len(found.validation):,} validation samples "
        f"of {teacher['id']} ({teacher['provenance']})"
    )
    show.say(needs.told())
    needs.check()


def conclude(options: config.Config, argv: list[str], progress: loop.Progress, signal: int, metric: str) -> int:
    """Says how it ended and what to run next; returns the exit code."""
    launch = options.launch
    if not cluster.leads():
        return 128 + signal if signal and not progress.finished else 0
    if not progress.finished:
        kept = [word for word in argv if word not in ("--resume", "--no-resume")]
        kept = without(kept, "--stop-after")
        print(f"saved at step {progress.step}; go on: python -m train.main {shlex.join([*kept, '--resume'])}")
        return 128 + signal if signal else 0
    best = f"best {metric} {progress.best:.4f} at step {progress.best_step}"
    print(f"done: {progress.finished}; {best}, in {launch.out / 'best'}")
    print(f"next: python -m eval.benchmark {shlex.join(reported(options))}")
    return 0


def reported(options: config.Config) -> list[str]:
    """How to report the run: beside its teacher where it has one, a baseline beside a student."""
    out = str(options.launch.out)
    if options.instead.baseline:
        return ["--run", "STUDENT", "--control", f"{options.instead.baseline}={out}", "--out", "runs/report"]
    arguments, teacher = ["--run", out], record.read(options.launch.out).teacher["id"]
    if not puzzles.size(options.launch.store):
        named = teacher.startswith("standin-") or "/" in teacher  # else it is the bare name of a folder somewhere
        arguments += ["--store", options.launch.store, "--teacher", teacher if named else "ITS-FOLDER"]
    return [*arguments, "--out", "runs/report"]


def without(words: list[str], flag: str) -> list[str]:
    """`words` less `flag VALUE` and `flag=VALUE`."""
    kept, skip = [], False
    for word in words:
        if not (skip or word == flag or word.startswith(f"{flag}=")):
            kept.append(word)
        skip = word == flag
    return kept


if __name__ == "__main__":
    sys.exit(main())
