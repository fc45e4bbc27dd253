"""`python -m teacher_torch.extract`: run a teacher over a task's records and write its features to a store."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import rich.console
import rich.filesize
import torch
import tyro

from bridge.embodiment import EmbodimentError
from bridge.lerobot_files import DatasetError
from bridge.manifest import Manifest, StoreError
from bridge.standardise import StatisticsError
from bridge.store import Writer
from teacher_torch import arc_request, extraction, lesson, packing, plan, progress, robot_request, workers
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.packing import Packing
from teacher_torch.plan import PlanError
from teacher_torch.provenance import ProvenanceError
from teacher_torch.request import RANDOM, Setting
from teacher_torch.robot_inputs import RobotInputError
from teacher_torch.workers import WorkerError

USER_ERRORS = (
    *(StoreError, PlanError, FileNotFoundError, CheckpointError, ConfigError, ProvenanceError, TokenizerError),
    *(DatasetError, EmbodimentError, RobotInputError, StatisticsError, WorkerError),
)
INTERRUPTED = 130


def run(
    options: arc_request.Options | robot_request.Options, console: rich.console.Console, watch: progress.Watch
) -> None:
    """From options to a finished share of a store; raises one of USER_ERRORS where they cannot be met."""
    robot = isinstance(options, robot_request.Options)
    setting = robot_request.Setting(options) if robot else arc_request.Setting(options)
    if torch.device(setting.device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed one
        torch.use_deterministic_algorithms(True)
    recorded = setting.recorded_batch()
    if recorded and not options.resume:
        raise PlanError(f"{setting.out} exists: leave out --no-resume to go on with it, or choose another --out")
    draft = setting.manifest(recorded or 1)
    announce(setting, draft, console)
    if recorded:
        pending = begun(setting)[1].pending(setting.shard)
    else:
        pending = list(range(len(draft.groups)))[setting.shard[0] :: setting.shard[1]]
    if pending:
        check_disk(setting.out, plan.disk_bytes(packing.expect(draft, setting.choices), pending), console)
        needed, with_head = setting.needs(draft)
        model = setting.load_model(with_head=with_head) if needed else None
        packed, writer = begun(setting) if recorded else begin(setting, model)
        records = sum(last - first for first, last in (draft.groups[group] for group in pending))
        with watch(records) as report, torch.inference_mode():
            given = {"model": model, "source": setting.source, "packing": packed}
            extraction.write_groups(writer, pending, **given, report=report)
    conclude(setting, console)


def begin(setting: Setting, model: Groot | None) -> tuple[Packing, Writer]:
    """Begin a store, unless another worker was first: then its batch size and codings hold."""
    if setting.recorded_batch() is None:
        laid_out = setting.manifest(setting.fit_batch(model))
        made = packing.make(setting.out, laid_out, setting.choices, model=model, source=setting.source)
        try:
            return made, setting.begin(made.written)
        except StoreError:
            if setting.recorded_batch() is None:
                raise
    return begun(setting)


def begun(setting: Setting) -> tuple[Packing, Writer]:
    """A store that was begun; StoreError where it was begun with other options."""
    read = packing.read(setting.out, setting.manifest(setting.recorded_batch()), setting.choices)
    return read, setting.begin(read.written)


def conclude(setting: Setting, console: rich.console.Console) -> None:
    """Say what is left, and what to do next."""
    left = begun(setting)[1].pending()
    rest = f"{len(left)} groups are left to other shards" if left else "complete"
    console.print(f"{setting.out}: {rest}; check it with python -m bridge.validate {setting.out}", soft_wrap=True)


def announce(setting: Setting, draft: Manifest, console: rich.console.Console) -> None:
    """Say what will be extracted from what."""
    teacher, described = setting.teacher, draft.teacher
    console.print(
        f"teacher {teacher.id} ({teacher.provenance}), {setting.dtype} on {setting.device}, "
        f"{described.tiles} tiles and {described.tokens} image tokens a frame"
    )
    if teacher.id == RANDOM:
        console.print(
            "RANDOM weights: these features mean nothing. Train the stand-in with "
            f"python -m teacher_torch.posttrain --task {setting.options.task}, or name a --teacher",
            style="bold yellow",
        )
    for warning in setting.warnings():
        console.print(f"WARNING: {warning}", style="bold red", soft_wrap=True)
    lengths = sorted(set(draft.axes["token"].counts))
    console.print(
        f"{setting.summary(draft)}, {draft.size} records of {spelled(lengths)} "
        f"tokens, {len(draft.groups)} groups; {', '.join(draft.features)}",
        highlight=False,
        soft_wrap=True,
    )


def spelled(lengths: Sequence[int]) -> str:
    """Prompt lengths in words."""
    return " or ".join(map(str, lengths)) if len(lengths) < 4 else f"{lengths[0]} to {lengths[-1]}"


def check_disk(out: str, needed: int, console: rich.console.Console) -> None:
    """Print what will be written; raise PlanError where a local disk has no room for it."""
    size = rich.filesize.decimal(needed)
    if "://" in out:
        console.print(f"to write: about {size} to {out}")
        return
    folder = pathlib.Path(out).resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    console.print(f"to write: about {size} to {out}, {rich.filesize.decimal(free)} free", soft_wrap=True)
    if needed > free:
        raise PlanError(
            f"{out}: about {size} to write and {rich.filesize.decimal(free)} free; choose another --out, fewer "
            "--features or --splits, or a --limit"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 2 where the request cannot be met, 130 where it was interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    kind = robot_request.Options if lesson.task_of(arguments) == "robot" else arc_request.Options
    options = tyro.cli(kind, args=arguments, prog="python -m teacher_torch.extract")
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    try:
        workers.check(options)
        if options.workers > 1:
            workers.run(options, run, USER_ERRORS, console)
        else:
            run(options, console, progress.on(console))
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is committed is kept; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
