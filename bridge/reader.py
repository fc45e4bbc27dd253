"""Reading a feature store: records and frames of a split, and rows of a feature by position, many ranges at once.

Rows of a compact store come out as the exact one's do, in the teacher's own basis; coded ones by whole tiles.
"""

from __future__ import annotations

import json

import numpy as np
import tensorstore as ts

from bridge import commits, compaction, shards, stored_embodiment
from bridge.embodiment import Embodiment
from bridge.manifest import SPLITS, Feature, Manifest, StoreError

REPEAT = "run the same extract command again: it writes what is missing"


class Reader:
    """Reads rows of any feature, by position; a range never crosses the rows of its group."""

    def __init__(self, files: ts.KvStore, manifest: Manifest, markers: dict[int, dict]) -> None:
        self.files = files
        self.manifest = manifest
        self.committed = sorted(markers)
        self._markers = markers
        self._rows = {
            axis: np.array([markers[g]["rows"][axis] if g in markers else 0 for g in range(len(manifest.groups))])
            for axis in manifest.axes
        }
        self.starts = {name: np.array(axis.starts, np.int64) for name, axis in manifest.axes.items()}
        self.counts = {name: np.array(axis.counts, np.int64) for name, axis in manifest.axes.items()}
        self.codings = compaction.load(files, manifest)
        opening = {name: _open_array(files, manifest, name) for name in manifest.features}
        self._arrays = {name: _opened(files, name, future) for name, future in opening.items()}

    def records(self, split: str) -> np.ndarray:
        """Indices int64 [n] of the committed records of a split, in the manifest's order."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        here = np.array([name == split for name in self.manifest.records["split"]], bool)
        for group in set(range(len(self.manifest.groups))) - set(self.committed):
            here[slice(*self.manifest.groups[group])] = False
        return np.flatnonzero(here)

    def frames(self, split: str, axis: str = "image") -> tuple[np.ndarray, np.ndarray]:
        """Two int64 [n] for the frames of a split: rows on the "frame" axis, and where their rows on `axis` begin.

        Every frame has `tokens(axis)` rows on the axes "image" and (of a compact store) "block".
        """
        records = self.records(split)
        counts = self.counts["frame"][records]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(self.starts["frame"][records], counts) + within
        return rows, np.repeat(self.starts[axis][records], counts) + within * self.tokens(axis)

    def tokens(self, axis: str = "image") -> int:
        """Rows of one frame: `manifest.teacher.tokens` on "image", fewer on "block"."""
        return int(self.counts[axis][0] // self.counts["frame"][0])

    def arrays(self, feature: str) -> tuple[str, ...]:
        """Names of the arrays that hold a feature: its own, and of a coded one also that of its scales."""
        scale = (feature + compaction.SCALE,) if feature in self.codings else ()
        return (feature, *scale)

    def read(self, feature: str, starts: np.ndarray, length: int, *, stored: bool = False) -> np.ndarray:
        """Rows starts[i] .. starts[i] + length of a feature -> [n, length, *shape]; all ranges are read at once.

        A coded feature comes out as the float32 tokens of these blocks, which must be those of whole tiles, in the
        teacher's own basis; float16 as float32. stored: as the array holds it.
        """
        rows = self._read(feature, starts, length)
        if stored:
            return rows
        if feature in self.codings:
            return self.codings[feature].decode(rows, self._read(feature + compaction.SCALE, starts, length))
        return rows.astype(np.float32) if rows.dtype == np.float16 else rows

    def _read(self, feature: str, starts: np.ndarray, length: int) -> np.ndarray:
        starts = np.asarray(starts, np.int64)
        self._check_range(feature, starts, length)
        array, shape = self._arrays[feature], self.manifest.features[feature].shape
        out = np.empty((len(starts) * length, *shape), self.manifest.features[feature].numpy_dtype)
        target = ts.array(out)  # shares out's memory: rows are decoded into place, half the time of a copy afterwards
        copies = [
            target[row : row + length].write(array[start : start + length])
            for row, start in zip(range(0, len(out), length), starts.tolist(), strict=True)
        ]
        try:
            for copy in copies:
                copy.result()
        except ValueError as error:
            raise StoreError(self._explain(feature, starts, error)) from error
        return out.reshape(len(starts), length, *shape)

    def record(self, feature: str, index: int) -> np.ndarray:
        """All rows [n, *shape] of a feature that belong to one record."""
        axis = self._feature(feature).axis
        return self.read(feature, self.starts[axis][index : index + 1], int(self.counts[axis][index]))[0]

    def take(self, feature: str, records: np.ndarray, *, stored: bool = False) -> np.ndarray:
        """A feature of many records in one read, as `read` gives it: [n, *shape] on "record", else [n, rows, *shape].

        records: indices as `records` gives them, in any order. ValueError where they differ in rows (`record` reads
        those one by one).
        """
        records = np.asarray(records, np.int64)
        axis = self._feature(feature).axis
        starts, counts = self.starts[axis][records], self.counts[axis][records]
        if len(set(counts.tolist())) > 1:
            raise ValueError(f"{feature}: records of {counts.min()} to {counts.max()} rows on {axis!r}: use record()")
        found = self.read(feature, starts, int(counts[0]) if len(counts) else 1, stored=stored)
        return found[:, 0] if axis == "record" else found

    def embodiment(self) -> Embodiment:
        """What a robot store was extracted with: its statistics normalise states and actions."""
        return stored_embodiment.read(self.files, self.manifest)

    def exact(self, *names: str) -> None:
        """StoreError where one of these features is coded."""
        if coded := [name for name in names if name in self.codings]:
            raise StoreError(
                f"{self.files.url}: {', '.join(coded)} are coded here, which loses a little of them; this needs what "
                "the teacher said: give the exact store that this one was made from"
            )

    def faults(self, group: int) -> list[str]:
        """What is wrong with the files of a committed group, by size and sha256; empty if nothing is."""
        return commits.faults(self.files, self._markers[group])

    def _feature(self, name: str) -> Feature:
        if name not in self.manifest.features:
            raise StoreError(
                f"{self.files.url}: no feature {name!r}, it has {', '.join(self.manifest.features)}; "
                f"extract again with --features {name}"
            )
        return self.manifest.features[name]

    def _check_range(self, feature: str, starts: np.ndarray, length: int) -> None:
        axis = self._feature(feature).axis
        shard = self.manifest.axes[axis].shard
        group, row = np.divmod(starts, shard)
        known = (group >= 0) & (group < len(self.manifest.groups))
        last = np.where(known, self._rows[axis][np.where(known, group, 0)], 0)
        bad = np.flatnonzero(~known | (row + length > last))
        if len(bad):
            start = int(starts[bad[0]])
            raise StoreError(
                f"{self.files.url}{feature}: rows {start}..{start + length} are not committed rows of one group of "
                f"{shard}; take them from records() and frames() of this reader"
            )

    def _explain(self, feature: str, starts: np.ndarray, error: ValueError) -> str:
        groups = np.unique(starts // self.manifest.axes[self._feature(feature).axis].shard).tolist()
        faults = [fault for group in groups for fault in self.faults(group) if f"/{feature}/c/" in fault]
        return faults[0] if faults else f"{self.files.url}{feature}: cannot be read ({error})"


def _open_array(files: ts.KvStore, manifest: Manifest, name: str) -> ts.Future:
    content = shards.read(files, f"{name}/zarr.json")
    where = f"{files.url}{name}/zarr.json"
    if content is None:
        raise StoreError(f"{where}: missing; {REPEAT}")
    wanted = shards.array_spec(manifest, name)
    try:
        found = json.loads(content)
        for key in ("data_type", "shape"):
            if found[key] != wanted["metadata"][key]:
                raise StoreError(
                    f"{where}: {key} {found[key]}, the manifest says {wanted['metadata'][key]}; "
                    "the array belongs to another store: delete the file and run the same extract command again"
                )
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise StoreError(f"{where}: not zarr metadata ({error}); delete the file and {REPEAT}") from error
    spec = wanted | {"kvstore": (files / f"{name}/").spec().to_json()}
    return ts.open(spec, open=True, context=shards.context(), recheck_cached_data=False, recheck_cached_metadata=False)


def _opened(files: ts.KvStore, name: str, future: ts.Future) -> ts.TensorStore:
    try:
        return future.result()
    except ValueError as error:
        raise StoreError(
            f"{files.url}{name}/zarr.json: not as the manifest says ({error}); delete it and {REPEAT}"
        ) from error
