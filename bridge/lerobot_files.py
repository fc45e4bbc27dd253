"""Files of a LeRobot dataset: JSON, JSON lines and parquet columns, with errors that name file, line and fix."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RESUME = (
    "fetch the dataset again, or where its recording was cut short, go on with it (episodes.create(..., resume=True) "
    "drops an unfinished last episode and nothing else)"
)


class DatasetError(ValueError):
    """A robot dataset that cannot be used; the message names the file, what was expected, what came and the fix."""


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {error.lineno}: not JSON ({error.msg}): {RESUME}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} must hold a JSON object, got {type(value).__name__}: {RESUME}")
    return value


def read_lines(path: pathlib.Path, *fields: str) -> list[dict[str, Any]]:
    """The objects of a JSON lines file; every one must have these fields. Blank lines are passed over."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error.msg}): {RESUME}") from error
        if not isinstance(row, dict) or (missing := [name for name in fields if name not in row]):
            lacks = missing if isinstance(row, dict) else list(fields)
            raise DatasetError(f"{path}, line {number}: lacks {lacks}; every line is an object with {list(fields)}")
        rows.append(row)
    return rows


def _text(path: pathlib.Path) -> str:
    if not path.is_file():
        raise DatasetError(f"{path} is missing: every LeRobot dataset has it; is the folder the dataset's own?")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): fetch it again") from error


def read_table(path: pathlib.Path, columns: list[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns."""
    try:
        return pq.ParquetFile(path).read(columns)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as parquet ({error}): {RESUME}") from error


def survey(path: pathlib.Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a parquet file, from its footer alone."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing, though the dataset's metadata names it: {RESUME}")
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as parquet ({error}): {RESUME}") from error
    return file.schema_arrow, file.metadata.num_rows


def element(kind: pa.DataType) -> pa.DataType:
    """Type of the innermost value of a (nested) list column."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers or booleans, or lists of them."""
    inner = element(kind)
    return pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_boolean(inner)


def array(path: pathlib.Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column as an array: [n] for scalars, [n, d] for lists, which must all have the same length d."""
    values = column.combine_chunks()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    rows, nested = len(values), False
    while element(values.type) != values.type:
        _no_nulls(path, name, values)
        if len(values) and len(pc.unique(pc.list_value_length(values))) != 1:
            raise DatasetError(f"{path}: the rows of column {name!r} differ in length; every row needs the same length")
        values, nested = values.flatten(), True
    _no_nulls(path, name, values)
    flat = values.to_numpy(zero_copy_only=False)
    return flat.reshape(rows, -1) if nested and rows else flat


def _no_nulls(path: pathlib.Path, name: str, values: pa.Array) -> None:
    if values.null_count:
        raise DatasetError(f"{path}: column {name!r} has {values.null_count} empty values; every row needs a number")


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")
    part.replace(path)


def append_line(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Add one line to a JSON lines file in a single write."""
    with open(path, "ab", buffering=0) as file:
        line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
        start = file.tell()
        if file.write(line) != len(line):
            file.truncate(start)
            raise OSError(28, "No space left on device", str(path))
