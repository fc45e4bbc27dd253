"""The policy server's command: who is let in, what it counts, what is said before it starts."""

import socket
import urllib.error
import urllib.request

import msgpack
import pytest
import websockets

from eval import client, openpi_client, request, serve, websocket_server


def test_a_server_with_a_token_answers_nobody_else(start, policy, observe, ask):
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


def test_metrics_count_and_a_scraper_reads_them(start, caplog, once):
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


def test_an_address_that_is_none_is_said():
    with pytest.raises(ValueError, match="tcp://"):
        client.Client("nowhere")


@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_a_metrics_port_that_is_taken_is_said(policy, tmp_path, protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = serve.Config(artifact=tmp_path, port=0, protocol=protocol, metrics_port=port)
        with pytest.raises(serve.ServeError, match=f"--metrics-port {port}"), serve.served(policy, options):
            pass


def test_every_number_of_observations_is_compiled_before_it_is_ready(start, policy, observe):
    start(max_batch=3)
    assert [len(said) for said, *_ in policy.asked] == [1, 2, 3]
    with client.Client(start().url) as robot, pytest.raises(client.ServerError, match="at most 1"):
        robot.get_action(observe(batch=2))


def test_ctrl_c_while_it_starts_is_no_traceback(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.policy, "load", interrupted)
    assert serve.main([str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1
