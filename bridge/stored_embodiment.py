"""The embodiment beside a store's manifest: the statistics that state, actions and noise are normalised by."""

from __future__ import annotations

import hashlib
import pathlib
import tempfile

import tensorstore as ts

from bridge import embodiment as embodiments
from bridge import shards
from bridge.embodiment import Embodiment
from bridge.manifest import Manifest, StoreError

KEY = "embodiment.json"
DIGEST = "embodiment_digest"
"""Where manifest.extraction has the sha256 of the file."""


def text(body: Embodiment) -> bytes:
    """The file's bytes, as bridge.embodiment writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / KEY
        embodiments.save(path, body)
        return path.read_bytes()


def digest(content: bytes) -> str:
    """sha256 of the file."""
    return hashlib.sha256(content).hexdigest()


def write(files: ts.KvStore, manifest: Manifest, content: bytes) -> None:
    """Put the file there unless it is there already; StoreError where it is another one."""
    if digest(shards.create(files, KEY, content)) != manifest.extraction[DIGEST]:
        raise _changed(files)


def read(files: ts.KvStore, manifest: Manifest) -> Embodiment:
    """The embodiment of a robot store; StoreError where there is none or it was changed."""
    wanted = manifest.extraction.get(DIGEST)
    content = shards.read(files, KEY)
    if wanted is None:
        raise StoreError(f"{files.url}: a store of task {manifest.task!r} has no {KEY}, a robot's has")
    if content is None or digest(content) != wanted:
        raise _changed(files)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / KEY
        path.write_bytes(content)
        return embodiments.load(path)


def _changed(files: ts.KvStore) -> StoreError:
    return StoreError(
        f"{files.url}{KEY}: missing or not the one that was extracted with: delete it and run the same extract command "
        "again, which writes it"
    )
