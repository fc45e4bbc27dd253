"""The feature store: exact arrays on disk, committed group by group, read back in one concurrent call.

url/manifest.json                what is in it
url/FEATURE/zarr.json, c/G/...   one zarr3 array a feature, one shard a group
url/commits/0000G.json           written last: the group counts from here on; sizes and sha256 of its files
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorstore as ts

from bridge import commits, shards
from bridge import manifest as manifests
from bridge.manifest import Manifest, StoreError
from bridge.reader import REPEAT, Reader


def create(url: str | pathlib.Path, manifest: Manifest) -> Writer:
    """Begin a store, or go on with one begun by the same manifest; StoreError if it holds another extraction."""
    files = shards.connect(url)
    text = shards.create(files, "manifest.json", manifest.to_json().encode()).decode()
    if text != manifest.to_json():
        found = manifests.from_json(text, f"{files.url}manifest.json")
        raise StoreError(
            f"{files.url}manifest.json: holds another extraction ({_difference(found, manifest)}); "
            "choose another --out, or repeat it with its own options"
        )
    for name in manifest.features:
        shards.create(files, f"{name}/zarr.json", shards.array_json(manifest, name))
    return Writer(files, manifest)


def open(url: str | pathlib.Path, *, partial: bool = False) -> Reader:
    """Open a finished store, or with `partial` the committed groups of an unfinished one; what is cheap is checked."""
    reader, faults = survey(url)
    groups = range(len(reader.manifest.groups))
    missing = [group for group in groups if group not in reader.committed]
    if missing and not partial:
        raise StoreError(
            f"{reader.files.url}{commits.key(missing[0])}: no valid commit marker; of {len(groups)} groups these are "
            f"uncommitted: {_some(missing)}; {REPEAT}, or open the store with partial=True"
        )
    if faults:
        raise StoreError(faults[0])
    return reader


def survey(url: str | pathlib.Path) -> tuple[Reader, list[str]]:
    """A reader of whatever is committed, and a line for every committed file that is not there."""
    files = shards.connect(url)
    manifest = load_manifest(files)
    keys = shards.keys(files)
    markers = commits.read(files, manifest, keys)
    faults = [
        f"{files.url}{key}: the shard is missing; {commits.redo(files, group)}"
        for group, marker in markers.items()
        for key in sorted(marker["files"].keys() - keys)
    ]
    return Reader(files, manifest, markers), faults


def load_manifest(files: ts.KvStore) -> Manifest:
    """Read manifest.json of a store."""
    content = shards.read(files, "manifest.json")
    if content is None:
        raise StoreError(
            f"{files.url}manifest.json: not found, so this is no feature store; make one with "
            f"python -m teacher_torch.extract --out {files.url}"
        )
    return manifests.from_json(content.decode(errors="replace"), f"{files.url}manifest.json")


class Writer:
    """Writes groups. Several may write one store at a time if they take different groups."""

    def __init__(self, files: ts.KvStore, manifest: Manifest) -> None:
        self.files = files
        self.manifest = manifest

    def pending(self, shard: tuple[int, int] = (0, 1)) -> list[int]:
        """Groups not yet committed, of those that worker i of n owns (`shard` = (i, n): group g belongs to g % n)."""
        keys = shards.keys(self.files)
        markers = commits.read(self.files, self.manifest, keys)
        left = [g for g in range(len(self.manifest.groups)) if g not in markers or markers[g]["files"].keys() - keys]
        if not left:
            shards.sweep(self.files)
        return [group for group in left if group % shard[1] == shard[0]]

    def write(self, group: int, arrays: Mapping[str, np.ndarray]) -> int:
        """Write a group's arrays [rows, *shape], one per feature, then its marker; returns the bytes on disk."""
        rows = self.manifest.rows(group)
        expected = {name: rows[feature.axis] for name, feature in self.manifest.features.items()}
        given = {name: len(array) for name, array in arrays.items()}
        if given != expected:
            raise ValueError(f"group {group}: expected rows {expected}, got {given}")
        contents = {
            shards.shard_key(self.manifest, name, group): shards.encode(self.manifest, name, arrays[name])
            for name in sorted(expected)
        }
        for key in contents:
            shards.sweep(self.files, key)
        shards.write(self.files, contents)
        shards.write(self.files, {commits.key(group): commits.text(self.manifest, group, contents)})
        return sum(map(len, contents.values()))


def _some(groups: list[int]) -> str:
    return ", ".join(map(str, groups[:8])) + (", ..." if len(groups) > 8 else "")


def _values(there: object, now: object) -> str:
    """Both values, where they are short enough to be read."""
    both = f" {there!r} there, {now!r} now"
    return both if len(both) < 300 else ""


def _difference(found: Manifest, asked: Manifest) -> str:
    """The parts in which two manifests differ, with both values where they are short."""
    parts = []
    for name in ("task", "features", "groups", "records", "axes"):
        if getattr(found, name) != getattr(asked, name):
            parts.append(name)
    for name in ("teacher", "extraction"):
        a, b = (vars(m.teacher) if name == "teacher" else m.extraction for m in (found, asked))
        parts += [f"{name}.{key}{_values(a.get(key), b.get(key))}" for key in sorted(a | b) if a.get(key) != b.get(key)]
    return "; ".join(parts)
