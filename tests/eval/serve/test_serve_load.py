"""A policy server under load and faults: whatever happens, every client gets its own answer or an error."""

import itertools
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import zmq

from eval import client, openpi_client, soak


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_full_queue_is_said_at_once_and_the_rest_is_answered(start, policy, protocol, once, until):
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


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_stale_request_gets_an_error_and_is_never_acted_on(start, policy, protocol, once, until, failed):
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


def test_pings_are_answered_while_the_policy_thinks_and_health_shows_the_queue(start, policy, once, until):
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
def test_a_stop_answers_what_was_asked(start, policy, protocol, once, until):
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


def test_a_client_that_dies_blocks_nobody(start, policy, observe, once, until):
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
def test_a_policy_that_fails_is_an_error_and_no_end(start, policy, fault, caplog, once, failed):
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


def test_what_is_too_large_is_refused_in_words(start, once):
    server = start(max_bytes=3000)
    with client.Client(server.url) as robot:
        with pytest.raises(client.ServerError, match="--max-bytes"):
            robot.call("ping", "x" * 3500)
        assert robot.ping()
    with client.Client(server.url, timeout_s=0.3) as robot, pytest.raises(TimeoutError):
        robot.call("ping", "x" * 5000)  # cut off by libzmq, without an answer
    assert once(server.url, "n1.5") == "acted"


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


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_what_does_not_even_speak_the_transport_harms_nobody(start, protocol, once):
    url = start(protocol=protocol).url
    host, port = url.rpartition("/")[2].split(":")
    rng = np.random.default_rng(0)
    for length in (0, 1, 64, 5000):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(rng.bytes(length))
    assert once(url, protocol) == "acted"


def test_a_client_that_does_not_wait_gets_an_answer_for_everything(start, policy, observe, once):
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


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_health_says_that_the_policy_hangs_and_that_it_came_back(start, policy, once, failed, until, caplog, protocol):
    caplog.set_level("INFO")
    server = start(timeout_s=0.05, protocol=protocol, metrics_port=0)
    page = next(record.args[0] for record in caplog.records if record.msg.startswith("metrics"))
    pages = [page.replace("/metrics", "/health")]
    pages += [server.url.replace("ws", "http") + "/healthz"] if protocol == "openpi" else []
    assert [fetch(url) for url in pages] == [200] * len(pages)
    policy.gate.clear()
    assert "stale" in failed(server.url, protocol)
    until(lambda: server.responder.health()["status"] == "stuck")
    assert [fetch(url) for url in pages] == [503] * len(pages)
    with urllib.request.urlopen(page) as answer:
        assert "sage_stuck 1" in answer.read().decode()
    policy.gate.set()
    until(lambda: server.responder.health()["status"] == "ok")
    assert [fetch(url) for url in pages] == [200] * len(pages)


def fetch(url):
    """The HTTP status."""
    try:
        with urllib.request.urlopen(url) as page:
            return page.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
