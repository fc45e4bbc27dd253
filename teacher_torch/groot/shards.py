"""Safetensors files of a checkpoint: one or several, read tensor by tensor, never mapped whole into memory."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping

import safetensors
import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAPPED_BYTES = 512 * 2**20  # a file is opened anew after this much, so that pages read do not stay resident


class CheckpointError(ValueError):
    """Weights that cannot be read or do not fit; the message names the file, every key concerned, and the fix."""


def files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{stored key: file} of a checkpoint folder, from its index or its single file."""
    if (folder / INDEX).is_file():
        return _from_index(folder)
    if not (folder / SINGLE).is_file():
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"no weights in {folder}: expected {SINGLE} or {INDEX}, found {found}. "
            "Download the whole checkpoint, or convert .bin files with safetensors first"
        )
    return dict.fromkeys(_keys(folder / SINGLE), folder / SINGLE)


def _from_index(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    try:
        table = json.loads((folder / INDEX).read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} is not a weight index ({error!r}): download it again") from error
    paths = {name: folder / name for name in sorted(set(table.values()))}
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        raise FileNotFoundError(f"{folder} lacks {missing}, which {INDEX} names: download the missing shards")
    held = {name: set(_keys(path)) for name, path in paths.items()}
    if absent := [key for key, name in table.items() if key not in held[name]]:
        raise CheckpointError(f"{folder / INDEX} names tensors that its shards lack: {absent}; download it again")
    if extra := [key for name in held for key in held[name] if table.get(key) != name]:
        raise CheckpointError(f"shards of {folder} hold tensors that {INDEX} does not name: {extra}; download it again")
    return {key: paths[name] for key, name in table.items()}


def open_file(path: pathlib.Path) -> safetensors.safe_open:
    """Open one file; a damaged one is an error that names it."""
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): it is damaged or cut short, download it again"
        ) from error


def _keys(path: pathlib.Path) -> list[str]:
    with open_file(path) as file:
        return list(file.keys())


def shapes(stored: Mapping[str, pathlib.Path]) -> dict[str, tuple[tuple[int, ...], str]]:
    """(shape, dtype name) of every stored key, from the files' headers alone."""
    result = {}
    for path in sorted(set(stored.values())):
        with open_file(path) as file:
            for key in (key for key, where in stored.items() if where == path):
                part = file.get_slice(key)
                result[key] = (tuple(part.get_shape()), part.get_dtype())
    return result


def read(wanted: Mapping[str, pathlib.Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """(key, tensor) for the wanted keys alone. A tensor lies in the file's mapping: copy it before the next one."""
    for path in sorted(set(wanted.values())):
        keys = [key for key, where in wanted.items() if where == path]
        while keys:
            mapped = 0
            with open_file(path) as file:
                while keys and mapped < MAPPED_BYTES:
                    key = keys.pop(0)
                    tensor = file.get_tensor(key)
                    mapped += tensor.nbytes
                    yield key, tensor
                    del tensor


def digest(folder: pathlib.Path | str) -> str:
    """sha256 over the names and contents of a checkpoint's weight and configuration files: what the model computes."""
    folder = pathlib.Path(folder)
    weights = sorted({path.name for path in files(folder).values()})
    total = hashlib.sha256()
    for name in ["config.json", "eagle_config.json", "token_ids.json", *weights]:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
