"""`python -m eval.serve_soak ARTIFACT`: a policy server under thousands of good and bad requests, and what it costs
over the bare call. The last line is JSON."""

import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import tyro

from eval import client, policy, request, soak, ticker

DIFFERENT = 64
"""Observations that are asked in turn."""
OVERHEAD_MS = 2.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Ask a server of this artifact, in a process of its own, thousands of good and bad requests."""

    artifact: Annotated[pathlib.Path, tyro.conf.Positional]
    """Folder written by eval.export."""
    requests: int = 10_000
    """Good requests, each answer compared with what `policy.act` says here."""
    malformed: int = 1_000
    """Bad requests."""
    clients: int = 2
    """Clients that ask the good ones at once."""
    paired: int = 300
    """Requests timed in turns with bare calls, for the overhead."""
    seed: int = 0
    """Of observations and of what is wrong with the bad ones."""


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when nothing was lost, wrong or left without an answer, 1 otherwise, 2 on bad input."""
    options = tyro.cli(Config, args=argv, prog="python -m eval.serve_soak", description=Config.__doc__)
    try:
        loaded = policy.load(options.artifact)
    except (policy.ArtifactError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with serving(options.artifact) as (url, process):
        found = run(url, loaded, options)
        process.send_signal(signal.SIGTERM)
        found["stopped"] = process.wait(30) == 0
    print(json.dumps(found, indent=1))
    print(json.dumps(found))
    return int(not found["pass"] or not found["stopped"])


def run(url: str, loaded: Any, options: Config) -> dict[str, Any]:
    """Ask everything of a running server; what came of it."""
    asked = soak.questions(loaded, request.Form(loaded.meta, max_batch=1), count=DIFFERENT, seed=options.seed)
    bad = soak.malformed(asked[0], count=options.malformed, seed=options.seed)
    with ticker.Ticker() as tick, client.Client(url) as robot:
        first = pairs(url, loaded, asked=asked, count=options.paired)
        before = robot.call("metrics")["resident_bytes"]
        count = lambda: tick("requests", 1, options.requests)  # noqa: E731
        good = soak.together(url, asked, count=options.requests, clients=options.clients, tick=count)
        between = robot.call("metrics")["resident_bytes"]
        refused = soak.ask_malformed(url, bad, tick=lambda: tick("malformed", 1, options.malformed))
        after = robot.call("metrics")
        again = soak.together(url, asked, count=DIFFERENT, clients=1)
    seconds = np.concatenate([one.pop("seconds") for one in good])
    found = {
        "artifact": str(options.artifact),
        "clients": good,
        "distinct": distinct(asked),
        "round_trip_ms": {f"p{q}": float(np.percentile(seconds, q) * 1e3) for q in (50, 95, 99)},
        "overhead": first,
        "malformed": refused,
        "after_malformed": {key: again[0][key] for key in ("asked", "wrong", "lost")},
        "resident_mb": {"before": before / 1e6, "good": between / 1e6, "after": after["resident_bytes"] / 1e6},
        "server": {key: after[key] for key in ("requests", "errors", "latency_ms", "queue")},
    }
    return found | {"pass": passed(found)}


def passed(found: dict[str, Any]) -> bool:
    """Nothing lost, mixed up or unanswered; the overhead is reported, not judged: the machine may be busy."""
    good = [*found["clients"], found["after_malformed"]]
    return (
        found["distinct"] and not any(one["wrong"] or one["lost"] for one in good) and not found["malformed"]["silent"]
    )


def distinct(asked: list[soak.Question]) -> bool:
    """Whether every question has an answer of its own, so that a mixed-up one would be seen."""
    pairs = ((one, other) for index, one in enumerate(asked) for other in asked[:index])
    return not any(soak.same(one.answer, other.answer) for one, other in pairs)


def pairs(url: str, loaded: Any, *, asked: list[soak.Question], count: int) -> dict[str, Any]:
    """Bare calls and requests in turns: median milliseconds of both, and their difference; policy_ms is the call as the
    server itself times it, where the other process's threads do not count."""
    form, bare, served = request.Form(loaded.meta, max_batch=1), [], []
    with client.Client(url) as robot:
        for index in range(count):
            given = asked[index % len(asked)].observation
            observation = form.flat(given).observation
            for times, call, what in ((bare, loaded.act, observation), (served, robot.get_action, given)):
                began = time.perf_counter()
                call(what)
                times.append(time.perf_counter() - began)
        inside = robot.call("metrics")["latency_ms"]["policy"]["p50"]
    act, round_trip = (float(np.median(times) * 1e3) for times in (bare, served))
    found = {"act_ms": act, "policy_ms": inside, "round_trip_ms": round_trip}
    return found | {"overhead_ms": round_trip - act, "bar_ms": OVERHEAD_MS}


@contextlib.contextmanager
def serving(artifact: pathlib.Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The real command as a process, on a free port: its address, and itself."""
    command = [sys.executable, "-m", "eval.serve", str(artifact), "--port", "0", "--timeout-s", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline()
            if not ready.startswith("ready: "):
                raise RuntimeError(f"the server did not start: {ready}")
            yield ready.removeprefix("ready: ").partition(",")[0], process
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
