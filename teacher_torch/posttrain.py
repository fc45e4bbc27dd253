"""Post-train a teacher: on ARC (the stand-in from scratch, or a grid decoder over a frozen teacher), or on a robot."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import torch
import transformers
import tyro
from rich import console, table

from bridge import arc, episodes, scene
from bridge import embodiment as embodiments
from teacher_torch import (
    decoder,
    lesson,
    phases,
    provenance,
    request,
    robot_inputs,
    robot_posttrain,
    standin,
    tracking,
    trainees,
)
from teacher_torch.groot import checkpoint
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.lesson import Options
from teacher_torch.robot_lesson import Options as RobotOptions

PROBE = "probe.json"  # what was measured on a frozen teacher; our own weights have provenance.json
USER_ERRORS = (
    FileNotFoundError,
    phases.TrainingError,
    provenance.ProvenanceError,
    checkpoint.CheckpointError,
    ConfigError,
    TokenizerError,
    trainees.DiskError,
    episodes.DatasetError,
    embodiments.EmbodimentError,
    robot_inputs.RobotInputError,
    scene.SimulatorError,
)
STAND_IN = {
    "what": "GR00T N1.5's classes at a size that two cores can train. The vision tower learned to tell every cell's "
    "colour from the image token over it (the stand-in for what SigLIP's pre-training brings), the language model "
    "learned ARC tasks with a grid decoder. The action head is random.",
    "licence": "Apache-2.0",
}


def main(argv: list[str] | None = None) -> None:
    """Command line: exit code 2 and one line on whatever the user can mend."""
    argv = sys.argv[1:] if argv is None else argv
    robot = lesson.task_of(argv) == "robot"
    options = tyro.cli(RobotOptions if robot else Options, args=argv, prog="python -m teacher_torch.posttrain")
    torch.set_num_threads(options.threads)
    try:
        folder, content = robot_posttrain.train(options, argv) if robot else train(options, argv)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    (robot_posttrain.show if robot else show)(content["measured"])
    print(f"{content['provenance']} teacher {content['id']}: {folder}")


def train(options: Options, argv: list[str]) -> tuple[pathlib.Path, dict[str, Any]]:
    """Train what the options ask for, or go on with it; the folder and what was written about it."""
    own = options.teacher in standin.COMMANDS
    folder = options.out or default_folder(options.teacher)
    teacher = None if own else standin.resolve(options.teacher)
    account = folder / (provenance.FILE if own else PROBE)
    settings = options.settings(options.teacher if own else teacher.digest)
    if done := tracking.begin(folder, account, settings, resume=options.resume):
        return folder, done
    trainee = make_standin(options) if own else make_probe(options, teacher, folder)
    train_tasks, held_out = (arc.splits(1)[split][: options.limit] for split in ("train", "validation"))
    recipe = options.recipe()
    plan = trainee.phases(train_tasks, **({"vision": recipe.vision} if own else {}), cells=recipe.tasks)
    run = phases.Run(folder, trainee.modules, plan, settings=settings, save_every=options.save_every)
    if options.resume:
        run.resume()
    display = tracking.Display({phase.name: phase.steps for phase in plan})
    with display.progress:
        if not own:
            fill(trainee, display, [*train_tasks, *held_out])
        run.train(display.advance)
    content = {
        "id": options.teacher,
        "provenance": provenance.STAND_IN if own else teacher.provenance,
        "command": f"python -m teacher_torch.posttrain {shlex.join(argv)}".strip(),
        "settings": settings,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "measured": trainee.measure(held_out),
        "measured_on": f"ARC-1 validation, {len(held_out)} tasks, none trained on",
    }
    return folder, finish(folder, account, trainee, content, own=own)


def default_folder(teacher: str) -> pathlib.Path:
    """Where a stand-in is looked for by name; a folder of its own for the probe of any other teacher."""
    if teacher in standin.COMMANDS:
        return standin.HOME / teacher
    return pathlib.Path("runs/probes", pathlib.Path(teacher).name)


def make_standin(options: Options) -> trainees.StandInTrainee:
    """An untrained stand-in."""
    tokens = standin.make_tokenizer()
    return trainees.StandInTrainee(standin.make_config(tokens), tokens, seed=options.seed)


def make_probe(options: Options, teacher: standin.Teacher, folder: pathlib.Path) -> trainees.FrozenTrainee:
    """A decoder over a frozen teacher."""
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if teacher.provenance == provenance.REAL else torch.float32
    model = checkpoint.load(teacher.folder, dtype=dtype, device=device, features_only=True)
    words = request.load_tokenizer(options.tokenizer, teacher)
    cache = folder / "features" / f"{teacher.digest[:12]}-{options.max_tiles}"
    return trainees.FrozenTrainee(model, words, cache=cache, max_tiles=options.max_tiles, seed=options.seed)


def fill(trainee: trainees.FrozenTrainee, display: tracking.Display, tasks: list[arc.Task]) -> None:
    """Compute the features that are not cached yet, with a bar of their own."""
    bar = display.progress.add_task("features", total=None, losses="")
    trainee.fill(tasks, lambda done, total: display.progress.update(bar, completed=done, total=total))


def finish(
    folder: pathlib.Path, account: pathlib.Path, trainee: Any, content: dict[str, Any], *, own: bool
) -> dict[str, Any]:
    """Write decoder, weights, token table and, last, the account of them, which makes the run a finished one."""
    decoder.save(trainee.decoder, folder)
    if own:
        content = content | STAND_IN
        standin.make_tokenizer().save(folder)
        checkpoint.save(trainee.model.bfloat16(), folder)
        provenance.write(folder, content)
    else:
        partial = account.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1, allow_nan=False))
        os.replace(partial, account)
    (folder / phases.SNAPSHOT).unlink(missing_ok=True)
    return content


def show(measured: Mapping[str, float]) -> None:
    """Print what was measured: the probe beside its baselines, then everything about the image tokens."""
    names = ("size", "cells", "exact")
    rows = table.Table("ARC validation", *names, title=f"{measured['queries']} queries, cells inside the true grid")
    for who in ("probe", "copy", "constant"):
        rows.add_row(who, *(f"{measured[f'{who}.{name}']:.3f}" for name in names))
    console.Console().print(rows)
    for name, value in measured.items():
        if name.startswith(("vision.", "tokens.")) or name == "probe.cells_at_true_size":
            print(f"{name:32} {value:.4f}")


if __name__ == "__main__":
    main()
