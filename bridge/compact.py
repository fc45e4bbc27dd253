"""`python -m bridge.compact STORE --out COMPACT`: a store's tokens in blocks, their leading components in int8."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import rich.box
import rich.console
import rich.progress
import rich.table
import tensorstore as ts

from bridge import batches, compact_error, compaction, manifest, shards, standardise, store, stored_embodiment
from bridge.coding import Coding
from bridge.compaction import Choices
from bridge.manifest import StoreError
from bridge.reader import Reader

BAD_INPUT, INTERRUPTED = 2, 130
MANIFEST = "manifest.json"


def convert(reader: Reader, out: str, choices: Choices, *, like: Reader | None = None) -> Iterator[tuple[int, int]]:
    """Write the compact store of an exact one, or go on with it; (groups done, of) as each is written.

    like: a compact store whose codings are used instead of this one's own, so that both can be trained on together.
    """
    source = reader.manifest
    compaction.check(source, choices)
    files = shards.connect(out)
    begun = shards.read(files, MANIFEST)
    own = _begun(files, begun)
    if begun and not own:
        raise StoreError(f"{out} holds another extraction, an exact one: choose another --out")
    codings = like.codings if like else own or _fit(reader, choices)
    _fits(source, codings, choices)
    if begun is None:  # before the manifest, which names them; nothing is put into a store that is another's
        compaction.save(files, codings)
    writer = store.create(out, compaction.derive(source, codings, choices))
    if stored_embodiment.DIGEST in source.extraction:
        stored_embodiment.write(files, source, stored_embodiment.text(reader.embodiment()))
    pending = writer.pending()
    yield len(source.groups) - len(pending), len(source.groups)
    for done, group in enumerate(pending, len(source.groups) - len(pending) + 1):
        writer.write(group, compaction.encode(source, _group(reader, group), codings, choices))
        yield done, len(source.groups)


def _begun(files: ts.KvStore, text: bytes | None) -> dict[str, Coding]:
    """The codings of a conversion that was stopped: fitted anew, on another machine, they differ in their last bits."""
    return compaction.load(files, manifest.from_json(text.decode(), f"{files.url}{MANIFEST}")) if text else {}


def _fit(reader: Reader, choices: Choices) -> dict[str, Coding]:
    names = compaction.wide(reader.manifest, choices)

    def training() -> Iterator[dict[str, np.ndarray]]:
        for batch in batches.sample(reader.manifest, tokens=compaction.STATISTICS_TOKENS):
            records = batches.training(reader.manifest, batch)
            yield {name: np.concatenate([reader.record(name, r) for r in records]) for name in names}

    return compaction.fit(reader.manifest, training(), choices)


def _fits(source: store.Manifest, codings: dict[str, Coding], choices: Choices) -> None:
    """StoreError where the codings are of other features than these."""
    wanted = {name: source.features[name].shape[0] for name in compaction.wide(source, choices)}
    if found := {name: one.width for name, one in codings.items() if wanted.get(name) != one.width}:
        raise StoreError(
            f"--like: codes {found} (feature: width), this store has {wanted}: give one of the same teacher"
        )
    if found := {one.grid for one in codings.values()} - {source.teacher.grid}:
        raise StoreError(
            f"--like: codes tiles of {found.pop()} tokens a side, this store's have {source.teacher.grid}: give one of "
            "the same teacher"
        )
    if missing := wanted.keys() - codings.keys():
        raise StoreError(f"--like: does not code {', '.join(sorted(missing))}: leave them out with --drop")


def _group(reader: Reader, group: int) -> dict[str, np.ndarray]:
    rows = reader.manifest.rows(group)
    starts = {name: np.array([group * axis.shard]) for name, axis in reader.manifest.axes.items()}
    return {n: reader.read(n, starts[f.axis], rows[f.axis])[0] for n, f in reader.manifest.features.items()}


def describe(exact: Reader, compact: Reader, console: rich.console.Console) -> None:
    """Print bytes of an example in both stores, and what the validation split's features lost."""
    table = rich.table.Table("", "exact B", "compact B", "how", box=rich.box.SIMPLE)
    for row in compact_error.sizes(exact.manifest, compact.manifest):
        table.add_row(*map(str, row))
    console.print(table)
    for line in compact_error.measured(exact, compact):
        console.print(line, highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m bridge.compact", description=__doc__)
    made.add_argument("store", help="an exact store: a folder, or a URL that tensorstore opens")
    made.add_argument("--out", required=True, help="the compact store; stopped, the same command goes on with it")
    made.add_argument("--like", help="a compact store whose bases are used, so that both can be trained on together")
    made.add_argument("--components", type=int, default=Choices.components, help="most values of a block (%(default)s)")
    share = "share of the tokens' variance that is enough (%(default)s)"
    made.add_argument("--variance", type=float, default=Choices.variance, help=share)
    left = "features that are left out (%(default)s)"
    made.add_argument("--drop", nargs="*", default=list(Choices.drop), help=left, metavar="NAME")
    return made


def run(options: argparse.Namespace, console: rich.console.Console) -> None:
    """From options to a finished store."""
    choices = compaction.choose(options.components, options.variance, options.drop)
    exact = store.open(options.store)
    like = store.open(options.like) if options.like else None
    with rich.progress.Progress(console=console) as progress:
        bar = progress.add_task("statistics", total=None)
        for done, total in convert(exact, options.out, choices, like=like):
            progress.update(bar, description="writing groups", completed=done, total=total)
    describe(exact, store.open(options.out), console)
    console.print(f"{options.out}: complete; check it with python -m bridge.validate {options.out}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 2 where the request cannot be met, 130 where it was interrupted."""
    options = parser().parse_args(arguments)
    try:
        run(options, rich.console.Console(width=None if sys.stdout.isatty() else 120))
    except (StoreError, standardise.StatisticsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: what is committed is kept; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
