"""The student's own timing process: loads an artifact and answers one JSON line per JSON line, measuring inside.

`python -m eval.clock ARTIFACT --observation FILE.npz`; eval/timing.py drives it. Imports neither flax nor the training,
and jax only for XLA and for the matrix rate.
"""

import argparse
import dataclasses
import pathlib
import sys
import time
from typing import Any

import numpy as np

from bridge import channel
from eval import policy


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the student is shown; b rows."""

    video: np.ndarray
    state: np.ndarray | None = None
    instruction: tuple[str, ...] | None = None

    def repeated(self, batch: int) -> "Seen":
        """So many copies of its one row."""
        state = None if self.state is None else self.state.repeat(batch, axis=0)
        return Seen(self.video.repeat(batch, axis=0), state, self.instruction and self.instruction * batch)


def main() -> None:
    """Announce `ready`, then answer `run`, `answer`, `steps`, `rate` and `memory` until stdin closes."""
    arguments, out = _parse(), channel.Channel()
    started = time.perf_counter()
    student = policy.load(arguments.artifact, runtime=arguments.runtime)
    seen = observe(arguments.observation)
    loaded = time.perf_counter()

    def act(batch: int = 1, share: float | None = None) -> policy.Decision:
        atp = arguments.atp if share is None else share * student.meta["atp"]["full"]
        return student.act(seen.repeated(batch), atp=atp)

    first = act()
    compiled, device = time.perf_counter(), _device()
    out.send(
        event="ready",
        load_s=loaded - started,
        compile_s=compiled - loaded,
        platform=device.platform if device else "cpu",
        device=device.device_kind if device else "cpu",
        atp=float(first.atp[0]),
        steps=_steps(first),
    )
    out.serve(lambda request: answer(request, act))


def answer(request: dict, act) -> dict:
    """One reply: seconds of each call, an npz of what was said, the steps that a share of the full budget buys, the
    matrix rate at given shapes, or the peak memory."""
    if request["do"] == "run":
        seen, share = request.get("batch", 1), request.get("share")
        return channel.timed(lambda: act(seen, share), request)
    if request["do"] == "steps":
        return {"event": "steps", "steps": _steps(act(1, request["share"]))}
    if request["do"] == "answer":
        np.savez(request["path"], **_flat(act(1)))
        return {"event": "answer"}
    if request["do"] == "rate":
        from eval import matrix_rate  # jax, which not every runtime needs

        return {"event": "rate", "flops_per_s": matrix_rate.measure(**request["shape"])}
    if request["do"] == "memory":
        return channel.held((_device().memory_stats() or {}).get("peak_bytes_in_use") if _device() else None)
    return channel.refused("run, answer, steps, rate or memory", request)


def observe(path: pathlib.Path) -> Seen:
    """The observation of an npz: `video` uint8 [1, t, v, h, w, 3] and, of a robot, `state` and `instruction`."""
    with np.load(path) as arrays:
        words = tuple(map(str, arrays["instruction"])) if "instruction" in arrays else None
        return Seen(arrays["video"], arrays.get("state"), words)


def _steps(said: policy.Decision) -> dict[str, int]:
    return {name: int(steps[0]) for name, steps in said.steps.items()}


def _device() -> Any:
    """jax's device, where the runtime is jax: one that does without it must not pay for its memory."""
    return sys.modules["jax"].devices()[0] if "jax" in sys.modules else None


def _flat(said: policy.Decision) -> dict[str, np.ndarray]:
    """As the twin names it."""
    found = said.features | {f"energy.{name}": energy for name, energy in said.energy.items()}
    return found | ({"actions": np.concatenate(list(said.actions.values()), axis=-1)} if said.actions else {})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m eval.clock", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=pathlib.Path, help="folder written by eval.export")
    add(
        "--observation",
        type=pathlib.Path,
        required=True,
        help="npz with `video` uint8 [1, t, v, h, w, 3]; of a robot `state` (physical) and `instruction` too",
    )
    add("--runtime", default="xla", help="what runs it; see eval.policy.load")
    add("--atp", type=float, default=None, help="compute budget; default: enough for every step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
