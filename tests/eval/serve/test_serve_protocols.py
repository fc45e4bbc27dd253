"""What the server reads and writes: the exact messages that GR00T's and openpi's clients send."""

import contextlib
import io
import json
import urllib.request

import msgpack
import numpy as np
import pytest

from eval import client, openpi_client, request, sessions, wire

ANNOTATION = client.ANNOTATION


def test_n15s_own_bytes_are_answered_in_its_own_bytes(start, policy, observe, wired, ask):
    url = start().url
    data = wired(observe(0.25))
    found = ask(url, msgpack.packb({"endpoint": "get_action", "data": data}))
    assert list(found) == ["action.delta", "action.gripper"]
    assert found["action.delta"]["__ndarray_class__"] is True
    delta = np.load(io.BytesIO(found["action.delta"]["as_npy"]), allow_pickle=False)
    assert delta.dtype == np.float32
    np.testing.assert_array_equal(delta, np.full((4, 3), 0.25) + np.arange(4)[:, None])
    gripper = np.load(io.BytesIO(found["action.gripper"]["as_npy"]), allow_pickle=False)
    np.testing.assert_array_equal(gripper, np.full((4, 1), 3002.5))  # views in the artifact's order
    assert policy.asked == [(("go",), None, 0), (("open the drawer",), None, 0)]
    assert "action.delta" in ask(url, msgpack.packb({"data": data}))  # get_action is the default
    assert ask(url, msgpack.packb({"endpoint": "ping"})) == {"status": "ok", "message": "Server is running"}
    config = ask(url, msgpack.packb({"endpoint": "get_modality_config"}))
    assert {name: json.loads(one["as_json"]) for name, one in config.items()} == {
        "video": {"delta_indices": [0], "modality_keys": ["video.top", "video.side"]},
        "state": {"delta_indices": [0], "modality_keys": ["state.hand", "state.gripper"]},
        "action": {"delta_indices": [0, 1, 2, 3], "modality_keys": ["action.delta", "action.gripper"]},
        "language": {"delta_indices": [0], "modality_keys": [ANNOTATION]},
    }


def test_n16s_own_bytes_are_answered_in_its_own_bytes(start, policy, observe, wired, ask):
    url = start(protocol="n1.6", max_batch=2).url
    flat = observe(0.25, batch=2)
    nested = {
        "video": {"top": flat["video.top"], "side": flat["video.side"]},
        "state": {"hand": flat["state.hand"], "gripper": flat["state.gripper"]},
        "language": {"task": [["open it"], ["shut it"]]},
    }
    data = {"observation": wired(nested), "options": {"atp": 7.0, "seed": 3}}
    actions, info = ask(url, msgpack.packb({"endpoint": "get_action", "data": data}))
    assert np.load(io.BytesIO(actions["delta"]["as_npy"])).shape == (2, 4, 3)
    assert info["confidence"] == [0.0, 0.0]
    assert policy.asked[-1] == (("open it", "shut it"), 7.0, 3)
    config = ask(url, msgpack.packb({"endpoint": "get_modality_config"}))
    assert config["video"]["as_json"] == {"delta_indices": [0], "modality_keys": ["top", "side"]}
    actions, _ = ask(url, msgpack.packb({"data": {"observation": wired(flat), "options": None}}))
    assert list(actions) == ["action.delta", "action.gripper"]  # the form of its simulation wrapper
    assert "options.seed" in ask(url, msgpack.packb({"data": {"observation": {}, "options": {"seed": -1}}}))["error"]


def test_a_reset_holds_for_its_own_client_until_the_next(start, policy, observe):
    server = start(protocol="n1.6")
    with client.Client(server.url, version="n1.6") as one, client.Client(server.url, version="n1.6") as other:
        one.call("reset", {"options": {"seed": 5, "atp": 2.0}})
        for robot, options in ((one, None), (other, None), (one, {"seed": 6})):
            robot.get_action(observe(), options=options)
        one.call("reset", {"options": None})
        one.get_action(observe())
    assert [asked[1:] for asked in policy.asked[1:]] == [(2.0, 5), (None, 0), (2.0, 6), (None, 0)]


