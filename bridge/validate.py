"""`python -m bridge.validate STORE`: is a feature store whole and sane, and what is in it? Exit code 1 on any fault."""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.progress
import rich.table

from bridge import arc, store, summary
from bridge.manifest import SPLITS, StoreError
from bridge.reader import Reader
from bridge.summary import Summary

BLOCK = 1 << 22  # values summarised at a time
SUM_ERROR = 1e-3  # of an attention row that should sum to 1


def check(reader: Reader, summaries: dict[str, Summary]) -> Iterator[list[str]]:
    """For every group: the faults of its files and values; its values go into `summaries`."""
    committed = set(reader.committed)
    for group in range(len(reader.manifest.groups)):
        if group not in committed:
            yield [f"group {group}: not committed; run the same extract command again: it writes what is missing"]
            continue
        faults = reader.faults(group)
        yield faults or [f"group {group}, {fault}" for fault in _check_values(reader, group, summaries)]


def _check_values(reader: Reader, group: int, summaries: dict[str, Summary]) -> Iterator[str]:
    manifest = reader.manifest
    rows = manifest.rows(group)
    for name, feature in manifest.features.items():
        start = group * manifest.axes[feature.axis].shard
        values = reader.read(name, np.array([start]), rows[feature.axis])[0]
        if feature.dtype in ("bfloat16", "float32"):
            flat = values.reshape(len(values), -1)
            if not np.isfinite(flat).all():
                yield f"{name}: {np.count_nonzero(~np.isfinite(flat))} values are not finite"
                continue
            _summarise(summaries.setdefault(name, Summary.empty(flat.shape[1])), flat)
        if name in CHECKS:
            first, last = manifest.groups[group]
            ends = np.cumsum(reader.counts[feature.axis][first:last])[:-1]
            yield from (f"{name}: {fault}" for fault in CHECKS[name](reader, np.split(values, ends), first))


def _summarise(into: Summary, rows: np.ndarray) -> None:
    step = max(BLOCK // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        into.add(rows[start : start + step])


def _cells(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, frames in enumerate(records, first):
        try:
            for frame in frames:
                arc.grid(frame)
        except arc.ArcError as error:
            yield f"{_named(reader, index)}: {error}"
        if frames.max() > arc.OUTSIDE:
            yield f"{_named(reader, index)}: cell code {frames.max()}, the largest is {arc.OUTSIDE}"


def _attention(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    tile = reader.manifest.teacher.grid**2
    for index, values in enumerate(records, first):
        sums = values.reshape(-1, tile).sum(axis=1)
        if values.min() < 0 or np.abs(sums - 1).max() > SUM_ERROR:
            yield f"{_named(reader, index)}: tiles sum to {sums.min():.4f}..{sums.max():.4f}, least {values.min():.2g}"


def _attention_mask(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, mask in enumerate(records, first):
        if not mask.all():
            yield f"{_named(reader, index)}: {mask.sum()} of {len(mask)} positions are real; no sequence is padded here"


def _image_mask(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, mask in enumerate(records, first):
        expected = reader.counts["image"][index]
        if mask.sum() != expected:
            yield f"{_named(reader, index)}: marks {mask.sum()} image positions, the record has {expected} image tokens"


def _convergence(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, values in enumerate(records, first):
        last = values[0, -1]  # of the last layer to itself
        if np.abs(values).max() > 1 + SUM_ERROR or abs(last - 1) > SUM_ERROR:
            yield f"{_named(reader, index)}: cosines {values.min():.3f}..{values.max():.3f}, the last {last:.3f}, not 1"


CHECKS: dict[str, Callable[[Reader, list[np.ndarray], int], Iterator[str]]] = {
    "cells": _cells,
    "vision_attention": _attention,
    "attention_mask": _attention_mask,
    "image_mask": _image_mask,
    "layer_convergence": _convergence,
}


def _named(reader: Reader, index: int) -> str:
    task, pair, kind = (reader.manifest.records[column][index] for column in ("task", "pair", "kind"))
    return f"record {index} ({task}, {kind} {pair})"


def _splits(reader: Reader) -> Iterator[str]:
    """A task must be in one split only."""
    found = collections.defaultdict(set)
    for task, split in zip(reader.manifest.records["task"], reader.manifest.records["split"], strict=True):
        found[task].add(split)
    for task, splits in found.items():
        if len(splits) > 1 or not splits <= set(SPLITS):
            yield f"manifest.json: task {task} is in the splits {sorted(splits)}; extract again"


def _describe(reader: Reader, console: rich.console.Console) -> None:
    manifest, teacher = reader.manifest, reader.manifest.teacher
    console.print(
        f"{reader.files.url}: {manifest.task}, teacher {teacher.id} ({teacher.provenance}), {teacher.licence}"
    )
    console.print(f"extraction: {', '.join(f'{key} {value}' for key, value in sorted(manifest.extraction.items()))}")
    for split in SPLITS:
        records = reader.records(split)
        tasks = len({manifest.records["task"][i] for i in records})
        frames = int(reader.counts["frame"][records].sum())
        console.print(f"{split}: {tasks} tasks, {len(records)} records, {frames} frames")


def _tabulate(reader: Reader, summaries: dict[str, Summary]) -> rich.table.Table:
    columns = ("feature", "rows", "row", "MB raw", "mean", "std", "min", "max", "dead channels")
    table = rich.table.Table(*columns, box=rich.box.SIMPLE)
    sizes = [reader.manifest.rows(group) for group in reader.committed]
    for name, feature in reader.manifest.features.items():
        rows = sum(size[feature.axis] for size in sizes)
        shape = f"{feature.dtype} {list(feature.shape)}"
        cells = ["", "", "", "", ""]
        if (s := summaries.get(name)) and s.count:
            cells = [f"{v:.4g}" for v in (s.mean.mean(), s.std, s.least.min(), s.most.max())] + [f"{s.dead:.1%}"]
        table.add_row(name, str(rows), rich.markup.escape(shape), f"{rows * feature.row_bytes / 1e6:.1f}", *cells)
    return table


def validate(url: str, picture: pathlib.Path | None, console: rich.console.Console) -> list[str]:
    """Check a whole store, print what is in it, draw its histograms; returns every fault."""
    try:
        reader, _ = store.survey(url)
    except StoreError as error:
        return [str(error)]
    _describe(reader, console)
    faults = list(_splits(reader))
    summaries: dict[str, Summary] = {}
    groups = len(reader.manifest.groups)
    for found in rich.progress.track(check(reader, summaries), "checking groups", total=groups, console=console):
        faults += found
    console.print(_tabulate(reader, summaries))
    if summaries:
        where = picture or pathlib.Path(f"{pathlib.PurePosixPath(url).name or 'store'}.png")
        summary.draw(where, summaries, f"{reader.manifest.teacher.id} ({reader.manifest.teacher.provenance})")
        console.print(f"histograms: {where}")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bridge.validate", description=__doc__)
    parser.add_argument("store", help="a folder, or a URL that tensorstore opens")
    parser.add_argument("--picture", type=pathlib.Path, help="PNG of histograms (default: beside the store, NAME.png)")
    options = parser.parse_args(arguments)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120)
    picture = options.picture
    if picture is None and "://" not in options.store:
        folder = pathlib.Path(options.store).resolve()
        picture = folder.with_name(folder.name + ".png")
    faults = validate(options.store, picture, console)
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults" if faults else "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
