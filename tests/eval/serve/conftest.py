"""A policy whose answers tell what it was asked, a server of it, and the messages of its clients."""

import io
import threading
import time
import types

import msgpack
import numpy as np
import pytest
import zmq

from eval import client, openpi_client, serve

ANNOTATION = client.ANNOTATION
META = {
    "views": ["top", "side"], "state": {"hand": 3, "gripper": 1}, "actions": {"delta": 3, "gripper": 1},
    "horizon": 4, "tokenizer": "{}", "language_length": 8, "video": [1, 2, 8, 8, 3], "embodiment": "metaworld",
}  # fmt: skip


class Reckoner:
    """A policy by the contract of eval/policy.py whose actions follow from every input, so that answers tell."""

    def __init__(self):
        self.meta, self.asked, self.gate = dict(META), [], threading.Event()
        self.gate.set()

    def act(self, observation, *, atp=None, trust=None, seed=0):
        assert observation.video.dtype == np.uint8
        assert observation.state.dtype == np.float32
        if any(len(text) > 64 * self.meta["language_length"] for text in observation.instruction):
            raise ValueError("instruction: too long")
        self.gate.wait(20)
        self.asked.append((observation.instruction, atp, seed))
        batch, views = len(observation.video), observation.video.astype(np.float32).mean((1, 3, 4, 5))
        steps = np.arange(META["horizon"], dtype=np.float32)[None, :, None]
        delta = observation.state[:, :, :3] + steps
        gripper = (views @ np.array([1.0, 1000.0], np.float32))[:, None, None] + observation.state[:, :, 3:] + 0 * steps
        rows = np.zeros(batch, np.float32)
        return types.SimpleNamespace(
            actions={"delta": delta, "gripper": gripper}, steps={"vision": rows.astype(int)}, confidence=rows, atp=rows
        )


@pytest.fixture
def policy():
    return Reckoner()


@pytest.fixture
def start(policy, tmp_path, monkeypatch):
    """A running server of that policy, on a free port, with these options."""
    monkeypatch.delenv(serve.TOKEN, raising=False)
    contexts = []

    def start(**options):
        given = {"port": 0, "timeout_s": 20.0} | options
        contexts.append(serve.running(policy, serve.Config(artifact=tmp_path, **given)))
        return contexts[-1].__enter__()

    yield start
    policy.gate.set()
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def observe():
    return _observe


@pytest.fixture
def wired():
    return _wired


@pytest.fixture
def ask():
    return _ask


@pytest.fixture
def once():
    return _once


@pytest.fixture
def until():
    return _until


@pytest.fixture
def failed():
    return _failed


def _observe(value=0.0, batch=None):
    lead = () if batch is None else (batch,)
    return {
        "video.top": np.full((*lead, 1, 8, 8, 3), 2, np.uint8),
        "video.side": np.full((*lead, 1, 8, 8, 3), 3, np.uint8),
        "state.hand": np.full((*lead, 1, 3), value),
        "state.gripper": np.full((*lead, 1, 1), 0.5),
        ANNOTATION: ["open the drawer"] * (batch or 1),
    }


def _npy(array):
    """As N1.5's and N1.6's clients write an array: np.save without pickles."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": stream.getvalue()}


def _wired(value):
    """The map that such a client packs."""
    if isinstance(value, dict):
        return {key: _wired(one) for key, one in value.items()}
    return _npy(value) if isinstance(value, np.ndarray) else value


def _ask(url, message):
    """One raw REQ round trip."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(url)
        socket.send(message)
        assert socket.poll(20_000)
        return msgpack.unpackb(socket.recv())


def _once(url, protocol):
    if protocol == "n1.5":
        with client.Client(url, timeout_s=20) as robot:
            robot.get_action(_observe())
    else:
        with openpi_client.Client(url, timeout_s=20) as robot:
            flat = _observe()
            state = np.concatenate([flat["state.hand"][0], flat["state.gripper"][0]])
            views = {f"observation/{view}": flat[f"video.{view}"][0] for view in ("top", "side")}
            robot.infer(views | {"observation/state": state, "prompt": "go"})
    return "acted"


def _failed(url, protocol):
    with pytest.raises((client.ServerError, openpi_client.ServerError)) as error:
        _once(url, protocol)
    return str(error.value)


def _until(done):
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