def test_openpis_own_bytes_are_answered_in_its_own_bytes(start, policy):
    url = start(protocol="openpi").url
    array = lambda a: {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}  # noqa: E731
    given = {
        "observation/top": array(np.full((8, 8, 3), 2, np.uint8)),
        "observation/side": array(np.full((8, 8, 3), 3, np.uint8)),
        "observation/state": array(np.array([1.0, 2.0, 3.0, 0.5])),
        "prompt": "open the drawer",
    }
    with openpi_client.Client(url) as robot:
        assert robot.metadata["keys"] == list(given)
        found = msgpack.unpackb(robot.send(msgpack.packb(given)))
        assert set(found) == {"actions", "server_timing"}
        assert found["actions"][b"dtype"] == "<f4"
        actions = np.frombuffer(found["actions"][b"data"], "<f4").reshape(found["actions"][b"shape"])
        np.testing.assert_array_equal(actions[1], [2, 3, 4, 3002.5])
        assert isinstance(robot.send("text"), str)
        assert "observation/top" in robot.send(msgpack.packb({"prompt": "x"}))
        robot.reset(seed=9)
        robot.send(msgpack.packb(given))
        assert policy.asked[-1] == (("open the drawer",), None, 9)
    with urllib.request.urlopen(url.replace("ws", "http") + "/healthz") as page:
        assert page.read() == b"OK\n"


def test_a_client_with_a_batch_axis_is_answered_with_one(start, observe):
    with client.Client(start(max_batch=16).url) as robot:
        assert robot.get_action(observe(batch=3))["action.delta"].shape == (3, 4, 3)
        assert robot.get_action(observe() | {ANNOTATION: np.array(["open it"])})["action.delta"].shape == (4, 3)
        with pytest.raises(client.ServerError, match="at most 16"):
            robot.get_action(observe(batch=17))


BAD = [
    ("video.top", None, "missing"), ("state.hand", None, "missing"), (ANNOTATION, None, "one instruction"),
    ("video.wrist", np.zeros(3), "not read"), ("annotation.other", ["x"], "one instruction"),
    ("video.top", np.zeros((1, 8, 8, 3)), "uint8"), ("video.top", np.zeros((1, 9, 8, 3), np.uint8), "expected uint8"),
    ("video.side", np.zeros((1, 8, 8, 4), np.uint8), "expected uint8"), ("video.side", [1, 2], "got list"),
    ("video.side", np.zeros((2, 1, 8, 8, 3), np.uint8), "expected uint8"),
    ("state.hand", np.zeros((1, 4)), "numbers"), ("state.hand", np.zeros(3), "numbers"),
    ("state.hand", np.full((1, 3), np.nan), "NaN"), ("state.hand", np.full((1, 3), 1e300), "beyond float32"),
    ("state.hand", np.array([["a", "b", "c"]]), "numbers"), ("state.gripper", 3, "numbers"),
    (ANNOTATION, ["a", "b"], "1 strings"), (ANNOTATION, [3], "1 strings"), (ANNOTATION, {"a": 1}, "1 strings"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), BAD)
def test_a_bad_observation_names_its_key(policy, key, value, said, observe):
    given = observe() | {key: value}
    if value is None:
        del given[key]
    with pytest.raises(request.RequestError, match=said) as error:
        request.Form(policy.meta, max_batch=16).flat(given)
    assert key in str(error.value)


@pytest.mark.parametrize("given", [None, [], 3, {"video": 3}, {"video": {}, "x": {}}, {"language": {"k": "v"}}])
def test_what_is_no_observation_is_refused(policy, given):
    form = request.Form(policy.meta, max_batch=16)
    for read in (form.flat, form.nested, form.openpi):
        with pytest.raises(request.RequestError):
            read(given)


def test_our_client_reads_what_the_server_writes():
    assert client.unpack(wire.pack({"video": wire.Modality([0], ["a"])}, "n1.5"))["video"]["modality_keys"] == ["a"]


def test_the_session_forgotten_first_is_the_one_that_was_silent_longest(start, policy, observe, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS", 2)
    url = start(protocol="n1.6").url
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(client.Client(url, version="n1.6")) for _ in range(3))
        for seed, robot in enumerate((one, two), 1):
            robot.call("reset", {"options": {"seed": seed}})
        one.get_action(observe())
        three.call("reset", {"options": {"seed": 3}})
        for robot in (one, two, three):
            robot.get_action(observe())
    assert [asked[2] for asked in policy.asked[1:]] == [1, 1, 0, 3]


def test_text_that_is_none_and_an_endpoint_that_is_an_array_are_the_clients_errors(start, observe, ask, wired, caplog):
    bad = np.frombuffer(np.array([0x110000], "<u4").tobytes(), "<U1")
    url = start(protocol="n1.6").url
    for message, said in (
        ({"data": {"observation": observe() | {ANNOTATION: bad}}}, "expected text"),
        ({"endpoint": np.array(["ping", "kill"])}, "endpoint: expected one of"),
        ({"endpoint": bad}, "endpoint: expected one of"),
        ({"endpoint": "reset", "data": {"options": bad}}, "options: expected a map"),
        ({"endpoint": "reset", "data": {"options": {"seed": bad}}}, "options.seed"),
    ):
        assert said in ask(url, msgpack.packb(wired(message)))["error"]
    assert not [record for record in caplog.records if record.exc_info]
