"""What a compact store costs: bytes of an example, array by array, and what its features lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge import compaction
from bridge.manifest import Manifest
from bridge.reader import Reader

OBSERVED = ("frames", "cells", "state", "instruction_id", "demonstration", "objects", "pixels", "input_ids")
"""The observation's own arrays and labels: the teacher has no part in them."""
MOST = 256  # records compared


def record_bytes(held: Manifest) -> dict[str, float]:
    """Mean bytes of every array per record, uncompressed."""
    rows = {name: float(np.mean(axis.counts)) for name, axis in held.axes.items()}
    return {name: rows[feature.axis] * feature.row_bytes for name, feature in held.features.items()}


def sizes(exact: Manifest, compact: Manifest) -> list[tuple[str, str, str, str]]:
    """(array, bytes of an example in the exact store, in the compact one, what it is there), and both sums."""
    before, after = record_bytes(exact), record_bytes(compact)
    names = sorted(before.keys() | after.keys(), key=lambda name: (name in OBSERVED, -before.get(name, 0), name))
    rows = [(name, _number(before.get(name)), _number(after.get(name)), _how(compact, name)) for name in names]
    for what, mine in (("teacher's features", False), ("observation and labels", True)):
        sums = (sum(size for name, size in one.items() if (name in OBSERVED) == mine) for one in (before, after))
        rows.append((what, *map(_number, sums), "a record"))
    views = float(np.mean(exact.axes["frame"].counts))
    tiles = views * exact.teacher.tiles
    teacher = [sum(size for name, size in one.items() if name not in OBSERVED) / tiles for one in (before, after)]
    return [*rows, ("teacher's features", *map(_number, teacher), f"a tile ({tiles:g} tiles a record)")]


def measured(exact: Reader, compact: Reader) -> Iterator[str]:
    """A line for every coded feature, of the validation split (else the training split): R² per channel of what the
    codes give back, in the teacher's own basis."""
    split = "validation" if len(exact.records("validation")) else "train"
    records = exact.records(split)
    chosen = records[np.linspace(0, len(records) - 1, min(MOST, len(records))).round().astype(int)]
    for name in compact.codings:
        wanted = np.concatenate([exact.record(name, r) for r in chosen]).astype(np.float32)
        found = np.concatenate([compact.record(name, r) for r in chosen])
        lost, varied = np.square(found - wanted).sum(0), np.square(wanted - wanted.mean(0)).sum(0)
        r2, coding = 1 - lost / np.maximum(varied, 1e-12), compact.codings[name]
        yield (
            f"{name}: {coding.components} int8 values for {len(coding.mean)} give back R² {r2.mean():.4f} of its "
            f"{coding.width} channels on average, {np.quantile(r2, 0.1):.4f} at the 10th percentile, and "
            f"{1 - lost.sum() / varied.sum():.4f} of the variance ({split}, {len(chosen)} records)"
        )


def _number(size: float | None) -> str:
    return "-" if size is None else f"{size:,.0f}"


def _how(compact: Manifest, name: str) -> str:
    if name not in compact.features:
        return "left out"
    said = compact.extraction[compaction.KEY]["features"].get(name)
    if said and "coding" in said:
        return f"int8, {said['components']} values for {said['block'][0]} x {said['block'][1]} of {said['width']}"
    return compact.features[name].dtype
