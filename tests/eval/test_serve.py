"""The policy server over real sockets, driven by the exact messages that GR00T's and openpi's clients send."""

import io
import itertools
import json
import socket
import threading
import time
import types
import urllib.error
import urllib.request

import msgpack
import numpy as np
import pytest
import websockets
import zmq

from eval import client, openpi_client, request, serve, soak, websocket_server, wire

ANNOTATION = "annotation.human.action.task_description"
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


def observe(value=0.0, batch=None):
    lead = () if batch is None else (batch,)
    return {
        "video.top": np.full((*lead, 1, 8, 8, 3), 2, np.uint8),
        "video.side": np.full((*lead, 1, 8, 8, 3), 3, np.uint8),
        "state.hand": np.full((*lead, 1, 3), value),
        "state.gripper": np.full((*lead, 1, 1), 0.5),
        ANNOTATION: ["open the drawer"] * (batch or 1),
    }


def npy(array):
    """As N1.5's and N1.6's clients write an array: np.save without pickles."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": stream.getvalue()}


def wired(value):
    """The map that such a client packs."""
    if isinstance(value, dict):
        return {key: wired(one) for key, one in value.items()}
    return npy(value) if isinstance(value, np.ndarray) else value


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


def ask(url, message):
    """One raw REQ round trip."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(url)
        socket.send(message)
        assert socket.poll(20_000)
        return msgpack.unpackb(socket.recv())


def test_n15s_own_bytes_are_answered_in_its_own_bytes(start, policy):
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


def test_n16s_own_bytes_are_answered_in_its_own_bytes(start, policy):
    url = start(protocol="n1.6").url
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


def test_a_reset_holds_for_its_own_client_until_the_next(start, policy):
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


def test_a_client_with_a_batch_axis_is_answered_with_one(start):
    with client.Client(start().url) as robot:
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
def test_a_bad_observation_names_its_key(key, value, said):
    given = observe() | {key: value}
    if value is None:
        del given[key]
    with pytest.raises(request.RequestError, match=said) as error:
        request.Form(META, max_batch=16).flat(given)
    assert key in str(error.value)


@pytest.mark.parametrize("given", [None, [], 3, {"video": 3}, {"video": {}, "x": {}}, {"language": {"k": "v"}}])
def test_what_is_no_observation_is_refused(given):
    form = request.Form(META, max_batch=16)
    for read in (form.flat, form.nested, form.openpi):
        with pytest.raises(request.RequestError):
            read(given)


def test_a_server_with_a_token_answers_nobody_else(start, policy):
    server = start(token="geheim", allow_kill=True)
    for token in ("", "geheim2", "geheiM", "gehe\N{GREEK SMALL LETTER IOTA}m"):
        with client.Client(server.url, token=token) as robot:
            for endpoint in ("kill", "ping", "get_action", "health", "metrics"):
                with pytest.raises(client.ServerError, match="Unauthorized"):
                    robot.call(endpoint)
    assert "Unauthorized" in ask(server.url, msgpack.packb({"endpoint": "kill", "api_token": 3}))["error"]
    assert not server.responder.stop.is_set()
    with client.Client(server.url, token="geheim") as robot:
        assert robot.get_action(observe())
        robot.call("kill")
    assert server.responder.stop.is_set()


def test_openpis_key_is_a_header(start):
    url = start(protocol="openpi", token="geheim").url
    with pytest.raises(websockets.InvalidStatus, match="401"), openpi_client.Client(url, token="wrong"):
        pass
    with openpi_client.Client(url, token="geheim") as robot:
        assert robot.metadata["status"] == "ok"


def test_kill_is_off_unless_allowed(start):
    server = start()
    with client.Client(server.url) as robot:
        with pytest.raises(client.ServerError, match="--allow-kill"):
            robot.call("kill")
        assert robot.ping()


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_full_queue_is_said_at_once_and_the_rest_is_answered(start, policy, protocol):
    server = start(queue=1, protocol=protocol)
    policy.gate.clear()
    answers, threads = [], []

    def one():
        try:
            answers.append(once(server.url, protocol))
        except (client.ServerError, openpi_client.ServerError) as error:
            answers.append(str(error))

    for _ in range(6):
        threads.append(threading.Thread(target=one))
        threads[-1].start()
    until(lambda: len(answers) >= 3)
    assert all("busy" in answer for answer in answers)
    policy.gate.set()
    for thread in threads:
        thread.join()
    assert sum(answer == "acted" for answer in answers) == 6 - server.responder.metrics.snapshot()["errors"]["busy"]
    assert "acted" in answers


