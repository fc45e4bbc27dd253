"""`python -m eval.serve ARTIFACT`: an exported student as a policy server that GR00T's and openpi's clients talk to."""

import contextlib
import dataclasses
import ipaddress
import logging
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

from eval import metrics, policy, request, responder, sessions, websocket_server, wire, worker, zmq_server

TOKEN = "SAGE_TOKEN"
SERVERS = {"n1.5": zmq_server.Server, "n1.6": zmq_server.Server, "openpi": websocket_server.Server}
STUCK = 5
"""Times timeout_s after which a call of the policy that has not come back is told as stuck."""
PORTS = {"n1.5": 5555, "n1.6": 5555, "openpi": 8000}


class ServeError(ValueError):
    """Options that do not go together."""


USER_ERRORS = (ServeError, policy.ArtifactError, request.RequestError, zmq_server.AddressError, FileNotFoundError)


@dataclasses.dataclass(frozen=True)
class Config:
    """Serve an exported student to robots and simulators. Stop it with Ctrl-C or SIGTERM: what was asked is answered.

    The traffic is not encrypted, and a token does not protect from a peer that can connect and floods: with ZMQ it can
    fill the memory before its token is seen. Keep the server on loopback, or behind a tunnel (ssh -L, WireGuard) or a
    firewall that lets in only whom you trust, and set a token as well.

    A client that reconnects has a new session: what it set with `reset` it sets again."""

    artifact: Annotated[pathlib.Path, tyro.conf.Positional]
    """Folder written by eval.export."""
    protocol: wire.Protocol = "n1.5"
    """n1.5, n1.6: GR00T's ZMQ clients of these versions; openpi: its websocket client."""
    host: str = "127.0.0.1"
    """Address to listen on; other than loopback needs a token."""
    port: int | None = None
    """Default 5555, openpi 8000; 0: a free one."""
    token: str = dataclasses.field(default="", repr=False)
    """Clients must send it (api_token; openpi: Authorization: Api-Key). Default: the environment's SAGE_TOKEN, which
    other users of the machine cannot see. It says who is answered, not who may connect and flood."""
    insecure: bool = False
    """Listen beyond loopback without a token: anyone who reaches the port moves the robot's policy."""
    allow_kill: bool = False
    """Let clients stop the server with GR00T's `kill`."""
    runtime: str = "auto"
    """What runs the program, as eval.policy.load takes it."""
    atp: float | None = None
    """Compute budget per observation, 1 ATP = 10 MFLOP. Default: the artifact's."""
    queue: int = 8
    """Requests that may wait; more are answered with an error at once."""
    timeout_s: float = 2.0
    """Seconds after which a request is answered with an error: its observation is stale."""
    max_bytes: int = 64 << 20
    """Size of a message at most; 1 KiB beyond, the connection is cut. With ZMQ it holds per frame: it bounds no peer
    that sends frame after frame and never ends its message."""
    max_batch: int = 1
    """Observations per request at most. Each number from 1 to it compiles once, at the start, which takes that much
    longer."""
    metrics_port: int | None = None
    """Serve Prometheus' /metrics and /health over HTTP here as well, on loopback; 0: a free port. /health (openpi:
    /healthz) says 503 while the policy hangs."""


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when stopped, 2 on bad input, 130 when interrupted before it was ready."""
    options = tyro.cli(Config, args=argv, prog="python -m eval.serve", description=Config.__doc__)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells which accelerators there are not
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # a client that breaks off is no event
    try:
        check(options)
        loaded = policy.load(options.artifact, runtime=options.runtime)
        with served(loaded, options) as server:
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda *_: server.responder.stop.set())
            print(f"ready: {server.url}, protocol {options.protocol}", flush=True)
            server.run()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before it was ready", file=sys.stderr)
        return 130
    found = server.responder.metrics.snapshot()
    print(f"stopped after {found['uptime_s']:.0f} s: asked {found['requests']}, errors {found['errors']}")
    return 0


def check(options: Config) -> None:
    """Raises ServeError where the options are unsafe or out of range."""
    if not (local(options.host) or token(options) or options.insecure):
        raise ServeError(
            f"--host {options.host} lets other machines in, and no token is set: anyone there could use the policy. "
            f"Set {TOKEN} in the environment (or --token), or say --insecure where the network itself is closed"
        )
    for name in ("queue", "timeout_s", "max_bytes", "max_batch"):
        if not getattr(options, name) > 0:
            raise ServeError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected a number > 0")
    for name in ("port", "metrics_port"):
        if not 0 <= (getattr(options, name) or 0) < 65536:
            raise ServeError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 0 to 65535")
    if options.atp is not None and not 0 <= options.atp <= sessions.MOST_ATP:
        raise ServeError(f"--atp {options.atp}: expected a number in [0, {sessions.MOST_ATP:g}]")


@contextlib.contextmanager
def served(loaded: Any, options: Config) -> Iterator[zmq_server.Server | websocket_server.Server]:
    """A server of this policy that listens; `run` it. loaded: as eval.policy.load gives it."""
    rules = responder.Rules(
        protocol=options.protocol,
        token=token(options),
        allow_kill=options.allow_kill,
        atp=options.atp,
        max_batch=options.max_batch,
        limits=wire.Limits(options.max_bytes),
    )
    one = worker.Worker(options.queue)
    counted = metrics.Metrics(lambda: one.depth, lambda: one.busy_s > STUCK * options.timeout_s)
    core = responder.Responder(loaded, rules, counted)
    core.warm()
    port = PORTS[options.protocol] if options.port is None else options.port
    server = SERVERS[options.protocol](core, one, host=options.host, port=port, timeout_s=options.timeout_s)
    try:
        with contextlib.ExitStack() as stack:
            if options.metrics_port is not None:
                page = stack.enter_context(scraped(counted, options.metrics_port))
                logging.getLogger(__name__).info("metrics: %s", page.url)
            stack.enter_context(one)
            yield server
    finally:
        server.close()


def scraped(counted: metrics.Metrics, port: int) -> metrics.Page:
    """The page for Prometheus; ServeError where the port is taken."""
    try:
        return metrics.Page(counted, host="127.0.0.1", port=port)
    except OSError as error:
        raise ServeError(f"--metrics-port {port}: {error}") from error


@contextlib.contextmanager
def running(loaded: Any, options: Config) -> Iterator[zmq_server.Server | websocket_server.Server]:
    """The same, run by a thread of this process."""
    with served(loaded, options) as server:
        thread = threading.Thread(target=server.run, name="server")
        thread.start()
        try:
            yield server
        finally:
            server.responder.stop.set()
            thread.join()


def token(options: Config) -> str:
    """What clients must send; empty: nothing."""
    return options.token or os.environ.get(TOKEN, "")


def local(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
