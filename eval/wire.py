"""Bytes to values and back, as GR00T's ZMQ clients and openpi's websocket clients write them.

Nothing is evaluated or unpickled, and nothing is allocated on a peer's word: an array is a view of the bytes that came.
"""

import dataclasses
import io
import json
import re
from collections.abc import Callable
from typing import Any, Literal

import msgpack
import numpy as np

Protocol = Literal["n1.5", "n1.6", "openpi"]
DTYPE = re.compile(r"[<>|=](b1|[iu][1248]|f[248]|U[1-9]\d{0,4})")
"""Arrays that are read: bool, integers, floats, text. No objects, records or dates."""
AXES, HEADER = 8, 1024
"""Axes of an array and bytes of its npy header, at most."""
NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>[^'\\]{1,20})', "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>(?:\d{1,12}, ?)*(?:\d{1,12})?)\), ?\} *\n",
    re.DOTALL,
)
"""The header that np.save writes for them. numpy's own reader would evaluate it as Python and fail in many ways."""
BAD = (ValueError, TypeError, OverflowError, RecursionError, MemoryError, SystemError)


class WireError(ValueError):
    """A message that cannot be read; the text says what of it."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one message may hold."""

    max_bytes: int = 64 << 20
    items: int = 8192
    """Entries of all its maps and lists together."""
    depth: int = 8
    """Maps and lists within each other."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """GR00T's ModalityConfig: which steps, relative to now, of which keys."""

    delta_indices: list[int]
    modality_keys: list[str]


def pack(value: Any, protocol: Protocol) -> bytes:
    """One message. Arrays and `Modality` are written as the protocol's own clients read them."""
    return msgpack.packb(value, default=_WRITERS[protocol])


def unpack(data: bytes, protocol: Protocol, limits: Limits = Limits()) -> Any:
    """The value of one message; arrays are read-only views of `data`. WireError where it is no such message."""
    if len(data) > limits.max_bytes:
        raise WireError(f"the message has {len(data):,} bytes; the server takes {limits.max_bytes:,} (--max-bytes)")
    budget = _Budget(limits.items, _openpi_array if protocol == "openpi" else _groot_array)
    try:
        value = msgpack.unpackb(
            data,
            object_hook=budget.map,
            list_hook=budget.list,
            max_array_len=limits.items,
            max_map_len=limits.items,
            max_ext_len=0,
        )
    except WireError:
        raise
    except BAD as error:
        raise WireError(f"not a msgpack message ({type(error).__name__}: {str(error)[:100]})") from error
    _check_depth(value, limits.depth)
    return value


class _Budget:
    """Counts entries while a message is read, so that a small message of empty lists cannot grow to gigabytes."""

    def __init__(self, items: int, array: Callable[[dict], Any]):
        self._left, self._array = items, array

    def list(self, value: list) -> list:
        self._spend(len(value))
        return value

    def map(self, value: dict) -> Any:
        self._spend(len(value))
        return self._array(value)

    def _spend(self, count: int) -> None:
        self._left -= 1 + count
        if self._left < 0:
            raise WireError("the message has too many maps, lists and entries")


def _check_depth(value: Any, depth: int) -> None:
    layer = [value]
    for _ in range(depth + 1):
        inner = [one for one in layer if isinstance(one, dict | list)]
        if not inner:
            return
        layer = [part for one in inner for part in (one.values() if isinstance(one, dict) else one)]
    raise WireError(f"the message nests maps and lists deeper than {depth}")


def _groot_array(value: dict) -> Any:
    return _npy(value.get("as_npy")) if "__ndarray_class__" in value else value


def _npy(data: Any) -> np.ndarray:
    """The array of an npy file, from its header's own shape and dtype, checked against the bytes that are there."""
    if not isinstance(data, bytes):
        raise WireError(f"as_npy: expected the bytes of np.save, got {type(data).__name__}")
    head = NPY.match(data[:HEADER])
    if not head or int.from_bytes(head["length"], "little") != head.end() - head.end("length"):
        raise WireError("as_npy: not a file of np.save with an array of plain numbers or text")
    shape = tuple(int(size) for size in head["shape"].split(b",") if size.strip())
    fortran = head["fortran"] == b"True"
    found = _array(memoryview(data)[head.end() :], head["dtype"].decode(), shape[::-1] if fortran else shape, "as_npy")
    return found.T if fortran else found


def _openpi_array(value: dict) -> Any:
    if b"__npgeneric__" in value:
        if not isinstance(value.get(b"data"), bool | int | float | str):
            raise WireError("__npgeneric__: expected a number or text")
        return value[b"data"]
    if b"__ndarray__" not in value:
        return value
    data, shape = value.get(b"data"), value.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise WireError("__ndarray__: expected data as bytes and shape as a list")
    return _array(memoryview(data), value.get(b"dtype"), tuple(shape), "__ndarray__")


def _array(data: memoryview, code: Any, shape: tuple, what: str) -> np.ndarray:
    if not isinstance(code, str) or not DTYPE.fullmatch(code):
        raise WireError(f"{what}: arrays of {str(code)[:40]} are not read, only bool, integers, floats and text")
    dtype = np.dtype(code)
    if len(shape) > AXES or not all(type(size) is int and size > 0 for size in shape):
        raise WireError(f"{what}: expected a shape of at most {AXES} sizes > 0, got {str(shape)[:60]}")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != len(data):
        raise WireError(f"{what}: {dtype.str} {str(list(shape))[:60]} does not fit the {len(data)} bytes that came")
    return np.frombuffer(data, dtype).reshape(shape)


def _write_groot(value: Any) -> Any:
    if isinstance(value, Modality):
        return {"__ModalityConfig_class__": True, "as_json": json.dumps(dataclasses.asdict(value))}
    return _write_npy(value)


def _write_groot_map(value: Any) -> Any:
    if isinstance(value, Modality):
        return {"__ModalityConfig_class__": True, "as_json": dataclasses.asdict(value)}
    return _write_npy(value)


def _write_npy(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot send a {type(value).__name__}")
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": stream.getvalue()}


def _write_openpi(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or not DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"cannot send a {type(value).__name__}")
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


_WRITERS = {"n1.5": _write_groot, "n1.6": _write_groot_map, "openpi": _write_openpi}
