"""The store's manifest: which rows of which feature belong to which record, and what made them. Byte-stable JSON.

A record is one teacher prompt. An axis is a kind of row: "record", "frame" (one per image), "image" (one per image
token), "token" (one per sequence position). A group is a run of records, written and committed together: on every axis
group g owns the rows from g * shard on, one whole zarr shard of every feature, and leaves its rest unwritten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
COLUMNS = {"arc": ("task", "pair", "kind", "split"), "robot": ("episode", "row", "instruction", "split")}
"""The record table's columns, by task."""
UNITS = {"arc": "task", "robot": "episode"}
"""The column whose records stay in one split."""
GROUP_BYTES = 256 << 20  # of raw features: large enough for an object store, small enough to hold twice in memory
GROUP_RECORDS = 512
CHUNK_BYTES = 16 << 10  # the least that one read decompresses
SMALL_ROW = 4096  # bytes: of larger rows a chunk need not hold 16


class StoreError(ValueError):
    """A feature store that cannot be used or written as asked; the message names the file and the fix."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Who made the features, and how its image tokens lie in a frame: tiles row by row, then the thumbnail."""

    id: str
    digest: str
    provenance: str  # real | stand-in | random
    licence: str
    tile: int  # pixels on a side
    grid: int  # image tokens on a side of a tile
    width: int  # channels of an image token, after the connector
    max_tiles: int
    columns: int  # tiles of one frame
    rows: int
    thumbnail: bool
    layers: int  # language layers kept

    @property
    def tiles(self) -> int:
        """Tiles of one frame, the thumbnail included."""
        return self.columns * self.rows + self.thumbnail

    @property
    def tokens(self) -> int:
        """Image tokens of one frame."""
        return self.tiles * self.grid**2


@dataclasses.dataclass(frozen=True)
class Feature:
    """One array: the shape and dtype of a row, the axis its rows lie on, and the rows that are compressed together."""

    shape: tuple[int, ...]
    dtype: str
    axis: str
    chunk: int = 0

    @property
    def numpy_dtype(self) -> np.dtype:
        """The numpy dtype; bfloat16 is ml_dtypes'."""
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Axis:
    """Rows of one kind: those of record r are starts[r] .. starts[r] + counts[r]; group g starts at g * shard."""

    shard: int
    counts: tuple[int, ...]
    starts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything about a store but its arrays. `groups` are [first record, past the last]; `records` are columns."""

    task: str
    teacher: Teacher
    features: dict[str, Feature]
    axes: dict[str, Axis]
    groups: tuple[tuple[int, int], ...]
    records: dict[str, tuple]
    extraction: dict[str, Any]

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self.records["split"])

    @property
    def digest(self) -> str:
        """sha256 of the manifest's text; every commit marker carries it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def rows(self, group: int) -> dict[str, int]:
        """Rows of a group on every axis."""
        first, last = self.groups[group]
        return {name: sum(axis.counts[first:last]) for name, axis in self.axes.items()}

    def raw_bytes(self, group: int) -> int:
        """Bytes of a group's features, uncompressed."""
        rows = self.rows(group)
        return sum(rows[feature.axis] * feature.row_bytes for feature in self.features.values())

    def to_json(self) -> str:
        """The text of manifest.json: one line for each top-level key, sorted, no timestamp."""
        content = dataclasses.asdict(self) | {"schema_version": SCHEMA_VERSION}
        lines = (f"{json.dumps(key)}: {json.dumps(content[key], sort_keys=True)}" for key in sorted(content))
        return "{\n" + ",\n".join(lines) + "\n}\n"


