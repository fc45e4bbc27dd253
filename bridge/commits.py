"""Commit markers: which groups of a store count, and whether their files are still what was committed."""

from __future__ import annotations

import hashlib
import json

import tensorstore as ts

from bridge import shards
from bridge.manifest import Manifest


def key(group: int) -> str:
    """Key of a group's marker."""
    return f"commits/{group:05d}.json"


def text(manifest: Manifest, group: int, contents: dict[str, bytes]) -> bytes:
    """The marker of a group whose files hold `contents`: their sizes and sha256, the rows, the manifest's digest."""
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    marker = {"files": sums, "group": group, "manifest": manifest.digest, "rows": manifest.rows(group)}
    return (json.dumps(marker, sort_keys=True) + "\n").encode()


def read(files: ts.KvStore, manifest: Manifest, keys: set[str]) -> dict[int, dict]:
    """The valid commit markers of a store by group; one that is damaged or of another manifest does not count."""
    futures = {group: files.read(key(group)) for group in range(len(manifest.groups)) if key(group) in keys}
    digest, markers = manifest.digest, {}
    for group, future in futures.items():
        try:
            marker = json.loads(future.result().value)
        except ValueError:
            continue
        if isinstance(marker, dict) and marker.get("manifest") == digest and _whole(marker, manifest, group):
            markers[group] = marker
    return markers


def _whole(marker: dict, manifest: Manifest, group: int) -> bool:
    """Whether a marker has all that `text` writes for this group."""
    files = marker.get("files")
    if marker.get("group") != group or marker.get("rows") != manifest.rows(group) or not isinstance(files, dict):
        return False
    return all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in files.values())


def faults(files: ts.KvStore, marker: dict) -> list[str]:
    """What is wrong with a committed group's files, by size and sha256; empty if nothing is."""
    found = []
    for name, expected in marker["files"].items():
        content = shards.read(files, name)
        if content is None or len(content) != expected["bytes"]:
            size = "missing" if content is None else f"{len(content)} bytes"
            found.append(
                f"{files.url}{name}: {size}, committed {expected['bytes']} bytes; {redo(files, marker['group'])}"
            )
        elif hashlib.sha256(content).hexdigest() != expected["sha256"]:
            found.append(f"{files.url}{name}: its bytes have changed; {redo(files, marker['group'])}")
    return found


def redo(files: ts.KvStore, group: int) -> str:
    """The fix for a damaged group, as the end of an error message."""
    marker = f"{files.url}{key(group)}".removeprefix("file://")
    return f"delete {marker} and run the same extract command again to rewrite the group"
