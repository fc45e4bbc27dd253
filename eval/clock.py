"""The student's own timing process: loads an artifact and answers one JSON line per JSON line, measuring inside.

`python -m eval.clock ARTIFACT --observation FILE.npz`; eval/timing.py drives it. Imports neither flax nor the training.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from bridge import memory
from eval import policy


def main() -> None:
    """Announce `ready`, then answer `run`, `rate` and `memory` until stdin closes."""
    parser = argparse.ArgumentParser(prog="python -m eval.clock", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=pathlib.Path, help="folder written by eval.export")
    parser.add_argument(
        "--observation", type=pathlib.Path, required=True, help="npz with `video` uint8 [1, t, v, h, w, 3]"
    )
    parser.add_argument("--atp", type=float, default=None, help="compute budget; default: enough for every step")
    arguments = parser.parse_args()
    channel = _own_channel()
    started = time.perf_counter()
    student = policy.load(arguments.artifact)
    video = np.load(arguments.observation)["video"]
    loaded = time.perf_counter()
    first = student.act(video, atp=arguments.atp)
    device = jax.devices()[0]
    _send(
        channel,
        event="ready",
        load_s=loaded - started,
        compile_s=time.perf_counter() - loaded,
        platform=device.platform,
        device=device.device_kind,
        atp=float(first.atp[0]),
        steps={name: int(steps[0]) for name, steps in first.steps.items()},
    )
    for line in sys.stdin:
        request = json.loads(line)
        _send(channel, **answer(request, lambda: student.act(video, atp=arguments.atp)))


def answer(request: dict, act) -> dict:
    """One reply: seconds of each call, the matrix rate at given shapes, or the peak memory so far."""
    if request["do"] == "run":
        for _ in range(request["warm"]):
            act()
        return {"event": "result", "seconds": [_seconds(act) for _ in range(request["repeats"])]}
    if request["do"] == "rate":
        return {"event": "rate", "flops_per_s": matrix_rate(**request["shape"])}
    if request["do"] == "memory":
        device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        peak = memory.peak_bytes()
        return {"event": "memory", "peak_bytes": peak, "device_peak_bytes": device}
    return {"event": "error", "message": f"expected run, rate or memory, got {request['do']!r}"}


def matrix_rate(*, m: int, k: int, n: int, dtype: str, batch: int = 1, repeats: int = 10) -> float:
    """FLOP/s of [batch, m, k] x [batch, k, n] with float32 accumulation: the median call of a chain of products."""
    links = max(1, int(2e8 / (2 * batch * m * k * n)))  # long enough that the dispatch does not count
    left, right = jnp.full((links, batch, m, k), 0.5, dtype), jnp.full((batch, k, n), 0.5, dtype)

    @jax.jit
    def chain(left, right):
        def link(total, part):
            product = jnp.einsum("bmk,bkn->bmn", part, right, preferred_element_type=jnp.float32)
            return total + product, None

        return jax.lax.scan(link, jnp.zeros((batch, m, n), jnp.float32), left)[0]

    chain(left, right).block_until_ready()
    seconds = np.median([_seconds(lambda: chain(left, right).block_until_ready()) for _ in range(repeats)])
    return float(2 * links * batch * m * k * n / seconds)


def _seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _own_channel():
    """Keep stdout for the protocol: whatever a library prints goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _send(channel, **message) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