def once(url, protocol):
    if protocol == "n1.5":
        with client.Client(url, timeout_s=20) as robot:
            robot.get_action(observe())
    else:
        with openpi_client.Client(url, timeout_s=20) as robot:
            flat = observe()
            state = np.concatenate([flat["state.hand"][0], flat["state.gripper"][0]])
            views = {f"observation/{view}": flat[f"video.{view}"][0] for view in ("top", "side")}
            robot.infer(views | {"observation/state": state, "prompt": "go"})
    return "acted"


def until(done):
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_stale_request_gets_an_error_and_is_never_acted_on(start, policy, protocol):
    server = start(timeout_s=0.2, protocol=protocol)
    policy.gate.clear()
    threads = [threading.Thread(target=lambda: failures.append(failed(server.url, protocol))) for _ in range(2)]
    failures = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("stale" in failure for failure in failures)
    before = len(policy.asked)
    policy.gate.set()
    until(lambda: server.worker.depth == 0)
    assert once(server.url, protocol) == "acted"
    assert len(policy.asked) == before + 2  # the one that hung and the last; not the one that waited


def failed(url, protocol):
    with pytest.raises((client.ServerError, openpi_client.ServerError)) as error:
        once(url, protocol)
    return str(error.value)


def test_pings_are_answered_while_the_policy_thinks_and_health_shows_the_queue(start, policy):
    server = start()
    policy.gate.clear()
    thread = threading.Thread(target=once, args=(server.url, "n1.5"))
    thread.start()
    until(lambda: server.responder.metrics.snapshot()["requests"])
    with client.Client(server.url) as robot:
        assert robot.ping()
        assert robot.call("health")["status"] == "ok"
    policy.gate.set()
    thread.join()


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_stop_answers_what_was_asked(start, policy, protocol):
    server = start(protocol=protocol)
    policy.gate.clear()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(once(server.url, protocol)))
    thread.start()
    until(lambda: server.responder.metrics.snapshot()["requests"])
    server.responder.stop.set()
    time.sleep(0.2)
    policy.gate.set()
    thread.join()
    assert answers == ["acted"]


def test_a_client_that_dies_blocks_nobody(start, policy):
    server = start()
    policy.gate.clear()
    with zmq.Context() as context:
        for _ in range(3):
            socket = context.socket(zmq.REQ)
            socket.connect(server.url)
            socket.send(client.pack({"data": observe()}))
            until(lambda: server.responder.metrics.snapshot()["requests"])
            socket.close(0)
    policy.gate.set()
    assert once(server.url, "n1.5") == "acted"


@pytest.mark.parametrize("fault", [ValueError("state: too warm"), RuntimeError("secret path"), "nan"])
def test_a_policy_that_fails_is_an_error_and_no_end(start, policy, fault, caplog):
    server, act = start(), policy.act

    def broken(observation, **options):
        if isinstance(fault, Exception):
            raise fault
        found = act(observation, **options)
        found.actions["delta"] = found.actions["delta"] * np.nan
        return found

    policy.act = broken
    said = failed(server.url, "n1.5")
    assert ("too warm" in said, "RuntimeError" in said, "NaN" in said).count(True) == 1
    assert "secret" not in said
    policy.act = act
    assert once(server.url, "n1.5") == "acted"


def test_what_is_too_large_is_refused_in_words(start):
    server = start(max_bytes=3000)
    with client.Client(server.url) as robot:
        with pytest.raises(client.ServerError, match="--max-bytes"):
            robot.call("ping", "x" * 4000)
        assert robot.ping()
    with client.Client(server.url, timeout_s=0.3) as robot, pytest.raises(TimeoutError):
        robot.call("ping", "x" * 40_000)  # cut off by libzmq, without an answer
    assert once(server.url, "n1.5") == "acted"


def test_metrics_count_and_a_scraper_reads_them(start, caplog):
    caplog.set_level("INFO")
    server = start(metrics_port=0)
    once(server.url, "n1.5")
    with client.Client(server.url) as robot, pytest.raises(client.ServerError):
        robot.call("nothing")
    with client.Client(server.url) as robot:
        found = robot.call("metrics")
    assert found["requests"] == {"get_action": 1, "metrics": 1}
    assert found["errors"] == {"malformed": 1}
    assert found["latency_ms"]["reply"]["p50"] >= found["latency_ms"]["policy"]["p50"] >= 0
    url = next(record.args[0] for record in caplog.records if record.msg.startswith("metrics"))
    with urllib.request.urlopen(url) as page:
        text = page.read().decode()
    assert 'sage_errors_total{kind="malformed"} 1' in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + "x")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "robot.local"])
