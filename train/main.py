"""`python -m train.main`: trains one stage of the student from a feature store."""

import dataclasses
import math
import pathlib
import shlex
import sys
from typing import Any

import jax
from flax import nnx

from bridge import manifest, shards, standardise, store
from student_jax.student import Student
from train import (
    checkpoint,
    compact,
    config,
    data,
    display,
    loop,
    metrics,
    optim,
    puzzles,
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
BAD_INPUT, NON_FINITE = 2, 3


def main(argv: list[str] | None = None) -> int:
    """Runs the command; 0 when training is over, 2 on bad input, 3 on a non-finite loss, 128 + n after signal n."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = config.parse(argv)
        return in_rounds(options, argv) if options.visits.rounds else train(options, argv)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except metrics.NonFiniteError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return NON_FINITE


def train(options: config.Config, argv: list[str]) -> int:
    """One run from first step or checkpoint to the end; returns the exit code."""
    launch, recipe = options.launch, options.recipe
    stages.select(options, None)
    reader = open_store(launch.store)
    stage = stages.select(options, reader.manifest.task)
    warm.check(options.init, reader, trains=alone(options))
    if stage is stages.END_TO_END and warm.orchestrated(options.init):
        stage = stages.TOGETHER
    mesh = sharding.make_mesh(recipe.batch, launch.host_devices)
    material = sources.open_material(reader, stage, options, warm.words_of(options.init))
    found, settings = material.sources, material.settings
    steps = recipe.steps or math.ceil(recipe.epochs * len(found.train) / recipe.batch)
    run = record.make(options, settings, reader.manifest, steps=steps, devices=mesh.size)
    record.begin(launch.out, run, resume=launch.resume)

    schedule, optimiser = optim.make_schedule(recipe, steps), optim.make_optimiser(recipe, steps)
    graph, params, frozen = state.initialise(lambda: Student(settings, rngs=nnx.Rngs(options.seed)), stage.trains)
    params, frozen = warm.start(params, frozen, options.init, trains=alone(options))
    now = state.create(params, frozen, optimiser)
    now, progress = begin_or_resume(now, stage, found.train, run, mesh)
    keep(launch.out, reader, material)
    stage = compact.understood(stage, reader)
    functions = loop.make_functions(graph, stage, optimiser, schedule, options, mesh)
    trainer = loop.Trainer(options, stage, functions, found, mesh, steps=steps, now=now, progress=progress)
    with display.Display(steps, start=progress.step) as show, loop.Interrupt() as interrupt:
        introduce(show, run, stage, found, params)
        try:
            progress = trainer.fit(show, interrupt)
        finally:
            trainer.close()
    if progress.finished and stage.orchestrates:
        witness.save(witness.make(checkpoint.load_student(launch.out, "last")[0], reader, material.words), launch.out)
    return conclude(options, argv, progress, interrupt.signal, stage.metric)


def in_rounds(options: config.Config, argv: list[str]) -> int:
    """Rounds of teacher labels, which need the simulator; ConfigError where it is not installed."""
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
    whole, options = sharding.replicated(mesh), run.config
    launch = options.launch
    last = checkpoint.Slot(launch.out / "last")
    if launch.resume and last.newest() is not None:
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), now)
        restored, saved = last.load(like)
        return restored, loop.Progress(**saved)
    statistics = stage.statistics(frames)
    statistics = warm.constants(now.frozen, statistics, options.init, trains=alone(options))
    frozen = state.replace_leaves(now.frozen, statistics)
    return jax.device_put(dataclasses.replace(now, frozen=frozen), whole), loop.Progress()


def introduce(show: display.Display, run: record.Record, stage: stages.Stage, found: loop.Sources, params: Any) -> None:
    """Says what is about to be trained on what."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    teacher, recipe = run.teacher, run.config.recipe
    show.say(
        f"{stage.name}: {size:,} trainable values, {run.steps:,} steps of {recipe.batch} on {run.devices} devices, "
        f"{len(found.train):,} training and {len(found.validation):,} validation samples "
        f"of {teacher['id']} ({teacher['provenance']})"
    )


def conclude(options: config.Config, argv: list[str], progress: loop.Progress, signal: int, metric: str) -> int:
    """Says how it ended and what to run next; returns the exit code."""
    launch = options.launch
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
