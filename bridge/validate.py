"""`python -m bridge.validate STORE`: is a feature store whole and sane, and what is in it? Exit code 1 on any fault."""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.progress
import rich.table

from bridge import compaction, glimpse, store, stored_embodiment, summary, value_checks
from bridge.embodiment import EmbodimentError
from bridge.manifest import SPLITS, UNITS, Manifest, StoreError
from bridge.reader import Reader
from bridge.summary import Summary

BLOCK = 1 << 22  # values summarised at a time
SEEN = 8  # every so many pixels of a frame are summarised
LONG = 60  # characters of a setting that are printed
FLOATS = ("bfloat16", "float32", "float16")


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
        if feature.dtype in FLOATS or name in reader.codings:
            flat = values.reshape(len(values), -1)
            if name in value_checks.MAY_LACK:
                flat = flat.reshape(-1, value_checks.MAY_LACK[name])
                flat = flat[~np.isnan(flat).all(axis=1)]
            if not np.isfinite(flat).all():
                yield f"{name}: {np.count_nonzero(~np.isfinite(flat))} values are not finite"
                continue
            if name.endswith(compaction.SCALE) and not (flat > 0).all():
                yield f"{name}: {np.count_nonzero(flat <= 0)} scales are not above 0"
            _summarise(summaries, name, flat)
        elif name == "frames":
            _summarise(summaries, name, values[:, ::SEEN, ::SEEN].reshape(-1, values.shape[-1]))
        if check_values := value_checks.CHECKS.get(name):
            first, last = manifest.groups[group]
            ends = np.cumsum(reader.counts[feature.axis][first:last])[:-1]
            yield from (f"{name}: {fault}" for fault in check_values(reader, np.split(values, ends), first))


def _summarise(summaries: dict[str, Summary], name: str, rows: np.ndarray) -> None:
    if not len(rows):
        return
    into = summaries.setdefault(name, Summary.empty(rows.shape[1]))
    step = max(BLOCK // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        into.add(rows[start : start + step])


def _splits(reader: Reader) -> Iterator[str]:
    """A task or episode must be in one split only."""
    unit = UNITS[reader.manifest.task]
    found = collections.defaultdict(set)
    for name, split in zip(reader.manifest.records[unit], reader.manifest.records["split"], strict=True):
        found[name].add(split)
    for name, splits in found.items():
        if len(splits) > 1 or not splits <= set(SPLITS):
            yield f"manifest.json: {unit} {name} is in the splits {sorted(splits)}; extract again"


def _compact(manifest: Manifest) -> Iterator[str]:
    """What a compact store says was done to its features must be what it holds."""
    said = manifest.extraction.get(compaction.KEY)
    for name, account in said["features"].items() if said else ():
        feature = manifest.features.get(name)
        expected = (account["dtype"], (account["components"],) if "coding" in account else None)
        if feature is None or (feature.dtype, feature.shape) != (expected[0], expected[1] or feature.shape):
            yield f"manifest.json: {name} is said to be {expected}, but is not; make the store again"
    if said and list(manifest.axes[compaction.AXIS].counts) != compaction.block_counts(manifest):
        yield "manifest.json: the blocks of image tokens are not those of the records' frames; make the store again"


def _embodiment(reader: Reader) -> Iterator[str]:
    """What a robot store was normalised by must be there, unchanged."""
    if stored_embodiment.DIGEST in reader.manifest.extraction:
        try:
            reader.embodiment()
        except (StoreError, EmbodimentError) as error:
            yield str(error)


def _describe(reader: Reader, console: rich.console.Console) -> None:
    manifest, teacher = reader.manifest, reader.manifest.teacher
    console.print(
        f"{reader.files.url}: {manifest.task}, teacher {teacher.id} ({teacher.provenance}), {teacher.licence}"
    )
    console.print(f"extraction: {_settings(manifest)}", highlight=False, markup=False)
    if said := manifest.extraction.get(compaction.KEY):
        left = ", ".join(said["dropped"]) or "nothing"
        console.print(f"compact, made from the exact store {said['source'][:12]}, leaving out {left}")
        for name, how in said["features"].items():
            listed = ", ".join(f"{key} {value}" for key, value in how.items() if key != "coding")
            console.print(f"  {name}: {listed}", highlight=False, soft_wrap=True)
    unit = UNITS[manifest.task]
    for split in SPLITS:
        records = reader.records(split)
        units = len({manifest.records[unit][i] for i in records})
        frames = int(reader.counts["frame"][records].sum())
        console.print(f"{split}: {units} {unit}s, {len(records)} records, {frames} frames")


def _settings(manifest: Manifest) -> str:
    """The extraction's settings; of a long one only how many entries or characters it has."""
    settings = {key: str(value) for key, value in sorted(manifest.extraction.items())}
    sizes = {key: len(manifest.extraction[key]) for key, text in settings.items() if len(text) > LONG}
    return ", ".join(f"{key} {f'({sizes[key]})' if key in sizes else text}" for key, text in settings.items())


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
    faults = [*_splits(reader), *_embodiment(reader), *_compact(reader.manifest)]
    summaries: dict[str, Summary] = {}
    groups = len(reader.manifest.groups)
    for found in rich.progress.track(check(reader, summaries), "checking groups", total=groups, console=console):
        faults += found
    console.print(_tabulate(reader, summaries))
    if summaries:
        where = picture or pathlib.Path(f"{pathlib.PurePosixPath(url).name or 'store'}.png")
        title = f"{reader.manifest.teacher.id} ({reader.manifest.teacher.provenance})"
        summary.draw(where, summaries, title, glimpse.collect(reader))
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