def test_other_machines_are_let_in_only_with_a_token(host, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert serve.main([str(tmp_path), "--host", host]) == 2
    assert "SAGE_TOKEN" in capsys.readouterr().err
    for safe in ({"token": "x"}, {"insecure": True}):
        serve.check(serve.Config(artifact=tmp_path, host=host, **safe))
    monkeypatch.setenv(serve.TOKEN, "x")
    serve.check(serve.Config(artifact=tmp_path, host=host))


def test_what_cannot_be_served_is_said(tmp_path, policy, capsys):
    assert serve.main([str(tmp_path)]) == 2
    assert "missing" in capsys.readouterr().err
    assert serve.main([str(tmp_path), "--queue", "0"]) == 2
    policy.meta["actions"] = None
    with pytest.raises(request.RequestError, match="no actions"), serve.served(policy, serve.Config(artifact=tmp_path)):
        pass


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_port_that_is_taken_is_said(start, policy, tmp_path, protocol):
    port = int(start(protocol=protocol).url.rpartition(":")[2])
    taken = serve.Config(artifact=tmp_path, port=port, protocol=protocol)
    with pytest.raises(serve.USER_ERRORS, match="--port"), serve.served(policy, taken):
        pass


def test_websocket_connections_are_counted(start, monkeypatch):
    monkeypatch.setattr(websocket_server, "CLIENTS", 1)
    url = start(protocol="openpi").url
    with openpi_client.Client(url), pytest.raises(websockets.InvalidStatus, match="503"), openpi_client.Client(url):
        pass


def test_our_client_reads_what_the_server_writes():
    assert client.unpack(wire.pack({"video": wire.Modality([0], ["a"])}, "n1.5"))["video"]["modality_keys"] == ["a"]


def soaked(server, policy, good, bad):
    """Good requests by two clients, then bad ones, then good ones again."""
    asked = soak.questions(policy, server.responder.form, count=32)
    found = soak.together(server.url, asked, count=good, clients=2)
    assert [(one["asked"], one["wrong"], one["lost"]) for one in found] == [(good // 2, 0, 0)] * 2
    refused = soak.ask_malformed(server.url, soak.malformed(asked[0], count=bad))
    assert refused["silent"] == 0
    assert sum(refused["errors"].values()) + sum(refused["answered"].values()) == bad
    assert set(refused["answered"]) <= {"mutated"}  # a changed byte may leave a message as good as it was
    assert sum(refused["answered"].values()) < bad / 100
    assert soak.together(server.url, asked, count=32, clients=1)[0]["wrong"] == 0
    mixed = [soak.Question(one.observation, other.answer) for one, other in itertools.pairwise(asked)]
    assert soak.ask_all(server.url, mixed, count=31)["wrong"] == 31


def test_nothing_is_lost_mixed_up_or_left_unanswered(start, policy):
    soaked(start(), policy, 400, 200)


@pytest.mark.soak
def test_nothing_is_lost_in_ten_thousand_requests_and_memory_does_not_grow(start, policy):
    server = start()
    soaked(server, policy, 1000, 1000)
    before = server.responder.metrics.snapshot()["resident_bytes"]
    soaked(server, policy, 10_000, 1000)
    assert server.responder.metrics.snapshot()["resident_bytes"] - before < 20e6


def test_an_address_that_is_none_is_said():
    with pytest.raises(ValueError, match="tcp://"):
        client.Client("nowhere")


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_what_does_not_even_speak_the_transport_harms_nobody(start, protocol):
    url = start(protocol=protocol).url
    host, port = url.rpartition("/")[2].split(":")
    rng = np.random.default_rng(0)
    for length in (0, 1, 64, 5000):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(rng.bytes(length))
    assert once(url, protocol) == "acted"


def test_a_client_that_does_not_wait_gets_an_answer_for_everything(start, policy):
    server = start(queue=4)
    with zmq.Context() as context, context.socket(zmq.DEALER) as flood:
        flood.linger = 0
        flood.connect(server.url)
        for index in range(200):
            flood.send_multipart([b"%d" % index, b"", client.pack({"data": observe(index)})])
        acted = 0
        for _ in range(200):
            assert flood.poll(20_000)
            index, _, answer = flood.recv_multipart()
            if b"busy" not in answer:
                assert client.unpack(answer)["action.delta"][0, 0] == int(index)
                acted += 1
        assert acted
        assert once(server.url, "n1.5") == "acted"
