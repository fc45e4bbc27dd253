"""Files of a store, through tensorstore: where they are, what a shard's bytes are, writes that are whole or absent."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import tempfile

import numpy as np
import tensorstore as ts

from bridge.manifest import Feature, Manifest, StoreError

CACHE_BYTES = 64 << 20  # shard indices, mostly: without it every read fetches them again


def connect(url: str | pathlib.Path) -> ts.KvStore:
    """A local folder, or any URL that tensorstore opens (s3://, gs://, memory://), as a key-value store."""
    local = "://" not in str(url)
    spec = {"driver": "file", "path": f"{pathlib.Path(url).resolve()}/"} if local else f"{str(url).rstrip('/')}/"
    try:
        return ts.KvStore.open(spec, context=context()).result()
    except ValueError as error:
        raise StoreError(f"{url}: not a folder or a URL that tensorstore opens ({error})") from error


@functools.cache
def context() -> ts.Context:
    """One for the process, so that memory:// is shared. No lock files: a killed writer's would spoil the next write

    (tensorstore writes into the old one without cutting it); without them every write has a name of its own.
    """
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}, "file_io_locking": {"mode": "none"}})


def metadata(feature: Feature, rows: int, shard: int) -> dict:
    """zarr3 metadata of a feature's array: shards of `shard` rows, inner chunks in zstd, checksums on all of it."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner = [little, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [feature.chunk, *feature.shape],
        "codecs": inner,
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": [rows, *feature.shape],
        "data_type": feature.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *feature.shape]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": False if feature.dtype == "bool" else 0,
    }


def array_spec(manifest: Manifest, name: str) -> dict:
    """The tensorstore spec of a feature's array, without its key-value store."""
    feature = manifest.features[name]
    shard = manifest.axes[feature.axis].shard
    rows = shard * len(manifest.groups)
    return {"driver": "zarr3", "metadata": metadata(feature, rows, shard), "store_data_equal_to_fill_value": True}


def shard_key(manifest: Manifest, name: str, group: int) -> str:
    """Key of the one shard that holds a group's rows of a feature."""
    return f"{name}/c/{group}" + "/0" * len(manifest.features[name].shape)


def encode(manifest: Manifest, name: str, array: np.ndarray) -> bytes:
    """The bytes of a shard that begins with these rows [n, *shape]. Equal rows give equal bytes."""
    feature = manifest.features[name]
    shard = manifest.axes[feature.axis].shard
    if array.dtype != feature.numpy_dtype or array.shape[1:] != feature.shape or not 0 < len(array) <= shard:
        raise ValueError(
            f"feature {name!r}: expected {feature.dtype} [1..{shard}, {', '.join(map(str, feature.shape))}], "
            f"got {array.dtype} {list(array.shape)}"
        )
    memory = array_spec(manifest, name) | {"kvstore": "memory://"}
    opened = ts.open(memory, create=True, context=ts.Context()).result()
    padding = [(0, -len(array) % feature.chunk)] + [(0, 0)] * len(feature.shape)
    padded = np.pad(array, padding) if padding[0][1] else array
    opened[: len(padded)].write(padded).result()
    (key,) = set(opened.kvstore.list().result()) - {b"zarr.json"}
    return opened.kvstore.read(key).result().value


def array_json(manifest: Manifest, name: str) -> bytes:
    """The bytes of a feature's zarr.json."""
    memory = array_spec(manifest, name) | {"kvstore": "memory://"}
    return ts.open(memory, create=True, context=ts.Context()).result().kvstore.read("zarr.json").result().value


def read(files: ts.KvStore, key: str) -> bytes | None:
    """A file's bytes, or None where it is absent."""
    try:
        found = files.read(key).result()
    except ValueError as error:
        raise StoreError(f"{files.url}{key}: cannot be read ({error})") from error
    return found.value if found.state == "value" else None


def keys(files: ts.KvStore) -> set[str]:
    """The keys of all files."""
    try:
        return {key.decode() for key in files.list().result()}
    except ValueError as error:
        raise StoreError(f"{files.url}: cannot be listed ({error})") from error


def write(files: ts.KvStore, contents: dict[str, bytes]) -> None:
    """Write files concurrently; each is whole or absent, and on disk when this returns. None is still being written."""
    futures = {key: files.write(key, content) for key, content in contents.items()}
    errors = {key: error for key, future in futures.items() if (error := future.exception()) is not None}
    for key, error in errors.items():
        raise StoreError(
            f"{files.url}{key}: cannot be written ({error}); make room or mend the permissions, "
            "then run the same command again: it goes on after the last committed group"
        ) from error


def create(files: ts.KvStore, key: str, content: bytes) -> bytes:
    """Write a file unless it exists; return what it holds afterwards (another machine may have been first)."""
    spec = files.spec().to_json()
    try:
        if spec["driver"] == "file" and _linked(pathlib.Path(spec["path"]) / key, content):
            return read(files, key) or b""
        if (found := files.read(key).result()).state != "value":
            files.write(key, content, if_equal=found.stamp.generation).result()
    except ValueError as error:
        raise StoreError(f"{files.url}{key}: cannot be written ({error})") from error
    return read(files, key) or b""


def _linked(path: pathlib.Path, content: bytes) -> bool:
    """Write a local file whole unless it is there: of several at once only the first makes its link (tensorstore
    compares and renames in two steps). False where the file system has no hard links or cannot be written."""
    if path.exists():
        return True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name + "_", suffix=".__lock") as draft:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
            os.chmod(draft.name, 0o644)
            with contextlib.suppress(FileExistsError):
                os.link(draft.name, path)
    except OSError:
        return False
    return True


def sweep(files: ts.KvStore, key: str | None = None) -> None:
    """Delete what killed writers left of a half-written local file (of all files if no key is given)."""
    spec = files.spec().to_json()
    if spec["driver"] == "file":
        root = pathlib.Path(spec["path"])
        found = root.rglob("*.__lock") if key is None else (root / key).parent.glob(f"{(root / key).name}_*.__lock")
        for leftover in found:
            leftover.unlink(missing_ok=True)
