"""A client of openpi's websocket protocol, to be copied: needs numpy, msgpack and websockets, and none of this project.

with Client("ws://127.0.0.1:8000") as robot:
    actions = robot.infer({"observation/top": frame, "observation/state": state, "prompt": "open the door"})["actions"]
"""

import contextlib
import functools
from typing import Any

import msgpack
import numpy as np
import websockets.sync.client


class ServerError(RuntimeError):
    """The server's own words about why it has no answer."""


class Client:
    """A connection, open inside `with`; `metadata` is what the server says of its policy: keys, state, actions,
    horizon."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 5.0):
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._connect = functools.partial(websockets.sync.client.connect, url, additional_headers=headers)
        self._timeout, self._stack = timeout_s, contextlib.ExitStack()

    def __enter__(self) -> "Client":
        self._socket = self._stack.enter_context(self._connect(compression=None, max_size=None))
        self.metadata: dict = unpack(self._socket.recv(self._timeout))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def infer(self, observation: dict) -> dict:
        """{"actions": float32 [H, D], "server_timing": {...}} for an observation. Raises ServerError, TimeoutError."""
        return unpack(self.send(pack(observation)))

    def reset(self, **options: Any) -> None:
        """Start an episode; options: atp and seed, kept until the next reset."""
        unpack(self.send(pack({"reset": options})))

    def send(self, message: bytes | str) -> bytes | str:
        """A frame as it is, and the frame that comes back."""
        self._socket.send(message)
        return self._socket.recv(self._timeout)


def pack(value: Any) -> bytes:
    """One message of openpi's."""
    return msgpack.packb(value, default=_array)


def unpack(data: bytes | str) -> Any:
    """The value of an answer. Raises ServerError where it is an error."""
    if isinstance(data, str):
        raise ServerError(data)
    return msgpack.unpackb(data, object_hook=_object)


def _array(value: Any) -> dict:
    value = np.asarray(value)
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _object(value: dict) -> Any:
    if b"__ndarray__" not in value:
        return value
    return np.frombuffer(value[b"data"], value[b"dtype"]).reshape(value[b"shape"])
