"""Post-train a teacher on ARC: the stand-in from scratch, or a grid decoder over a frozen teacher's features."""

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
from rich import console, progress, table

from bridge import arc
from teacher_torch import decoder, phases, provenance, request, standin, trainees
from teacher_torch.groot import checkpoint
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.lesson import Options

PROBE = "probe.json"  # what was measured on a frozen teacher; our own weights have provenance.json
USER_ERRORS = (
    FileNotFoundError,
    phases.TrainingError,
    provenance.ProvenanceError,
    checkpoint.CheckpointError,
    ConfigError,
    TokenizerError,
    trainees.DiskError,
)
STAND_IN = {
    "what": "GR00T N1.5's classes at a size that two cores can train. The vision tower learned to tell every cell's "
    "colour from the image token over it (the stand-in for what SigLIP's pre-training brings), the language model "
    "learned ARC tasks with a grid decoder. The action head is random.",
    "licence": "Apache-2.0",
}


class Display:
    """A progress bar per phase, with the last losses beside it."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        columns = ("[progress.description]{task.description:9}", progress.BarColumn(), progress.MofNCompleteColumn())
        times = (progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(), "{task.fields[losses]}")
        self.progress = progress.Progress(*columns, *times, console=console.Console(stderr=True))
        self.bars = {name: self.progress.add_task(name, total=total, losses="") for name, total in totals.items()}

    def advance(self, name: str, done: int, metrics: Mapping[str, float]) -> None:
        """Show that `done` steps of a phase are done."""
        losses = "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if k not in ("gradient_norm", "rate"))
        self.progress.update(self.bars[name], completed=done, losses=losses)


def main(argv: list[str] | None = None) -> None:
    """Command line: exit code 2 and one line on whatever the user can mend."""
    options = tyro.cli(Options, args=argv, prog="python -m teacher_torch.posttrain")
    torch.set_num_threads(options.threads)
    try:
        folder, content = train(options, sys.argv[1:] if argv is None else argv)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    show(content["measured"])
    print(f"{content['provenance']} teacher {content['id']}: {folder}")


def train(options: Options, argv: list[str]) -> tuple[pathlib.Path, dict[str, Any]]:
    """Train what the options ask for, or go on with it; the folder and what was written about it."""
    own = options.teacher in standin.COMMANDS
    folder = options.out or default_folder(options.teacher)
    teacher = None if own else standin.resolve(options.teacher)
    account = folder / (provenance.FILE if own else PROBE)
    settings = options.settings(options.teacher if own else teacher.digest)
    if done := begin(folder, account, settings, resume=options.resume):
        return folder, done
    trainee = make_standin(options) if own else make_probe(options, teacher, folder)
    train_tasks, held_out = (arc.splits(1)[split][: options.limit] for split in ("train", "validation"))
    recipe = options.recipe()
    plan = trainee.phases(train_tasks, **({"vision": recipe.vision} if own else {}), cells=recipe.tasks)
    run = phases.Run(folder, trainee.modules, plan, settings=settings, save_every=options.save_every)
    if options.resume:
        run.resume()
    display = Display({phase.name: phase.steps for phase in plan})
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


def begin(
    folder: pathlib.Path, account: pathlib.Path, settings: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Make the folder, or say what a finished run in it found. Raises TrainingError where something is in the way."""
    held = [name for name in (account.name, phases.SNAPSHOT, phases.METRICS) if (folder / name).exists()]
    if held and not resume:
        raise phases.TrainingError(
            f"{folder} already holds a run ({', '.join(held)}): give --resume to go on with it, or another --out"
        )
    if not account.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return None
    done = json.loads(account.read_text())
    if done.get("settings") != settings:
        raise phases.TrainingError(
            f"{account} is of a finished run with other settings. Its own: {done.get('settings')}; asked for: "
            f"{dict(settings)}. Give another --out, or remove the folder"
        )
    return done


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


def fill(trainee: trainees.FrozenTrainee, display: Display, tasks: list[arc.Task]) -> None:
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
