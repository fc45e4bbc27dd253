"""`python -m teacher_torch.extract`: run a teacher over a task's records and write its features to a store."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import rich.console
import rich.filesize
import rich.progress
import torch
import tyro

from bridge import store
from bridge.manifest import Manifest, StoreError
from bridge.store import Writer
from teacher_torch import extraction, plan
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.plan import PlanError
from teacher_torch.provenance import ProvenanceError
from teacher_torch.request import RANDOM, Options, Setting

USER_ERRORS = (StoreError, PlanError, FileNotFoundError, CheckpointError, ConfigError, ProvenanceError, TokenizerError)
INTERRUPTED = 130


def run(options: Options, console: rich.console.Console) -> None:
    """From options to a finished share of a store; raises one of USER_ERRORS where they cannot be met."""
    setting = Setting(options)
    if torch.device(setting.device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed one
        torch.use_deterministic_algorithms(True)
    recorded = setting.recorded_batch()
    if recorded and not options.resume:
        raise PlanError(f"{setting.out} exists: leave out --no-resume to go on with it, or choose another --out")
    draft = setting.manifest(recorded or 1)
    announce(setting, draft, console)
    if recorded:
        pending = store.create(setting.out, draft).pending(setting.shard)
    else:
        pending = list(range(len(draft.groups)))[setting.shard[0] :: setting.shard[1]]
    if pending:
        check_disk(setting.out, plan.disk_bytes(draft, pending), console)
        model = setting.load_model() if plan.tapped(options.features) else None
        size = recorded or setting.fit_batch(model)
        writer = store.create(setting.out, setting.manifest(setting.recorded_batch() or size))
        write(writer, pending, setting, model, console)
    left = store.create(setting.out, setting.manifest(setting.recorded_batch())).pending()
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
            "python -m teacher_torch.posttrain --task arc, or name a --teacher",
            style="bold yellow",
        )
    tasks = len(set(draft.records["task"]))
    lengths = sorted(set(draft.axes["token"].counts))
    limited = f" (at most {setting.limit} a split)" if setting.limit else ""
    console.print(
        f"{setting.options.dataset}: {tasks} tasks{limited}, {draft.size} records of {' or '.join(map(str, lengths))} "
        f"tokens, {len(draft.groups)} groups; {', '.join(draft.features)}",
        highlight=False,
        soft_wrap=True,
    )


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
            "--features or --splits, --limit, or --tiles 1"
        )


def write(writer: Writer, pending: Sequence[int], setting: Setting, model, console: rich.console.Console) -> None:
    """Extract the pending groups under a progress bar with the rates and the time left."""
    records = [record for _, record in setting.records]
    groups = writer.manifest.groups
    columns = (
        rich.progress.TextColumn("extracting"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=sum(groups[g][1] - groups[g][0] for g in pending), rate="")
        written = 0

        def report(count: int, size: int) -> None:
            nonlocal written
            written += size
            task = progress.tasks[0]
            seconds = max(task.elapsed or 0, 1e-9)
            rate = f"{(task.completed + count) / seconds:.1f} records/s, {written / seconds / 1e9:.4f} GB/s"
            progress.update(bar, advance=count, rate=rate)

        with torch.inference_mode():
            extraction.write_groups(writer, pending, records, model=model, preparer=setting.preparer, report=report)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 2 where the request cannot be met, 130 where it was interrupted."""
    options = tyro.cli(Options, args=arguments, prog="python -m teacher_torch.extract")
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    try:
        run(options, console)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is committed is kept; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