def make(
    task: str,
    teacher: Teacher,
    *,
    features: Mapping[str, Feature],
    counts: Mapping[str, Sequence[int]],
    records: Mapping[str, Sequence],
    extraction: Mapping[str, Any],
    group_records: int = GROUP_RECORDS,
    groups: tuple[tuple[int, int], ...] | None = None,
) -> Manifest:
    """Lay records out: `counts` are rows per record on every axis, `records` the task's COLUMNS; groups: as given, else
    as many records as fit."""
    features = {name: dataclasses.replace(feature, chunk=_chunk(feature)) for name, feature in features.items()}
    rows = {name: [int(count) for count in column] for name, column in counts.items()}
    sizes = np.sum([np.multiply(rows[f.axis], f.row_bytes) for f in features.values()], axis=0)
    groups = groups or _groups(sizes.tolist(), group_records)
    return Manifest(
        task=task,
        teacher=teacher,
        features=dict(features),
        axes={
            name: _axis(column, groups, [f.chunk for f in features.values() if f.axis == name])
            for name, column in rows.items()
        },
        groups=groups,
        records={name: tuple(records[name]) for name in COLUMNS[task]},
        extraction=dict(extraction),
    )


def from_json(text: str, where: str) -> Manifest:
    """Parse and check manifest.json; `where` names the file in errors."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise StoreError(
            f"{where}: not JSON ({error}); restore the file, or extract again into a new folder"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{where}: schema version {version!r}, this code reads {SCHEMA_VERSION}: use the release that "
            "wrote the store, or extract again with python -m teacher_torch.extract"
        )
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"{where}: {type(error).__name__} {error}: damaged or edited by hand; extract again"
        ) from error
    return manifest


def _parse(content: dict[str, Any]) -> Manifest:
    manifest = Manifest(
        task=content["task"],
        teacher=Teacher(**content["teacher"]),
        features={
            n: Feature(tuple(f["shape"]), f["dtype"], f["axis"], f["chunk"]) for n, f in content["features"].items()
        },
        axes={n: Axis(a["shard"], tuple(a["counts"]), tuple(a["starts"])) for n, a in content["axes"].items()},
        groups=tuple((first, last) for first, last in content["groups"]),
        records={name: tuple(content["records"][name]) for name in COLUMNS[content["task"]]},
        extraction=content["extraction"],
    )
    for name, axis in manifest.axes.items():
        if axis.starts != _starts(axis.counts, manifest.groups, axis.shard) or len(axis.starts) != manifest.size:
            raise ValueError(f"axis {name!r}: starts do not follow from counts, groups and shard")
    for name, feature in manifest.features.items():
        if manifest.axes[feature.axis].shard % feature.chunk:
            raise ValueError(f"feature {name!r}: a shard is not a whole number of chunks")
    return manifest


def _chunk(feature: Feature) -> int:
    """Rows per inner chunk: a power of two of 16 (1 of large rows) to 1024 that reaches CHUNK_BYTES where it can."""
    chunk = 16 if feature.row_bytes <= SMALL_ROW else 1
    while chunk < 1024 and chunk * feature.row_bytes < CHUNK_BYTES:
        chunk *= 2
    return chunk


def _groups(sizes: list[int], most: int) -> tuple[tuple[int, int], ...]:
    """Consecutive records, as many as fit into GROUP_BYTES, at least one and at most `most`."""
    groups, first, held = [], 0, 0
    for record, size in enumerate(sizes):
        if record > first and (held + size > GROUP_BYTES or record - first == most):
            groups.append((first, record))
            first, held = record, 0
        held += size
    return (*groups, (first, len(sizes)))


def _axis(counts: Sequence[int], groups: tuple[tuple[int, int], ...], chunks: list[int]) -> Axis:
    step = max(chunks, default=1)
    largest = max(sum(counts[first:last]) for first, last in groups)
    shard = max(-(-largest // step), 1) * step
    return Axis(shard, tuple(counts), _starts(counts, groups, shard))


def _starts(counts: Sequence[int], groups: tuple[tuple[int, int], ...], shard: int) -> tuple[int, ...]:
    starts: list[int] = []
    for group, (first, last) in enumerate(groups):
        row = group * shard
        for count in counts[first:last]:
            starts.append(row)
            row += count
    return tuple(starts)
