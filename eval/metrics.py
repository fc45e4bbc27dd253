"""What a policy server counts and measures: a dict for its clients, Prometheus' text for a scraper."""

import collections
import http.server
import threading
import time
from collections.abc import Callable

import numpy as np

from bridge import memory

WINDOW = 4096
"""Latest latencies that the percentiles are of."""
PERCENTILES = (50, 95, 99)


class Metrics:
    """Counters and latencies; every method may be called by any thread."""

    def __init__(self, depth: Callable[[], int] = lambda: 0, stuck: Callable[[], bool] = lambda: False):
        """depth: requests that wait now. stuck: whether the policy hangs."""
        self.depth, self.stuck = depth, stuck
        self._lock, self._started = threading.Lock(), time.monotonic()
        self._requests, self._errors = collections.Counter(), collections.Counter()
        self._seconds = {name: collections.deque(maxlen=WINDOW) for name in ("reply", "policy")}

    def asked(self, endpoint: str) -> None:
        """One message came."""
        with self._lock:
            self._requests[endpoint] += 1

    def failed(self, kind: str) -> None:
        """One message was answered with an error."""
        with self._lock:
            self._errors[kind] += 1

    def took(self, what: str, seconds: float) -> None:
        """what: "reply", from the message's arrival to its answer, or "policy", the bare call."""
        with self._lock:
            self._seconds[what].append(seconds)

    def snapshot(self) -> dict:
        """Counts since the start and percentiles of the last WINDOW answers, in milliseconds."""
        with self._lock:
            kept = {name: np.array(values) * 1e3 for name, values in self._seconds.items()}
            counts = {"requests": dict(self._requests), "errors": dict(self._errors)}
        latency = {
            name: {f"p{q}": float(np.percentile(values, q)) if len(values) else None for q in PERCENTILES}
            for name, values in kept.items()
        }
        return counts | {
            "latency_ms": latency,
            "queue": self.depth(),
            "stuck": self.stuck(),
            "uptime_s": time.monotonic() - self._started,
            "resident_bytes": memory.resident_bytes(),
        }

    def text(self) -> str:
        """The same in Prometheus' text format (version 0.0.4)."""
        found = self.snapshot()
        lines = []
        for name, label in (("requests", "endpoint"), ("errors", "kind")):
            lines += [f"# TYPE sage_{name}_total counter"]
            lines += [f'sage_{name}_total{{{label}="{key}"}} {value}' for key, value in sorted(found[name].items())]
        for name, values in found["latency_ms"].items():
            lines += [f"# TYPE sage_{name}_seconds gauge"]
            for key, value in values.items():
                if value is not None:
                    lines.append(f'sage_{name}_seconds{{quantile="0.{key[1:]}"}} {value / 1e3:.6f}')
        gauges = {"queue_depth": "queue", "uptime_seconds": "uptime_s"}
        for name, key in (*gauges.items(), ("resident_bytes",) * 2, ("stuck",) * 2):
            lines += [f"# TYPE sage_{name} gauge", f"sage_{name} {found[key]:.10g}"]
        return "\n".join(lines) + "\n"


class Page:
    """Serves /metrics and /health (503 while the policy hangs) over HTTP from a thread. Use it as a context manager."""

    def __init__(self, metrics: Metrics, *, host: str, port: int):
        self._server = http.server.ThreadingHTTPServer((host, port), _handler(metrics))
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> "Page":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _page(metrics: Metrics, path: str) -> tuple[int, bytes]:
    """HTTP status and body."""
    if path == "/metrics":
        return 200, metrics.text().encode()
    if path == "/health":
        return (503, b"stuck\n") if metrics.stuck() else (200, b"ok\n")
    return 404, b"/metrics or /health\n"


def _handler(metrics: Metrics) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            code, body = _page(metrics, self.path)
            self.send_response(code)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not logged."""

    return Handler
