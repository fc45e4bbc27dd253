"""A client of GR00T's ZMQ protocols, to be copied: needs numpy, msgpack and pyzmq, and none of this project.

with Client("tcp://127.0.0.1:5555") as robot:
    actions = robot.get_action({"video.top": frame[None], "state.hand": hand[None], ANNOTATION: ["open the door"]})
"""

import io
import json
from typing import Any

import msgpack
import numpy as np
import zmq

ANNOTATION = "annotation.human.action.task_description"


class ServerError(RuntimeError):
    """The server's own words about why it has no answer."""


class Client:
    """One connection. Not for several threads at once. After a timeout it connects anew and can be used again; the
    server then takes it for another client, whose `reset` options are the defaults."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 5.0, version: str = "n1.5"):
        """version: "n1.5" or "n1.6", as the server's --protocol."""
        self.url, self.version = url, version
        self._token, self._timeout_ms = token, int(timeout_s * 1000)
        self._context = zmq.Context()
        try:
            self._connect()
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise ValueError(f"{url}: expected an address such as tcp://127.0.0.1:5555 ({error})") from error

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    def get_action(self, observation: dict, *, options: dict | None = None) -> dict[str, np.ndarray]:
        """observation: `video.VIEW` uint8 [T, H, W, 3], `state.PART` [T, D], ANNOTATION [str]; all with a leading batch
        axis, or none (n1.6: always). Returns `action.PART` float32 [H, D] ([B, H, D] for a batch).

        options: n1.6 only: {"atp": ..., "seed": ...}. Raises ServerError, TimeoutError.
        """
        if self.version == "n1.5":
            return self.call("get_action", observation)
        return self.call("get_action", {"observation": observation, "options": options})[0]

    def get_modality_config(self) -> dict[str, dict]:
        """{video, state, action, language: {delta_indices, modality_keys}}."""
        return self.call("get_modality_config")

    def ping(self) -> bool:
        """Whether a server answers."""
        try:
            return self.call("ping")["status"] == "ok"
        except TimeoutError:
            return False

    def call(self, endpoint: str, data: Any = None) -> Any:
        """Any endpoint: ping, get_action, get_modality_config, health, metrics, kill; n1.6: reset."""
        asked = {"endpoint": endpoint} | ({} if data is None else {"data": data})
        return unpack(self.send(pack(asked | ({"api_token": self._token} if self._token else {}))))

    def send(self, message: bytes) -> bytes:
        """Bytes as they are, and the bytes that come back. Raises TimeoutError."""
        self._socket.send(message)
        if not self._socket.poll(self._timeout_ms):
            self._socket.close(0)  # a REQ socket that misses an answer is of no more use
            self._connect()
            raise TimeoutError(f"{self.url} did not answer within {self._timeout_ms} ms; is a server running there?")
        return self._socket.recv()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.REQ)
        self._socket.connect(self.url)


def pack(value: Any) -> bytes:
    """One message of GR00T's."""
    return msgpack.packb(value, default=_array)


def unpack(data: bytes) -> Any:
    """The value of an answer. Raises ServerError where it is an error."""
    value = msgpack.unpackb(data, object_hook=_object)
    if isinstance(value, dict) and "error" in value:
        raise ServerError(value["error"])
    return value


def _array(value: Any) -> dict:
    stream = io.BytesIO()
    np.save(stream, np.asarray(value), allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": stream.getvalue()}


def _object(value: dict) -> Any:
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    if "__ModalityConfig_class__" in value:
        config = value["as_json"]
        return json.loads(config) if isinstance(config, str) else config
    return value
